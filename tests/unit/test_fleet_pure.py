"""Homes, placement order, markers and records: the same on every replica, and nothing foreign is believed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from sandboxes import objects as kube
from sandboxes.fleet.markers import (
    Marker,
    Record,
    build_marker,
    build_record,
    marker_name,
    parse_marker,
    parse_record,
)
from sandboxes.fleet.rendezvous import home, order

MARKER = Marker("s0", "west", "placed", "t1", "uid-1", "east/uid-0", is_made=True, version="7")
RECORD = Record(frozenset({"east", "west"}), (frozenset({"east"}),), 3, (frozenset({"north"}),), "9")


def test_homes_do_not_change_with_a_release() -> None:
    homes = {name: home(name, ["a", "b", "c"]) for name in ("s0", "s1", "s4", "s13", "sandbox-1")}
    assert homes == {"s0": "a", "s1": "b", "s4": "c", "s13": "c", "sandbox-1": "a"}


def test_a_new_cluster_takes_ids_only_to_itself() -> None:
    moved = {home(str(one), "abc") for one in range(500) if home(str(one), "abc") != home(str(one), "ab")}
    assert moved == {"c"}


def test_with_equal_weights_a_sandbox_is_placed_at_home() -> None:
    assert all(order(str(one), dict.fromkeys("abc", 2.0))[0] == home(str(one), "abc") for one in range(500))


def test_weights_share_out_the_ids_and_weight_0_takes_none() -> None:
    firsts = Counter(order(str(one), {"a": 3, "b": 1, "c": 0})[0] for one in range(4000))
    assert firsts.keys() == {"a", "b"}
    assert 2800 < firsts["a"] < 3200


def test_a_marker_is_read_as_it_was_written() -> None:
    obj = build_marker(MARKER, "sandboxes")
    assert parse_marker(obj) == MARKER
    # The last one keeps the reaper from taking it for a left over object of a template.
    assert obj["metadata"]["labels"] == {
        kube.ID_LABEL: "s0",
        kube.MANAGED_BY_LABEL: kube.MANAGED_BY,
        kube.KEEP_LABEL: "true",
    }
    assert parse_marker(build_marker(replace(MARKER, state="pending", uid="", is_made=False), "n")) != MARKER


@pytest.mark.parametrize(
    ("labels", "data"),
    [
        ({}, {"cluster": "west", "state": "placed", "token": "t"}),
        ({kube.ID_LABEL: "s1", kube.MANAGED_BY_LABEL: kube.MANAGED_BY}, {"cluster": "w", "state": "placed"}),
        ({kube.ID_LABEL: "s0", kube.MANAGED_BY_LABEL: kube.MANAGED_BY}, {"cluster": "w", "state": "maybe"}),
        ({kube.ID_LABEL: "s0", kube.MANAGED_BY_LABEL: kube.MANAGED_BY}, None),
    ],
)
def test_a_config_map_that_is_not_a_marker_is_not_believed(labels: dict[str, str], data: dict[str, str] | None) -> None:
    said = parse_marker({"metadata": {"name": marker_name("s0"), "labels": labels}, "data": data})
    assert isinstance(said, str)
    assert "sandbox-s0-elsewhere" in said


def test_a_record_is_read_as_it_was_written() -> None:
    assert parse_record(build_record(RECORD, "sandboxes")) == RECORD


@pytest.mark.parametrize(
    "data", [{}, {"names": "east"}, {"names": "[1]", "coming": "[]", "epoch": "1", "former": "[]"}]
)
def test_a_damaged_record_is_not_believed(data: dict[str, str]) -> None:
    obj = {**build_record(RECORD, "sandboxes"), "data": data}
    assert isinstance(parse_record(obj), str)
