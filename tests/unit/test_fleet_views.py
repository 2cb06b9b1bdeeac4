"""Reads by live views that are behind, each by its own time, against what callers must never see.

Each replica has a view of the Pods and a view of the notes of every cluster: each shows a state that the cluster has
had, and counts as fresh. Mutated rules show that the schedules find what each rule prevents.
"""

# ruff: noqa: ARG002 - a mutated method has the arguments of its original

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from sandboxes.fleet.directory import Directory, Located
from sandboxes.fleet.markers import Marker, Record
from sandboxes.fleet.placement import Placement
from sandboxes.fleet.protocol import Look, Member, Pod, Wanted
from tests.conftest import few
from tests.unit.fleet_world import Broken, MemoryCluster, Replica, Task, World
from tests.unit.test_fleet_interleavings import HOME, ID, NAMES, OTHER, SEEDS, THIRD, first_broken


@dataclass
class Past:
    """All states that a cluster had, in order. `made`: the number of the first one with a Pod, by its uid."""

    pods: list[dict[str, Pod]] = field(default_factory=lambda: [{}])
    notes: list[tuple[dict[str, Marker], Record | None]] = field(default_factory=lambda: [({}, None)])
    made: dict[str, int] = field(default_factory=dict)

    def note(self, cluster: MemoryCluster) -> None:
        """Note the state of the cluster, if it has changed."""
        pods = {key: Pod(one.uid, one.replaces) for key, one in cluster.sandboxes.items()}
        notes = dict(cluster.stored), cluster.names
        if (pods, notes) != (self.pods[-1], self.notes[-1]):
            self.pods.append(pods)
            self.notes.append(notes)
            for pod in pods.values():
                self.made.setdefault(pod.uid, len(self.pods) - 1)


@dataclass
class WorldWithPast(World):
    """Notes the state of each cluster after every step."""

    past: dict[str, Past] = field(default_factory=dict)

    def check(self, sandbox_id: str) -> None:
        for name, cluster in self.clusters.items():
            self.past.setdefault(name, Past()).note(cluster)
        super().check(sandbox_id)


class View:
    """FleetCluster with one replica's views of the cluster, which does everything else."""

    def __init__(self, cluster: MemoryCluster, past: Past) -> None:
        self._cluster, self._past = cluster, past
        self._pods_at = self._notes_at = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def follow(self, chance: random.Random) -> None:
        """Let each view come nearer to the present, or not."""
        last = len(self._past.pods) - 1
        self._pods_at = chance.choice([self._pods_at, last, chance.randint(self._pods_at, last)])
        self._notes_at = chance.choice([self._notes_at, last, chance.randint(self._notes_at, last)])

    def lag(self, notes: int) -> None:
        """Let the view of the Pods be current, and the notes as many changes behind."""
        self._pods_at = len(self._past.pods) - 1
        self._notes_at = max(0, self._pods_at - notes)

    def is_newer_than(self, pod: Pod) -> bool:
        return self._past.made[pod.uid] <= self._notes_at

    def seen_pod(self, sandbox_id: str) -> Pod | None:
        return self._past.pods[self._pods_at].get(sandbox_id)

    def seen(self, sandbox_id: str) -> Look | None:
        pod = self.seen_pod(sandbox_id)
        markers, record = self._past.notes[self._notes_at]
        marker = markers.get(sandbox_id)
        if marker is None and (pod is None or not self.is_newer_than(pod)):
            return None
        return Look(pod, marker, record)

    def seen_markers(self) -> list[Marker] | None:
        return list(self._past.notes[self._notes_at][0].values())

    def seen_pods(self, *, also_parts: bool = False) -> dict[str, Pod] | None:
        return self._past.pods[self._pods_at]

    def still_has(self, record: Record) -> bool:
        return self._past.notes[self._notes_at][1] == record


class UncheckedView(View):
    """Believes that there is no marker although the notes are older than the Pod."""

    def is_newer_than(self, pod: Pod) -> bool:
        return True


class Viewing(Replica):
    """A replica that reads as Fleet.get does: from its views, else live."""

    view_type = View

    def __init__(
        self, world: World, directory: type[Directory] = Directory, placement: type[Placement] = Placement
    ) -> None:
        super().__init__(world, directory, placement)
        assert isinstance(world, WorldWithPast)
        self.chance = random.Random(world.number())  # noqa: S311 - no secret
        self.clusters |= {name: one.seat() for name, one in world.clusters.items()}
        self.views = {
            name: self.view_type(one, world.past.setdefault(name, Past())) for name, one in self.clusters.items()
        }
        self.directory.clusters = self.views

    def follow(self) -> None:
        for view in self.views.values():
            view.follow(self.chance)

    async def get(self, sandbox_id: str) -> Located:
        self.follow()
        return await self.get_by_views(sandbox_id) or await super().get(sandbox_id)

    async def get_by_views(self, sandbox_id: str) -> Located | None:
        found = self.directory.seen(sandbox_id)
        if found is not None:
            self.world.tell(sandbox_id, found.uid, is_create=False)
        return found

    async def round(self) -> None:
        self.follow()
        await super().round()


class ViewingUnchecked(Viewing):
    view_type = UncheckedView


