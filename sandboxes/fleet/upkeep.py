"""The reaper's part for the directory: removes markers without a sandbox, and Pods that are no sandbox any more.

Every delete has a resourceVersion or a uid as precondition, so any number of replicas may do it at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sandboxes.errors import ProvisionerError
from sandboxes.fleet.doubles import find_doubles
from sandboxes.fleet.markers import UNKNOWN, Marker
from sandboxes.fleet.protocol import ClusterAway
from sandboxes.fleet.rendezvous import home
from sandboxes.logs import in_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.fleet.directory import Directory
    from sandboxes.fleet.protocol import Pod

logger = logging.getLogger(__name__)


class Upkeep:
    """One round of clean-up each. Failures are logged, not raised, and a later round tries again."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._homes = directory.homes
        # Pending markers, and Pods that no create has returned, which the last round has seen: their makers may be at
        # work.
        self._pending: set[Marker] = set()
        self._unreturned: set[str] = set()
        # What the last round has said about markers that only an operator can end.
        self._said: set[str] = set()

    async def remove_markers(self) -> list[str]:
        """Remove markers whose sandbox is proven gone, and those in a cluster that is not the id's home any more.

        A `pending` one is removed if a round before has seen it unchanged. Returns the ids.
        """
        removed = []
        pending: set[Marker] = set()
        said: set[str] = set()
        for name in sorted(self._homes.names):
            try:
                # Old ones do no harm: each is read again before it is removed, under its version.
                seen = self._homes.among(self._directory.clusters, name).seen_markers()
                markers = await self._directory.asked(name).markers() if seen is None else seen
            except ProvisionerError as error:
                with in_cluster(name):
                    logger.warning("the markers of cluster %s can't be read: %s", name, error)
                continue
            for marker in markers:
                if marker.state == "pending" and marker not in self._pending:
                    pending.add(marker)
                    continue
                try:
                    if self._homes.home(marker.sandbox_id) == name and self._directory.seen(marker.sandbox_id):
                        continue
                    if await self._is_over(name, marker) and await self._directory.remove(name, marker):
                        removed.append(marker.sandbox_id)
                except ProvisionerError as error:
                    is_stuck = isinstance(error, ClusterAway) and bool(error.marker)
                    level = logging.WARNING if is_stuck and str(error) not in self._said else logging.DEBUG
                    said |= {str(error)} if is_stuck else set()
                    with in_cluster(name):
                        logger.log(level, "the marker of sandbox %s is kept: %s", marker.sandbox_id, error)
        self._pending, self._said = pending, said
        return removed

    async def _is_over(self, cluster: str, marker: Marker) -> bool:
        """Whether the marker, as it was read before, is no longer needed."""
        record = (await self._directory.look(cluster, marker.sandbox_id)).record
        if not self._homes.permits(marker.sandbox_id, cluster, record):
            # Elsewhere decides: by a complete and current record only, since a change reads markers.
            is_current = record is not None and not record.coming and record.epoch == self._homes.newest.epoch
            names = frozenset[str]() if record is None else record.names
            is_home = bool(names) and self._homes.is_same(home(marker.sandbox_id, names), cluster)
            return is_current and not is_home
        marker = self._homes.as_read(marker, record)
        if marker.state == "pending":
            return True
        if (await self._directory.look_there(cluster, marker)).pod is not None:
            return False
        if not marker.replaces:
            return True
        if await self._directory.restore(cluster, marker):
            return False
        former, _, uid = marker.replaces.partition("/")
        old = (await self._directory.look(former, marker.sandbox_id)).pod
        if old is not None and old.uid == uid:  # its successor was made, and was deleted by a caller
            await self._directory.asked(former).delete_pod(marker.sandbox_id, uid)
        return True

    async def remove_unreturned(self, *, dry_run: bool = False) -> list[str]:
        """Delete the Pods that no create has returned, and that are not where the directory says; return the ids.

        Their makers have ended before they could delete them, or their applies arrived late. A round before has seen
        them. Whoever returns a Pod has made the directory say where it is, and writes onto it then: see Placement.
        `dry_run` only logs them.
        """
        removed, unreturned = [], set()
        for name in sorted(self._homes.names):
            try:
                # Old ones do no harm: each is read again before it is deleted, under its version.
                seen = self._homes.among(self._directory.clusters, name).seen_pods()
                pods = await self._directory.asked(name).pods() if seen is None else seen
            except ProvisionerError as error:
                with in_cluster(name):
                    logger.warning("the sandboxes of cluster %s can't be read: %s", name, error)
                continue
            for sandbox_id, pod in pods.items():
                if not pod.is_unreturned:
                    continue
                unreturned.add(pod.uid)
                try:
                    if pod.uid not in self._unreturned or not await self._is_no_sandbox(name, sandbox_id, pod.uid):
                        continue
                    if dry_run:
                        logger.info("the reaper would delete %s on %s: no create has returned it", sandbox_id, name)
                    elif await self._directory.asked(name).delete_unreturned(sandbox_id, pod.uid):
                        removed.append(sandbox_id)
                except ProvisionerError as error:
                    with in_cluster(name):
                        logger.debug("sandbox %s: a Pod that was not returned is kept: %s", sandbox_id, error)
        self._unreturned = unreturned
        return removed

    async def _is_no_sandbox(self, cluster: str, sandbox_id: str, uid: str) -> bool:
        """Whether the directory is complete for the id and does not say that this Pod is its sandbox."""
        home_name = self._homes.home(sandbox_id)
        record = (await self._directory.look(home_name, sandbox_id)).record
        if not self._homes.permits(sandbox_id, home_name, record):
            return False
        found = await self._directory.locate(sandbox_id)
        return (found.cluster, found.uid) != (cluster, uid)

    async def remove_replaced(self) -> list[str]:
        """Delete the Pods that were replaced while their cluster was lost and that are back: exactly these uids.

        Only where the directory, asked live, answers with the new Pod. Returns the ids.
        """
        removed = []
        listing: dict[str, Mapping[str, Pod]] = {}
        for name in sorted(self._homes.names):
            try:
                # Old ones do no harm: a Pod keeps its uid and what it replaces, and the directory is asked.
                seen = self._homes.among(self._directory.clusters, name).seen_pods(also_parts=True)
                listing[name] = await self._directory.asked(name).pods() if seen is None else seen
            except ProvisionerError as error:
                with in_cluster(name):
                    logger.warning("the sandboxes of cluster %s can't be read: %s", name, error)
        apart = {name: listing[name] for name in self._homes.apart(listing)}
        for sandbox_id, names in find_doubles(apart).items():
            self._directory.doubles.say(sandbox_id, names)
        for name, pods in listing.items():
            for sandbox_id, pod in pods.items():
                former, _, uid = pod.replaces.partition("/")
                old = listing.get(former, {}).get(sandbox_id)
                if old is None or uid == UNKNOWN or old.uid != uid:
                    continue
                try:
                    found = await self._directory.locate(sandbox_id)
                    if (found.cluster, found.uid) == (name, pod.uid):
                        await self._directory.asked(former).delete_pod(sandbox_id, uid)
                        removed.append(sandbox_id)
                except ProvisionerError as error:
                    with in_cluster(former):
                        logger.warning("sandbox %s: its replaced Pod can't be deleted yet: %s", sandbox_id, error)
        return removed
