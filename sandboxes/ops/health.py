"""Whether this replica can do its work now: kubectl runs, the API server answers, the live view is fresh.

Says it in sentences of our own, never in kubectl's.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.deadlines import within
from sandboxes.errors import ClusterRefused, KubectlNotRun, ProvisionerError

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster

logger = logging.getLogger(__name__)

OK = "ok"


@dataclass(frozen=True)
class Readiness:
    """What was found, by the name of the check: `ok`, or a sentence for a person."""

    checks: dict[str, str]

    @property
    def is_ready(self) -> bool:
        """Whether nothing is wrong."""
        return all(said == OK for said in self.checks.values())


ENDING = Readiness({"serving": "The provisioner is about to end"})


class Health:
    """Tells whether requests should be sent to this replica.

    The checks: `serving` (until the process is about to end), `kubectl`, `api_server`, and `live_view` where it is on.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = asyncio.Lock()
        self._found: Readiness | None = None
        self._found_at = 0.0
        self._is_stopping = False

    async def readiness(self) -> Readiness:
        """Return what is found now, or was at most `ready_believed` seconds ago; those who ask at once share one look.

        Never raises for what the cluster or kubectl does.
        """
        found = ENDING if self._is_stopping else await self._recent()
        return ENDING if self._is_stopping else found  # perhaps since a moment ago

    def stop(self) -> None:
        """Say from now on that this replica is not ready: the process is about to end."""
        self._is_stopping = True

    async def _recent(self) -> Readiness:
        async with self._lock:
            if self._found is None or _now() - self._found_at > self._cluster.deadlines.ready_believed:
                found = await self._look()
                self._tell(found)
                self._found, self._found_at = found, _now()
            return self._found

    async def _look(self) -> Readiness:
        until = _now() + self._cluster.deadlines.ready
        checks = {"serving": OK, "kubectl": OK, "api_server": OK}
        try:
            async with within(self._cluster.deadlines.ready):
                await self._ask()
        except KubectlNotRun as error:
            checks |= {"kubectl": error.public, "api_server": "It can't be asked without kubectl"}
            logger.debug("not ready: %s\n%s", error, error.detail)
        except ProvisionerError as error:
            checks["api_server"] = error.public
            logger.debug("not ready: %s\n%s", error, error.detail)
        if self._cluster.has_informer:
            # A watch that the server ends, as it does every so often, is fresh again within a second or two.
            patience = until - _now() if checks["api_server"] == OK else 0.0
            is_fresh = await _becomes_fresh(self._cluster, patience)
            checks["live_view"] = OK if is_fresh else "The live view is not up to date with the cluster"
        return Readiness(checks)

    async def _ask(self) -> None:
        """Return if the API server says that it is ready; raises what kept it from saying so.

        By default everyone who is known may ask (role system:public-info-viewer), and a server that refuses just this
        path has answered, too.
        """
        try:
            await self._cluster.kubectl.probe()
        except ClusterRefused as error:
            if 'cannot get path "/readyz"' not in error.detail:
                raise

    def _tell(self, found: Readiness) -> None:
        """Log it when it is another than before."""
        if self._found is not None and found.checks == self._found.checks:
            return
        if found.is_ready:
            logger.info("ready")
        else:
            wrong = [f"{name}: {said}" for name, said in found.checks.items() if said != OK]
            logger.warning("not ready: %s", "; ".join(wrong))


async def _becomes_fresh(cluster: Cluster, seconds: float) -> bool:
    """Return whether the informer is fresh, or becomes so within so many seconds."""
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await cluster.becomes_fresh()
    except TimeoutError:
        return cluster.is_fresh
    return True


def _now() -> float:
    return asyncio.get_running_loop().time()
