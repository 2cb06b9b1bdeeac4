"""Clusters that have left the file, or have been started anew, while they were unreachable; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from sandboxes.clusters_file import ClusterEntry
from sandboxes.deadlines import DEADLINES as D
from sandboxes.errors import ConnectionFailed, ProvisionerError
from sandboxes.fleet.breaker import MOST_FAILURES
from sandboxes.fleet.directory import Listing
from sandboxes.fleet.markers import RECORD_NAME, Record, build_record
from sandboxes.fleet.protocol import Member
from sandboxes.fleet.service import Fleet, Units
from sandboxes.settings import Settings
from sandboxes.tasks import Signal
from tests.unit.fleet_world import Replica, Task, World
from tests.unit.test_fleet_deadlines import Service, SlowKubectl
from tests.unit.virtual_time import run

ID = "x"


class Kubectl(SlowKubectl):
    """Of a cluster that answers, or not. `probes`: how often it was asked whether it does."""

    def __init__(self, *, is_up: bool) -> None:
        super().__init__(0.1)
        self.is_up, self.probes = is_up, 0

    def record(self, *names: str) -> None:
        record = build_record(Record(frozenset(names), epoch=2), "n")
        self.stored[RECORD_NAME] = {**record, "metadata": {**record["metadata"], "resourceVersion": "2"}}

    async def run(self, verb: str, *args: str, stdin: bytes) -> bytes:
        if not self.is_up:
            raise ConnectionFailed("away")
        return await super().run(verb, *args, stdin=stdin)

    async def probe(self) -> None:
        self.probes += 1
        if not self.is_up:
            raise ConnectionFailed("away")


class Clusters:
    """A fleet of a cluster that answers, and one that does not and that requests have found unreachable."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.east, self.west = Kubectl(is_up=True), Kubectl(is_up=False)
        self.units = SimpleNamespace(entries=[], units={}, changed=Signal())
        for name, kubectl in (("east", self.east), ("west", self.west)):
            self.units.entries.append(ClusterEntry(name))
            self.start(name, kubectl)
        self.fleet = Fleet(cast("Units", self.units), settings, D)

    def start(self, name: str, kubectl: Kubectl) -> None:
        unit = SimpleNamespace(name=name, entry=ClusterEntry(name), settings=self.settings)
        unit.service = Service(kubectl, 0.0)
        self.units.units[name] = unit

    async def find_unreachable(self) -> None:
        west = self.fleet.clusters["west"]
        for _ in range(MOST_FAILURES):
            with pytest.raises(ProvisionerError):
                await west.look(ID)
        assert west.breaker.is_open
        await asyncio.sleep(60.0)
        assert self.west.probes


def test_an_unreachable_cluster_that_has_left_the_file_is_not_asked_any_more(
    make_settings: Callable[..., Settings],
) -> None:
    async def leave() -> None:
        clusters = Clusters(make_settings())
        await clusters.find_unreachable()
        del clusters.units.entries[1], clusters.units.units["west"]
        clusters.units.changed.send()
        clusters.east.record("east")
        assert await clusters.fleet.keeper.agree()
        assert set(clusters.fleet.clusters) == {"east"}
        probes = clusters.west.probes
        await asyncio.sleep(600.0)
        assert clusters.west.probes == probes

    run(leave())


def test_an_unreachable_cluster_that_is_started_anew_is_asked_by_one_probe_only(
    make_settings: Callable[..., Settings],
) -> None:
    async def start_anew() -> None:
        clusters = Clusters(make_settings())
        await clusters.find_unreachable()
        clusters.start("west", Kubectl(is_up=True))
        clusters.fleet.follow()
        assert not clusters.fleet.clusters["west"].breaker.is_open
        probes = clusters.west.probes
        await asyncio.sleep(600.0)
        assert clusters.west.probes == probes

    run(start_anew())


def test_a_cluster_that_leaves_within_a_request_is_one_that_gives_no_answer() -> None:
    world = World()
    world.add("east", "west")
    replica = Replica(world)
    Task("file", replica.read_file([Member("east"), Member("west")])).run()
    listing, tidying = Task("list", replica.directory.list_all()), Task("round", replica.round())
    del replica.clusters["west"]
    assert listing.run().result == Listing({}, ["west"])
    assert tidying.run().error is None