def test_no_read_by_views_that_are_behind_breaks_a_promise() -> None:
    assert first_broken(world_type=WorldWithPast, replica_type=Viewing, seeds=few(SEEDS)) == ""


class WithoutUid(Directory):
    """Believes a `placed` marker whose Pod no create or read has returned yet."""

    def _seen_by(self, marker: Marker, home: str) -> Located | None:
        pod = self.clusters[marker.cluster].seen_pod(marker.sandbox_id)
        return None if pod is None else Located("elsewhere", marker.cluster, pod.uid)


class PodFirst(Directory):
    """Believes the home's Pod, whatever else is there."""

    def seen(self, sandbox_id: str) -> Located | None:
        home = self.homes.home(sandbox_id)
        look = self.clusters[home].seen(sandbox_id)
        return Located("there", home, look.pod.uid) if look is not None and look.pod is not None else None


class Scene:
    """Two replicas that create, and one that reads by its views."""

    def __init__(self, directory: type[Directory], reader: type[Viewing]) -> None:
        self.world = WorldWithPast()
        self.world.add(*NAMES)
        self.one, self.two = Replica(self.world), Replica(self.world)
        self.reader = reader(self.world, directory)
        for replica in (self.one, self.two, self.reader):
            Task("file", replica.read_file([Member(name) for name in NAMES])).run()
        for replica in (self.one, self.two, self.reader):
            Task("get", Replica.get(replica, ID)).run()  # from now on it knows the record of the home
            self.world.check(ID)

    def run_until(self, task: Task, happened: Callable[[], bool]) -> None:
        """Let an operation go on until this is true."""
        while not happened():
            task.step()
            self.world.check(ID)

    def marker(self) -> Marker | None:
        return self.world.clusters[HOME].stored.get(ID)

    def is_on(self, name: str) -> bool:
        return ID in self.world.clusters[name].sandboxes

    def read(self, *, notes: int) -> Task:
        """Read by views of which those of the Pods are current, and those of the notes are `notes` changes behind."""
        for view in self.reader.views.values():
            view.lag(notes)
        return Task("get", self.reader.get_by_views(ID)).run()


def read_beside_a_pod_that_gives_way(directory: type[Directory], reader: type[Viewing]) -> None:
    """Read by notes that are older than a Pod at home, whose maker has not seen the marker yet."""
    scene = Scene(directory, reader)
    at_home = Task("create", scene.one.create(ID, Wanted(HOME)))
    for _ in range(3):  # it reads the home: nothing is there
        at_home.step()
    elsewhere = Task("create", scene.two.create(ID, Wanted(OTHER)))
    scene.run_until(elsewhere, lambda: (marker := scene.marker()) is not None and marker.state == "placed")
    scene.run_until(at_home, lambda: scene.is_on(HOME))
    scene.run_until(elsewhere, lambda: elsewhere.is_over)
    # Before the marker was pending, placed, and confirmed, and the Pod made.
    scene.read(notes=4)
    scene.run_until(at_home, lambda: at_home.is_over)


def read_by_a_marker_that_is_moved(directory: type[Directory], reader: type[Viewing]) -> None:
    """Read by a marker that names no Pod yet, and was moved to another cluster, while a Pod is made on the former."""
    scene = Scene(directory, reader)
    first = Task("create", scene.one.create(ID, Wanted(OTHER)))
    scene.run_until(first, lambda: (marker := scene.marker()) is not None and marker.state == "placed")
    scene.world.clusters[OTHER].room = 0
    second = Task("create", scene.two.create(ID, Wanted(THIRD)))
    scene.run_until(second, lambda: (marker := scene.marker()) is not None and marker.cluster == THIRD)
    scene.world.clusters[OTHER].room = 100
    scene.run_until(first, lambda: scene.is_on(OTHER))
    scene.read(notes=2)
    scene.run_until(second, lambda: second.is_over)


SCHEDULES = [read_beside_a_pod_that_gives_way, read_by_a_marker_that_is_moved]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_read_by_notes_that_are_behind_is_never_of_a_pod_that_gives_way(
    schedule: Callable[[type[Directory], type[Viewing]], None],
) -> None:
    schedule(Directory, Viewing)


@pytest.mark.parametrize(
    ("schedule", "directory", "reader"),
    [
        (read_beside_a_pod_that_gives_way, Directory, ViewingUnchecked),
        (read_beside_a_pod_that_gives_way, PodFirst, ViewingUnchecked),
        (read_by_a_marker_that_is_moved, WithoutUid, Viewing),
    ],
)
def test_reads_by_views_without_one_of_their_rules_break_a_promise(
    schedule: Callable[[type[Directory], type[Viewing]], None], directory: type[Directory], reader: type[Viewing]
) -> None:
    with pytest.raises(Broken, match="twice"):
        schedule(directory, reader)


def test_the_home_is_not_read_where_its_views_show_the_sandbox() -> None:
    scene = Scene(Directory, Viewing)
    for wanted in (HOME, OTHER):
        made = Task("create", scene.one.create(ID, Wanted(wanted))).run().result
        scene.world.check(ID)
        assert scene.read(notes=0).result == made
        assert isinstance(made, Located)
        Task("delete", scene.one.delete(ID)).run()
        scene.world.check(ID)
        # Its end is proven by a read only.
        assert scene.read(notes=0).result is None
