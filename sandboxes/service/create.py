"""Makes a sandbox: looks, applies what is missing, and is rolled back if it fails.

What guards between processes is in the objects: the immutable revision, the owner's annotations, a new `applied-at`
on every apply, and `confirmed` on what another process returned to a caller.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from datetime import timedelta
from typing import TYPE_CHECKING, TypeAlias

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import (
    ClusterTimeout,
    ClusterUnavailable,
    KeepsChanging,
    NamespaceMissing,
    ObjectsChanged,
    ProvisionerError,
    SandboxConflict,
)
from sandboxes.expiring_dict import ExpiringDict
from sandboxes.objects import of_kind
from sandboxes.service import keepalive
from sandboxes.service.attempt import CLOCKS_DIFFER, NOBODY, Attempt, marks_only, now
from sandboxes.service.capacity import Capacity
from sandboxes.service.network_policy import Protection
from sandboxes.service.rollback import Rollback
from sandboxes.service.template_objects import Extras, TemplateObjects
from sandboxes.spec.manifests import build, build_extras, user_data_source, without_news
from sandboxes.status.response import is_whole
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.keepalive import Uses
    from sandboxes.service.locks import Locks
    from sandboxes.settings import Settings
    from sandboxes.spec.options import Sandbox
    from sandboxes.spec.templates import Template

logger = logging.getLogger(__name__)

Pair: TypeAlias = "tuple[KubeObject, KubeObject]"

# Each round of a create ends because somebody else changed the objects; so many in a row is no accident.
MAX_ROUNDS = 8


class Creation:
    """Makes sandboxes, all or nothing. One task at a time works on one id: `locks`."""

    def __init__(
        self, cluster: Cluster, templates: Mapping[str, Template], settings: Settings, locks: Locks, uses: Uses
    ) -> None:
        self._cluster = cluster
        self._uses = uses
        self._room = Capacity(cluster, settings.max_sandboxes)
        self._templates = templates
        self._settings = settings
        self._locks = locks
        self.extras = Extras(cluster, templates, locks)
        self.protection = Protection(cluster)
        self._rollback = Rollback(cluster, settings, locks, self.extras)
        # The uids of the Pods that this process has returned to a caller. One that is forgotten is marked once more.
        self._confirmed: ExpiringDict[str, None] = ExpiringDict(cluster.deadlines.settle, time.monotonic)
        # For each Pod that a create has made: the Pod, and when that create began (loop time).
        self.made: Signal[[KubeObject, float]] = Signal()

    async def create(self, sandbox: Sandbox, seconds: float) -> Pair:
        """Return the sandbox's Pod and Service, made within `seconds`. The caller holds the lock of the id.

        One that is there already lives on for as long as it would have, and for as long as is asked for now.
        Raises SandboxConflict, LimitReached, ClusterRefused, ClusterUnavailable or ClusterTimeout; what it made is
        gone again then, or will be as soon as the cluster lets it.
        """
        began = asyncio.get_running_loop().time()
        template, applied_at = self._templates[sandbox.asks.template], now()
        objects = build(sandbox, template, self._settings, applied_at=applied_at)
        extras = build_extras(sandbox, template, self._settings, applied_at=applied_at)
        attempt = Attempt(sandbox, objects, TemplateObjects(sandbox.sandbox_id, extras))
        try:
            with self._room.making(sandbox.sandbox_id):
                async with within(seconds):
                    await self.protection.ensure()
                    pair = await self._reconcile(attempt)
        except ProvisionerError as error:
            settled = await self._rollback.roll_back(attempt)
            if settled is None:
                if isinstance(error, ClusterTimeout) and attempt.waits_for_deletion:
                    raise ClusterUnavailable(
                        "The sandbox of the same id is still being deleted", detail=error.detail
                    ) from error
                raise
            logger.warning("sandbox %s is whole after all", sandbox.sandbox_id)
            pair = settled
        # An earlier create of this id may have failed, and what it made is gone or has become this sandbox.
        self._rollback.forget(sandbox.sandbox_id)
        self._confirmed.note(pair[0]["metadata"]["uid"], None)
        if attempt.may_have_made(pair[0]):
            self.made.send(pair[0], began)
        return pair

    @property
    def any_refused(self) -> bool:
        """Whether `is_refused` is true of any sandbox."""
        return self._rollback.any_pending

    def is_refused(self, sandbox_id: str) -> bool:
        """Whether what is there of this sandbox was made by a create that failed, and will be deleted."""
        return self._rollback.is_pending(sandbox_id)

    async def finish(self) -> None:
        """Give what still cleans up after failed creates and deleted sandboxes a while to end."""
        await asyncio.gather(self.extras.finish(), self._rollback.finish())

    async def _reconcile(self, attempt: Attempt) -> Pair:
        """Look, apply what is missing, and do so again when somebody changed the objects in between."""
        sandbox_id = attempt.sandbox.sandbox_id
        failure: ProvisionerError | None = None
        for number in range(MAX_ROUNDS):
            pod, service = await (self._look_first(attempt) if number == 0 else self._cluster.look(sandbox_id))
            if attempt.before is None:
                attempt.before = {obj["metadata"]["uid"] for obj in (pod, service) if obj is not None}
            try:
                if await self._clear_the_way(attempt, pod, service):
                    continue
                missing = self._missing(attempt, pod, service)
                if pod is None:
                    await self._room.claim(sandbox_id)
                    attempt.applied = True
                    await self.extras.make(attempt.extras, lambda obj: self._wait_until_gone(attempt, obj))
                elif of_kind("Pod", missing) is None:
                    pod = await self._confirm(sandbox_id, pod, by_all_means=bool(missing))
                    pod = await self._prolong(attempt.sandbox, pod)
                there = [obj for obj in (pod, service) if obj is not None]
                stored = await self._apply(attempt, missing, there) if missing else []
            except (ObjectsChanged, NamespaceMissing) as error:
                failure = error
                if isinstance(error, NamespaceMissing):
                    await self._cluster.make_namespace()
                continue
            pod, service = of_kind("Pod", stored) or pod, of_kind("Service", stored) or service
            if pod is not None and service is not None and is_whole(pod, service, self._settings):
                return pod, service
            # Applied onto objects that are being deleted (record: apply-onto-terminating): look again, and wait.
        raise failure or KeepsChanging()

    async def _look_first(self, attempt: Attempt) -> tuple[KubeObject | None, KubeObject | None]:
        """Return what is there, from the view where it knows of nothing, or of a whole sandbox of the same owner.

        Of nothing, too: the cluster's own guard is the Pod's revision, and an apply onto what is there changes nothing.
        """
        sandbox_id = attempt.sandbox.sandbox_id
        if self._cluster.is_certain(sandbox_id):
            pod, service = self._cluster.seen(sandbox_id)
            if pod is None and service is None:
                return None, None
            if attempt.is_made(pod, service, self._settings):
                return pod, service
        return await self._cluster.look(attempt.sandbox.sandbox_id)

    async def _clear_the_way(self, attempt: Attempt, pod: KubeObject | None, service: KubeObject | None) -> bool:
        """Check that what is there may be used, and wait for what is on its way out; whether anything changed."""
        sandbox_id = attempt.sandbox.sandbox_id
        if any(obj is not None and kube.sandbox_id_of(obj) != sandbox_id for obj in (pod, service)):
            raise SandboxConflict(f"Something that is no sandbox has the name of sandbox '{sandbox_id}'")
        if pod is not None and not kube.is_terminating(pod):
            self._check_owner(attempt, pod)
            if attempt.is_over(pod):
                logger.info("sandbox %s has ended and is replaced", sandbox_id)
                await self._cluster.delete_exactly(pod)
                await self._wait_until_gone(attempt, pod)
                return True
        for obj in (pod, service):
            if obj is not None and kube.is_terminating(obj):
                await self._wait_until_gone(attempt, obj)
                return True
        return False

    async def _wait_until_gone(self, attempt: Attempt, obj: KubeObject) -> None:
        """Look until the object is gone, with pauses: a watch would hold one of the few processes all the time."""
        attempt.waits_for_deletion = True
        pauses = self._cluster.deadlines.gone_pauses
        for pause in itertools.chain(pauses, itertools.repeat(pauses[-1])):
            if await self._cluster.is_gone(obj):
                break
            await asyncio.sleep(pause)
        attempt.waits_for_deletion = False

    def _check_owner(self, attempt: Attempt, pod: KubeObject) -> None:
        """Raise SandboxConflict unless the Pod is the same owner's, or can be adopted."""
        wanted = attempt.objects[0]
        if attempt.is_owners(pod):
            return
        # Made by hand, or by the service that this one replaces: the same data mean the same owner.
        if kube.owner_of(pod) == NOBODY and user_data_source(pod) == user_data_source(wanted):
            return
        if self._rollback.is_pending(attempt.sandbox.sandbox_id):
            raise ClusterUnavailable("What a failed create of the same id made is still being deleted")
        raise SandboxConflict(f"Sandbox '{attempt.sandbox.sandbox_id}' belongs to another thread or user")

    def _missing(self, attempt: Attempt, pod: KubeObject | None, service: KubeObject | None) -> list[KubeObject]:
        """Return what must be applied. A Pod that is there and ours is never applied again."""
        new_pod, new_service = attempt.objects
        if pod is None:
            return [new_pod, new_service]
        new_pod, new_service = (without_news(obj, attempt.sandbox.asks, pod) for obj in attempt.objects)
        missing = []
        if kube.owner_of(pod) == NOBODY:
            logger.info("sandbox %s is adopted", attempt.sandbox.sandbox_id)
            missing.append(marks_only(new_pod, pod))
        if service is None or not kube.is_managed(service) or not is_whole(pod, service, self._settings):
            missing.append(new_service)
        return missing

    async def _apply(self, attempt: Attempt, objects: list[KubeObject], there: list[KubeObject]) -> list[KubeObject]:
        """Apply the objects, and check that those that are `there` without this create's mark have changed."""
        attempt.applied = True
        over = [obj for obj in there if kube.get_annotations(obj).get(kube.APPLIED_AT_ANNOTATION) != attempt.applied_at]
        # kubectl goes on to the Service where the Pod is refused, as another owner's: one with labels of its own waits.
        steps = [[obj] for obj in objects] if attempt.sandbox.asks.labels else [objects]
        stored = [obj for step in steps for obj in await self._cluster.apply(step, over=over)]
        logger.info("sandbox %s applied: %s", attempt.sandbox.sandbox_id, ", ".join(obj["kind"] for obj in objects))
        return stored

    async def _confirm(self, sandbox_id: str, pod: KubeObject, *, by_all_means: bool) -> KubeObject:
        """Return the Pod with a mark that it was returned to a caller, where somebody may be about to delete it.

        That is its maker, if it has told its caller that it failed, or, `by_all_means`, the reaper, which takes it for
        a half. The mark, or the new resourceVersion, stops them. Raises ObjectsChanged if it is no longer that Pod.
        """
        marks = kube.get_annotations(pod)
        if not self._rollback.is_pending(sandbox_id) and not by_all_means:
            applied_at = expiry.time_of(pod, kube.APPLIED_AT_ANNOTATION)
            if pod["metadata"]["uid"] in self._confirmed or applied_at is None or kube.CONFIRMED_ANNOTATION in marks:
                return pod
            if expiry.present() - applied_at > timedelta(seconds=self._cluster.deadlines.settle) + CLOCKS_DIFFER:
                return pod
        confirmed = await self._cluster.annotate(pod, {kube.CONFIRMED_ANNOTATION: now()}, manager="confirmation")
        self._rollback.forget(sandbox_id)
        return confirmed

    async def _prolong(self, sandbox: Sandbox, pod: KubeObject) -> KubeObject:
        """Let the sandbox live for as long as is asked for now, and count this as a use of it; return its Pod."""
        pod = await keepalive.prolong(self._cluster, pod, sandbox.ttl_seconds, sandbox.idle_timeout_seconds)
        return await self._uses.note(pod)
