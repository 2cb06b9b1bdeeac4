"""The Pods that the gateway may dial, from the live view of each cluster."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.gateway.interface import Candidate
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from sandboxes.access.tokens import Subject
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject

# Seconds for which a dial says something of its cluster.
DIAL_BELIEVED = 300.0

UNKNOWN = "The Pods of the cluster are not known yet"
NO_WAY = "The gateway can't reach the Pods of the cluster: the last address that it dialled leads nowhere"
STALE = "The API server has not answered for too long"


@dataclass(frozen=True)
class View:
    """The live view of one cluster.

    `name`: of the cluster, as in tokens; `subject_of`: returns what the tokens of a sandbox's Pod are for; `note_use`:
    records a use of a Pod's sandbox, and never waits; `may_be_loopback`: see Candidate.
    """

    name: str
    cluster: Cluster
    subject_of: Callable[[KubeObject], Subject]
    note_use: Callable[[KubeObject], None]
    may_be_loopback: bool = False

    def problem(self, max_stale: float) -> str | None:
        """Return why the view can't be used, in one sentence; None if it can.

        While a watch of it runs, it can: on a quiet cluster nothing proves it current for up to a minute.
        """
        if self.cluster.pods_are_current or self.cluster.pods_age <= max_stale:
            return None
        return UNKNOWN if self.cluster.pods_age == float("inf") else STALE


class LivePods:
    """The Pods of the clusters that have joined; see Pods. `max_stale`: SANDBOX_GATEWAY_MAX_STALE."""

    def __init__(self, max_stale: float) -> None:
        self.changed: Signal[[str]] = Signal()
        self._max_stale = max_stale
        self._views: dict[str, View] = {}
        # Candidates by cluster and Pod name, for as long as the Pod is unchanged.
        self._kept: dict[tuple[str, str], Candidate] = {}
        # Uid of a Pod → loop time at which its address led nowhere.
        self._unreachable: dict[str, float] = {}
        # Clusters in which the last dial led nowhere, with its loop time.
        self._without_way: dict[str, float] = {}

    def join(self, view: View) -> None:
        """Include a cluster, in place of one with the same name."""
        self._views[view.name] = view
        self._forget(view.name)

        def on_exchange(old: KubeObject | None, new: KubeObject | None) -> None:
            either = new or old
            if either is not None and either["kind"] == "Pod" and self._views.get(view.name) is view:
                self._on_pod(view, old, either)

        view.cluster.exchanged.connect(on_exchange)

    def keep(self, names: Container[str]) -> None:
        """Exclude all clusters but those with these names."""
        for view in [view for name, view in self._views.items() if name not in names]:
            del self._views[view.name]
            self._without_way.pop(view.name, None)
            self._forget(view.name)

    def problems(self) -> dict[str, str | None]:
        """Return by cluster why its view can't be used, in one sentence; None if it can."""
        return {name: view.problem(self._max_stale) for name, view in self._views.items()}

    @property
    def is_usable(self) -> bool:
        """See Pods."""
        return bool(self._views) and all(view.problem(self._max_stale) is None for view in self._views.values())

    def find(self, sandbox_id: str) -> list[Candidate]:
        """See Pods."""
        found = []
        for view in self._views.values():
            pod = view.cluster.known(sandbox_id)[0]
            if pod is None or kube.sandbox_id_of(pod) != sandbox_id or kube.is_terminating(pod):
                continue
            if view.problem(self._max_stale) is None:
                found.append(self._candidate(view, pod))
        return found

    def note_use(self, candidate: Candidate) -> None:
        """See Pods."""
        view = self._views.get(candidate.subject.cluster)
        if view is not None:
            view.note_use(candidate.pod)

    def note_dial(self, candidate: Candidate, *, reached: bool) -> None:
        """See Pods."""
        view = self._views.get(candidate.subject.cluster)
        if view is None:
            return
        if reached:
            self._without_way.pop(view.name, None)
            return
        now = self._without_way[view.name] = asyncio.get_running_loop().time()
        if not view.cluster.pods_are_current:
            self._unreachable[candidate.subject.uid] = now

    def dial_problem(self, cluster: str) -> str | None:
        """Return in one sentence that the Pods of the cluster can't be reached, if the last dial there led nowhere.

        Not long after it: that Pod's node may have been lost, and no request have come since.
        """
        since = self._without_way.get(cluster)
        is_recent = since is not None and asyncio.get_running_loop().time() - since < DIAL_BELIEVED
        return NO_WAY if is_recent else None

    def _candidate(self, view: View, pod: KubeObject) -> Candidate:
        key = (view.name, pod["metadata"]["name"])
        kept = self._kept.get(key)
        if kept is None or kept.pod is not pod:
            kept = self._kept[key] = Candidate(view.subject_of(pod), pod, view.may_be_loopback)
        if kept.subject.uid in self._unreachable:
            return self._without_address(view, kept)
        return kept

    def _without_address(self, view: View, candidate: Candidate) -> Candidate:
        """Return the candidate without its address, unless the view has shown the Pod since that led nowhere."""
        since = asyncio.get_running_loop().time() - self._unreachable[candidate.subject.uid]
        if view.cluster.pods_are_current and view.cluster.pods_age < since:
            del self._unreachable[candidate.subject.uid]
            return candidate
        status = {key: value for key, value in candidate.pod["status"].items() if key not in ("podIP", "podIPs")}
        return candidate._replace(pod={**candidate.pod, "status": status})

    def _on_pod(self, view: View, old: KubeObject | None, pod: KubeObject) -> None:
        name = pod["metadata"]["name"]
        self._kept.pop((view.name, name), None)
        if old is not None:
            self._unreachable.pop(old["metadata"]["uid"], None)
        self.changed.send(kube.id_in_name("Pod", name))

    def _forget(self, cluster: str) -> None:
        """Drop what is kept of a cluster, and send `changed` for each of its sandboxes that was found."""
        names = [name for of, name in self._kept if of == cluster]
        for name in names:
            del self._kept[cluster, name]
        for name in names:
            self.changed.send(kube.id_in_name("Pod", name))
