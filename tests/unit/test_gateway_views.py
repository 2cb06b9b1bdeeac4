"""Which Pods the gateway may dial, from the live views of several clusters, also while one of them is out of date."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sandboxes import objects as kube
from sandboxes.access.tokens import Subject
from sandboxes.cluster.cluster import Cluster
from sandboxes.gateway.views import NO_WAY, STALE, UNKNOWN, LivePods, View
from sandboxes.kubectl.client import Kubectl
from sandboxes.objects import KubeObject
from tests.fakes import FakeCluster
from tests.informers import StillView

NS = "rec"
MAX_STALE = 600.0


class Side:
    """A cluster whose live view a test sets. Its API server answers until `loses_it`."""

    def __init__(self, name: str) -> None:
        self.informer = StillView()
        self.used: list[str] = []
        cluster = Cluster(Kubectl(FakeCluster(), max_processes=1, max_waiting=1), self.informer, NS)
        self.cache = self.informer._caches["Pod"]  # noqa: SLF001 - this test is its watch
        self.view = View(name, cluster, self.subject_of, lambda pod: self.used.append(pod["metadata"]["uid"]))

    def subject_of(self, pod: KubeObject) -> Subject:
        metadata = pod["metadata"]
        generation = kube.get_annotations(pod).get(kube.URL_GENERATION_ANNOTATION, "")
        return Subject(self.view.name, NS, kube.sandbox_id_of(pod) or "", metadata["uid"], 8080, generation)

    def proves(self, ago: float = 0.0) -> None:
        self.cache.proven_at = self.cache.last_proven_at = asyncio.get_running_loop().time() - ago

    def loses_it(self) -> None:
        self.cache.failed()

    def change(self, sandbox_id: str, **metadata: Any) -> None:
        """Report the Pod with other metadata."""
        pod = self.informer.sandbox(sandbox_id)[0]
        assert pod is not None
        version = str(int(pod["metadata"]["resourceVersion"]) + 1)
        self.informer.note([{**pod, "metadata": {**pod["metadata"], "resourceVersion": version, **metadata}}])


@pytest.fixture
async def east() -> Side:
    side = Side("east")
    side.proves()
    return side


@pytest.fixture
async def west() -> Side:
    side = Side("west")
    side.proves()
    return side


def both(*sides: Side) -> LivePods:
    pods = LivePods(MAX_STALE)
    for side in sides:
        pods.join(side.view)
    return pods


def found(pods: LivePods, sandbox_id: str = "a") -> list[tuple[str, str]]:
    return [(one.subject.cluster, one.subject.uid) for one in pods.find(sandbox_id)]


async def test_a_pod_is_found_with_all_that_its_token_is_bound_to(east: Side) -> None:
    east.informer.put("a", uid="u1", pod="pod-ready")
    east.change("a", annotations={kube.URL_GENERATION_ANNOTATION: "g2"})
    (candidate,) = both(east).find("a")
    assert candidate.subject == Subject("east", NS, "a", "u1", 8080, "g2")
    assert candidate.pod is east.informer.sandbox("a")[0]


async def test_a_sandbox_that_two_clusters_have_has_a_candidate_of_each(east: Side, west: Side) -> None:
    east.informer.put("a", uid="e")
    west.informer.put("a", uid="w")
    assert found(both(east, west)) == [("east", "e"), ("west", "w")]


async def test_a_terminating_pod_and_one_of_others_are_not_found(east: Side) -> None:
    pods = both(east)
    east.informer.put("a")
    east.informer.put("b")
    east.informer.put("c")
    east.change("a", deletionTimestamp="2026-01-01T00:00:00Z")
    east.change("b", annotations={kube.REFUSED_ANNOTATION: "2026-01-01T00:00:00Z"})
    east.change("c", labels={kube.APP_LABEL: kube.APP, kube.ID_LABEL: "other"})
    assert [found(pods, one) for one in ("a", "b", "c", "never")] == [[], [], [], []]


async def test_the_sandbox_of_one_id_after_another_is_another_subject(east: Side) -> None:
    pods = both(east)
    east.informer.put("a", uid="u1")
    assert found(pods) == [("east", "u1")]
    east.informer.drop("a")
    assert found(pods) == []
    east.informer.put("a", uid="u2")
    assert found(pods) == [("east", "u2")]


async def test_nothing_is_known_for_certain_before_each_view_has_been_whole(east: Side) -> None:
    new = Side("new")
    pods = both(east, new)
    east.informer.put("a")
    assert [LivePods(MAX_STALE).is_usable, pods.is_usable] == [False, False]
    assert pods.problems() == {"east": None, "new": UNKNOWN}
    assert found(pods) == [("east", "u1")]
    new.proves()
    assert pods.is_usable


async def test_what_is_known_goes_on_while_the_api_server_is_away_and_then_ends(east: Side, west: Side) -> None:
    pods = both(east, west)
    east.informer.put("a")
    west.informer.put("b", uid="w")
    east.proves(ago=MAX_STALE - 5)
    east.loses_it()
    usable = [pods.is_usable]
    assert found(pods) == [("east", "u1")]
    east.proves(ago=MAX_STALE + 5)
    east.loses_it()
    usable.append(pods.is_usable)
    assert pods.problems() == {"east": STALE, "west": None}
    assert (found(pods), found(pods, "b")) == ([], [("west", "w")])
    east.proves()
    assert [*usable, pods.is_usable] == [True, False, True]
    assert found(pods) == [("east", "u1")]


async def test_a_quiet_cluster_whose_watch_runs_is_never_out_of_date(east: Side) -> None:
    pods = LivePods(max_stale=10)
    pods.join(east.view)
    east.informer.put("a")
    east.proves(ago=50)
    assert pods.is_usable
    assert found(pods) == [("east", "u1")]


async def test_each_change_of_a_pod_is_sent_with_its_sandbox(east: Side) -> None:
    pods = both(east)
    sent: list[str] = []
    pods.changed.connect(sent.append)
    east.informer.put("a")
    east.change("a", annotations={kube.URL_GENERATION_ANNOTATION: "g2"})
    assert pods.find("a")[0].subject.generation == "g2"
    east.informer.drop("a")
    assert sent == ["a", "a", "a"]


async def test_a_cluster_that_has_left_is_not_searched_and_its_sandboxes_change(east: Side, west: Side) -> None:
    pods = both(east, west)
    east.informer.put("a")
    west.informer.put("b")
    assert found(pods)
    assert found(pods, "b")
    sent: list[str] = []
    pods.changed.connect(sent.append)
    pods.keep({"west"})
    assert sent == ["a"]
    assert (found(pods), pods.problems()) == ([], {"west": None})
    east.informer.put("c")
    assert sent == ["a"]


async def test_a_cluster_that_is_started_anew_replaces_its_old_view(east: Side) -> None:
    pods = both(east)
    east.informer.put("a", uid="old")
    assert found(pods) == [("east", "old")]
    again = Side("east")
    again.proves()
    again.informer.put("a", uid="new")
    pods.join(again.view)
    sent: list[str] = []
    pods.changed.connect(sent.append)
    east.informer.drop("a")
    assert sent == []
    assert found(pods) == [("east", "new")]
    pods.note_use(pods.find("a")[0])
    assert (east.used, again.used) == ([], ["new"])


async def test_an_address_that_leads_nowhere_is_forgotten_until_the_view_shows_it_again(east: Side) -> None:
    pods = both(east)
    east.informer.put("a", pod="pod-ready")
    (candidate,) = pods.find("a")
    address = candidate.pod["status"]["podIP"]
    pods.note_dial(candidate, reached=False)
    assert pods.find("a")[0].pod["status"]["podIP"] == address, "the API server says so at this time"
    east.proves(ago=30)
    east.loses_it()
    pods.note_dial(candidate, reached=False)
    (forgotten,) = pods.find("a")
    assert forgotten.subject == candidate.subject
    assert not forgotten.pod["status"].keys() & {"podIP", "podIPs"}
    await asyncio.sleep(0.01)
    east.proves()
    assert pods.find("a")[0].pod["status"]["podIP"] == address


async def test_a_cluster_whose_pods_can_not_be_dialled_is_named_until_one_can(east: Side, west: Side) -> None:
    pods = both(east, west)
    east.informer.put("a", pod="pod-ready")
    (candidate,) = pods.find("a")
    assert pods.dial_problem("east") is None
    pods.note_dial(candidate, reached=False)
    assert (pods.dial_problem("east"), pods.dial_problem("west")) == (NO_WAY, None)
    pods.note_use(candidate)
    assert pods.dial_problem("east") == NO_WAY, "a request has begun, which may fail, too"
    pods.note_dial(candidate, reached=True)
    assert pods.dial_problem("east") is None
