"""The Pods of one sandbox on several clusters: names them for operators, and deletes all of them for a caller.

The directory never makes two. Whoever applies manifests by hand may, and a loss may leave one of which no process knew.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sandboxes.deadlines import within
from sandboxes.errors import ProvisionerError
from sandboxes.fleet.doubles import find_doubles
from sandboxes.fleet.protocol import ClusterAway
from sandboxes.models.clusters import DoubledSandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.deadlines import Deadlines
    from sandboxes.fleet.adapter import UnitCluster
    from sandboxes.fleet.directory import Directory

logger = logging.getLogger(__name__)

# Sandboxes for which `doubled` may ask the clusters; each takes a process.
MOST_ASKED = 16


class Copies:
    """The Pods of each sandbox on `clusters`, by the live views. `directory` decides which one is the sandbox."""

    def __init__(self, clusters: Mapping[str, UnitCluster], directory: Directory, deadlines: Deadlines) -> None:
        self._clusters = clusters
        self._directory = directory
        self._deadlines = deadlines

    def of(self, sandbox_id: str) -> dict[str, str]:
        """Return the uid of the Pod that each cluster has by its live view, by name, however old that is."""
        uids = {name: one.known_uid(sandbox_id) for name, one in self._clusters.items()}
        return {name: uid for name, uid in uids.items() if uid is not None}

    async def delete(self, sandbox_id: str, copies: Mapping[str, str]) -> None:
        """Delete those of these Pods that are left, each by its uid.

        Raises ClusterAway that names a cluster which gives no answer. A lost one is left out then.
        """
        for name, uid in copies.items():
            cluster = self._clusters.get(name)
            if cluster is None:
                continue
            try:
                if cluster.known_uid(sandbox_id) == uid:
                    await self._directory.asked(name).delete_pod(sandbox_id, uid)
                    logger.info("sandbox %s: another Pod of it on cluster %s deleted", sandbox_id, name)
            except ClusterAway:
                if not self._directory.homes.is_lost(name):
                    raise
                logger.warning("sandbox %s: its Pod on the lost cluster %s can't be deleted", sandbox_id, name)

    async def doubled(self) -> list[DoubledSandbox]:
        """Return the sandboxes that several clusters have, by the views that are fresh, and log new ones."""
        names = self._directory.homes.apart(self._clusters)
        pods = {name: seen for name in names if (seen := self._clusters[name].seen_pods()) is not None}
        doubles = find_doubles(pods)
        if len(pods) == len(names):
            self._directory.doubles.say_all(doubles)
        asked = list(doubles)[:MOST_ASKED]
        answers = dict(zip(asked, await asyncio.gather(*map(self._answering, asked)), strict=True))
        return [DoubledSandbox(sandbox_id=one, clusters=doubles[one], answers=answers.get(one)) for one in doubles]

    async def _answering(self, sandbox_id: str) -> str | None:
        """Return the cluster whose Pod is the sandbox; None if there is none, or the directory does not answer soon."""
        try:
            async with within(self._deadlines.clusters_answer):
                found = self._directory.seen(sandbox_id) or await self._directory.locate(sandbox_id)
        except ProvisionerError as error:
            logger.debug("it is not known where sandbox %s is: %s", sandbox_id, error)
            return None
        return None if found.kind == "nowhere" else found.cluster
