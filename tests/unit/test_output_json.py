"""kubectl's JSON becomes the same objects as the JSON library's, only smaller."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from sandboxes.kubectl import output
from tests.record import RECORDED, case, watch_events


def as_kubectl_prints(document: Any) -> bytes:
    return json.dumps(document, indent=4).encode() + b"\n"


@pytest.mark.parametrize("name", ["list-mixed", "list-empty", "apply-create", "apply-one-object", "get-one"])
def test_an_answer_of_kubectl_is_read_as_it_stands_whole_and_by_items(name: str) -> None:
    document = case(name).stdout
    text = as_kubectl_prints(document)
    assert output.loads(text) == document
    assert output.loads_by_items(text) == document
    assert output.loads_by_items(json.dumps(document).encode()) == document


def test_items_are_parted_at_their_ends_whatever_their_strings_hold() -> None:
    odd = {"kind": "Pod", "metadata": {"name": "a", "annotations": {"x": "\n        },\n        {\n", "é": "}"}}}
    document = {"apiVersion": "v1", "items": [odd, {"a": [{}, {"b": {}}]}, odd], "kind": "List"}
    assert output.loads_by_items(as_kubectl_prints(document)) == document


def test_what_is_held_already_stands_in_the_list() -> None:
    document = case("list-mixed").stdout
    first = document["items"][0]
    read = output.loads_by_items(as_kubectl_prints(document), lambda item: first if item == first else item)
    assert read == document
    assert read["items"][0] is first
    assert read["items"][1] is not document["items"][1]


def test_a_list_that_is_cut_short_is_refused() -> None:
    text = as_kubectl_prints(case("list-mixed").stdout)
    for length in range(10, len(text) - 2, 97):
        with pytest.raises(ValueError, match=r".+"):
            output.loads_by_items(text[:length])


def test_the_events_of_a_watch_are_kept_in_a_third_of_the_memory() -> None:
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


def test_what_is_left_out_of_an_event_is_what_kubectl_leaves_out_of_a_get() -> None:
    pods = [event["object"] for event in watch_events()]
    assert any("managedFields" in pod["metadata"] for pod in pods)
    printed = {key for item in case("list-mixed").items for key in item["metadata"]}
    for pod in pods:
        kept = {key for key in pod["metadata"] if key != "managedFields"}
        assert set(output.without_managed_fields(pod)["metadata"]) == kept
    assert "managedFields" not in printed
