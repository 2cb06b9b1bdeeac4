"""Says what is left of the ResourceQuotas of the sandboxes' namespace, as far as the service may read them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sandboxes.deadlines import within
from sandboxes.errors import ClusterRefused, ProvisionerError
from sandboxes.grammar import QuantityError, parse_quantity
from sandboxes.kubectl.raw import quotas_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from decimal import Decimal

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)


def left_of(quotas: Iterable[KubeObject]) -> dict[str, str]:
    """Return what is left of each resource, in cores, bytes or objects; of several quotas the least.

    Quotas with scopes are left out: they may not count sandboxes. So is a resource that is not counted yet.
    """
    least: dict[str, Decimal] = {}
    for quota in quotas:
        spec, status = quota.get("spec") or {}, quota.get("status") or {}
        if spec.get("scopes") or spec.get("scopeSelector"):
            continue
        used = status.get("used") or {}
        for resource, hard in (status.get("hard") or {}).items():
            if resource not in used:
                continue
            try:
                left = max(parse_quantity(hard) - parse_quantity(used[resource]), parse_quantity("0"))
            except QuantityError as error:
                logger.debug("quota %s: %s can't be counted: %s", quota["metadata"]["name"], resource, error)
                continue
            least[resource] = min(left, least.get(resource, left))
    return {resource: format(least[resource].normalize(), "f") for resource in sorted(least)}


class Quotas:
    """The rest of the quotas of one cluster, as it was last read."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._left: dict[str, str] | None = None
        self._read_at = self._due = 0.0

    @property
    def left(self) -> dict[str, str] | None:
        """See `left_of`; None if it may not be read, or was last read more than `quota_kept` seconds ago."""
        return self._left if _now() - self._read_at <= self._cluster.deadlines.quota_kept else None

    async def look(self) -> None:
        """Read the quotas, unless that was done a moment ago. Never raises for a failure of the cluster."""
        deadlines = self._cluster.deadlines
        if _now() < self._due:
            return
        self._due = _now() + deadlines.quota_believed
        quotas = quotas_of(self._cluster.namespace)
        try:
            async with within(deadlines.ready):
                answer = await self._cluster.kubectl.run("get", "--raw", quotas.list_path(), is_probe=True)
            self._left, self._read_at = left_of(quotas.read_page(answer).objects), _now()
        except ClusterRefused as error:  # most likely without the right, which is rarely given later
            self._left, self._due = None, _now() + deadlines.quota_retry
            logger.debug("the quotas can't be read: %s", error)
        except ProvisionerError as error:
            logger.debug("the quotas can't be read: %s", error)


def _now() -> float:
    return asyncio.get_running_loop().time()
