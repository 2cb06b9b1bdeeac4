"""Checks whether this replica can do its work.

kubectl runs, the API server answers, no right that every create needs is missing, and the live view is fresh. The
results never contain kubectl's own output.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.deadlines import within
from sandboxes.errors import ClusterRefused, KubectlNotRun, ProvisionerError
from sandboxes.ops.granted import Granted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.ops.rights import Wanted

logger = logging.getLogger(__name__)

OK = "ok"


@dataclass(frozen=True)
class Readiness:
    """The result of each check, by name: `ok`, or one sentence that says what is wrong.

    `needs_one`: the replica is ready if one check is `ok`.
    """

    checks: dict[str, str]
    needs_one: bool = False

    @property
    def is_ready(self) -> bool:
        """Whether every check is `ok`, or one of them if one is enough."""
        return (any if self.needs_one else all)(said == OK for said in self.checks.values())


ENDING = Readiness({"serving": "The provisioner is shutting down"})


class Health:
    """Decides whether this replica should receive requests.

    Checks `serving` (false during shutdown), `kubectl`, `api_server`, `rights` (those of `wanted` that every create
    needs), and `live_view` if it is on.
    """

    def __init__(self, cluster: Cluster, wanted: Mapping[str, Wanted]) -> None:
        self._cluster = cluster
        self._granted = Granted(cluster, wanted)
        self._lock = asyncio.Lock()
        self._found: Readiness | None = None
        self._found_at = 0.0
        self._is_stopping = False

    async def readiness(self) -> Readiness:
        """Return the results, at most `ready_believed` seconds old. Concurrent callers share one round of checks.

        Never raises for a failure of the cluster or of kubectl.
        """
        found = ENDING if self._is_stopping else await self._recent()
        return ENDING if self._is_stopping else found  # `stop` may have been called meanwhile

    def stop(self) -> None:
        """Report this replica as not ready from now on, because the process is shutting down."""
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
        checks = {"serving": OK, "kubectl": OK, "api_server": OK, "rights": OK}
        try:
            async with within(self._cluster.deadlines.ready):
                await self._ask()
        except KubectlNotRun as error:
            checks |= {"kubectl": error.public, "api_server": "It can't be asked without kubectl"}
            logger.debug("not ready: %s\n%s", error, error.detail)
        except ProvisionerError as error:
            late = self._cluster.kubectl.explained(error)
            checks["api_server"] = late.public
            logger.debug("not ready: %s\n%s", late, late.detail)
        patience = until - _now() if checks["api_server"] == OK else 0.0
        # At once: without the right to list, the view never becomes fresh.
        _, is_fresh = await asyncio.gather(
            self._granted.look(patience) if patience > 0 else asyncio.sleep(0), _becomes_fresh(self._cluster, patience)
        )
        checks["rights"] = self._granted.missing or OK
        if self._cluster.has_informer:
            checks["live_view"] = OK if is_fresh else "The live view is not up to date with the cluster"
        return Readiness(checks)

    async def _ask(self) -> None:
        """Probe `/readyz` of the API server. Raises ProvisionerError if it is not ready.

        By default any authenticated user may read it (role system:public-info-viewer). A server that forbids just
        this path has answered, too.
        """
        try:
            await self._cluster.kubectl.probe()
        except ClusterRefused as error:
            if 'cannot get path "/readyz"' not in error.detail:
                raise

    def _tell(self, found: Readiness) -> None:
        """Log the results if they differ from the previous ones."""
        if self._found is not None and found.checks == self._found.checks:
            return
        if found.is_ready:
            logger.info("ready")
        else:
            wrong = [f"{name}: {said}" for name, said in found.checks.items() if said != OK]
            logger.warning("not ready: %s", "; ".join(wrong))


async def _becomes_fresh(cluster: Cluster, seconds: float) -> bool:
    """Return whether the informer is fresh, after waiting up to `seconds` for it; false at once without one.

    The server ends each watch regularly; the view is fresh again within two seconds.
    """
    if not cluster.has_informer:
        return False
    try:
        async with asyncio.timeout(max(0.0, seconds)):
            await cluster.becomes_fresh()
    except TimeoutError:
        return cluster.is_fresh
    return True


def _now() -> float:
    return asyncio.get_running_loop().time()
