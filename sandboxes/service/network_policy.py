"""Applies the namespace's NetworkPolicy before a sandbox is created; if that fails, so does the create."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sandboxes.errors import NamespaceMissing

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster

logger = logging.getLogger(__name__)


class Protection:
    """Applies the cluster's NetworkPolicies, if any are configured."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._applied_at: float | None = None
        self._lock = asyncio.Lock()

    async def ensure(self) -> None:
        """Apply the policies unless that was done within the last minute (`policy_confirmed`).

        Raises ClusterUnavailable, ClusterTimeout, ClusterRefused or LimitReached, as an apply does.
        """
        if not self._cluster.policies or self._is_confirmed():
            return
        async with self._lock:
            if self._is_confirmed():
                return
            started = asyncio.get_running_loop().time()
            try:
                await self._cluster.apply_policies()
            except NamespaceMissing:
                await self._cluster.make_namespace()
            if self._applied_at is None:
                logger.info("sandboxes are isolated by a NetworkPolicy")
            self._applied_at = started

    def _is_confirmed(self) -> bool:
        now = asyncio.get_running_loop().time()
        return self._applied_at is not None and now - self._applied_at < self._cluster.deadlines.policy_confirmed
