"""kubectl's JSON is parsed to the same objects as by the JSON library, with less memory."""

from __future__ import annotations

import gc
import json
import tracemalloc
from typing import Any

import pytest

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


def test_parsing_a_long_list_runs_no_garbage_collection() -> None:
    """Else it takes more than twice as long, since each collection visits the new objects again."""
    text = json.dumps({"items": [event["object"] for event in watch_events()] * 20}).encode()
    collections: list[str] = []

    def note(phase: str, _info: dict[str, int]) -> None:
        collections.append(phase)

    gc.callbacks.append(note)
    try:
        found = output.loads(text)
        count = len(collections)  # before anything else is allocated
    finally:
        gc.callbacks.remove(note)
    assert count == 0
    assert found == json.loads(text)
    assert gc.isenabled()


def test_garbage_collection_is_enabled_again_after_invalid_json() -> None:
    with pytest.raises(ValueError, match="EOF"):
        output.loads(b'{"items": [')
    assert gc.isenabled()
