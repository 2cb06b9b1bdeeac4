"""Creates sandboxes without the right to patch, by `kubectl create`.

Without that right nothing can be written onto an existing object, so a process can't show that it has completed or
returned what another one has made. Instead, the process that has created the Pod, and no other, creates the Service,
unless one that has been granted the right meanwhile completes the Pod: its Service stays. A Pod that was made without a
Service, for the gateway, is complete: a process that has no gateway may give it one.
For the others a Pod without its Service is unavailable, until it is complete or the reaper has deleted it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.errors import ClusterUnavailable, KeepsChanging, ObjectsChanged, PatchForbidden
from sandboxes.service.attempt import NOBODY
from sandboxes.spec.ports import fitted

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxes.access.accesses import Accesses
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.attempt import Attempt

logger = logging.getLogger(__name__)

# A Service that is left over is deleted and made anew; after this many, give up.
MAX_ROUNDS = 4


class WithoutPatch:
    """Remembers for a minute that the right to patch is missing, and creates sandboxes without it."""

    def __init__(
        self,
        cluster: Cluster,
        accesses: Accesses,
        wait_until_gone: Callable[[Attempt, KubeObject], Awaitable[None]],
    ) -> None:
        self._cluster = cluster
        self._accesses = accesses
        self._wait_until_gone = wait_until_gone
        # Loop time at which an apply is tried again.
        self._until: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether the right was missing less than `patch_forbidden` seconds ago."""
        return self._until is not None and asyncio.get_running_loop().time() < self._until

    def note(self, error: PatchForbidden) -> None:
        """Remember that the right is missing."""
        if self._until is None:
            logger.warning("%s. Sandboxes are made by `kubectl create`, and not changed afterwards.", error)
        self._until = asyncio.get_running_loop().time() + self._cluster.deadlines.patch_forbidden

    async def make(self, attempt: Attempt, pod: KubeObject | None, service: KubeObject | None) -> list[KubeObject]:
        """Create what the sandbox needs, or the Service of an existing Pod; return the objects as stored.

        Raises ObjectsChanged if they must be read again, ClusterUnavailable if another process is making them, and
        PatchForbidden if an existing object would have to be changed, or if uses would have to be recorded.
        """
        attempt.applied = attempt.without_patch = True
        new_pod, new_service = attempt.objects
        if pod is None:
            if expiry.idle_timeout(new_pod) is not None:
                raise PatchForbidden(
                    "The provisioner lacks the right to patch pods in the cluster, so none can end idle"
                )
            created = await self._cluster.create([new_pod])
            if not created:
                raise ObjectsChanged("Another process is creating the sandbox")
            pod = created[0]
            if not self._accesses.of(pod, None).needs_service:
                logger.info("sandbox %s created", attempt.sandbox.sandbox_id)
                return [pod]
        elif kube.is_behind_gateway(pod):
            new_service = fitted(new_service, pod, None, self._accesses.settings.sandbox_container_port)
        elif not attempt.has_marked(pod):
            if kube.owner_of(pod) == NOBODY or service is not None:
                raise _refused("pods" if service is None else "pods and services")
            await self._wait_for_maker(attempt, pod)
        stored = [pod, await self._make_service(attempt, pod, new_service, service)]
        logger.info("sandbox %s created", attempt.sandbox.sandbox_id)
        return stored

    async def _make_service(
        self, attempt: Attempt, pod: KubeObject, new: KubeObject, old: KubeObject | None
    ) -> KubeObject:
        """Create the Service of this attempt's Pod, in place of one that another sandbox of the id has left over.

        Returns the one by which another process has completed the Pod meanwhile: it has been granted the right.
        Raises ObjectsChanged if the Pod has been deleted: then the Service is that of its successor.
        """
        for _ in range(MAX_ROUNDS):
            if old is not None:
                is_others = not attempt.may_replace(old, pod) and self._accesses.of(pod, old).is_whole(pod, old)
                if attempt.has_marked(old) or is_others:
                    return old
                if not kube.is_managed(old):
                    raise _refused("services")
                await self._cluster.delete_exactly(old)
                await self._wait_until_gone(attempt, old)
            created = await self._cluster.create([new])
            if created:
                return created[0]
            there, old = await self._cluster.look(attempt.sandbox.sandbox_id)
            if there is None or there["metadata"]["uid"] != pod["metadata"]["uid"] or kube.is_terminating(there):
                raise ObjectsChanged("The sandbox was deleted while it was made")
            pod = there
        raise KeepsChanging

    async def _wait_for_maker(self, attempt: Attempt, half: KubeObject) -> None:
        """Wait a moment for another process to complete its Pod; raises ObjectsChanged if the sandbox has changed."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._cluster.deadlines.others_service
        while loop.time() < end:
            await asyncio.sleep(self._cluster.deadlines.gone_pauses[0])
            pod, service = await self._cluster.look(attempt.sandbox.sandbox_id)
            if pod is None or service is not None or pod["metadata"]["uid"] != half["metadata"]["uid"]:
                raise ObjectsChanged("Another process is creating the sandbox")
        raise ClusterUnavailable("Another process is creating the sandbox")


def _refused(resources: str) -> PatchForbidden:
    return PatchForbidden(
        f"The provisioner lacks the right to patch {resources} in the cluster, which adopting a sandbox needs"
    )
