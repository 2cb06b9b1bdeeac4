"""kubectl's JSON is parsed to the same objects as by the JSON library, with less memory."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

from sandboxes.kubectl import output
from tests.record import RECORDED, case, watch_events


def test_watch_events_are_kept_in_less_than_40_percent_of_the_memory() -> None:
    lines = (RECORDED / "kubectl" / "watch-pods.ndjson").read_bytes().splitlines()

    def kilobytes(read: Any) -> float:
        tracemalloc.start()
        kept = [read(line) for line in lines]
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size / len(kept) / 1000

    plain = kilobytes(json.loads)
    slim = kilobytes(lambda line: output.without_managed_fields(output.loads(line)["object"]))
    assert slim < plain * 0.4


def test_watch_events_omit_the_same_metadata_as_kubectl_get() -> None:
    pods = [event["object"] for event in watch_events()]
    assert any("managedFields" in pod["metadata"] for pod in pods)
    printed = {key for item in case("list-mixed").items for key in item["metadata"]}
    for pod in pods:
        kept = {key for key in pod["metadata"] if key != "managedFields"}
        assert set(output.without_managed_fields(pod)["metadata"]) == kept
    assert "managedFields" not in printed
