"""Creates sandboxes: reads the objects, applies the missing ones, rolls back on failure.

Processes coordinate through the objects alone: the immutable revision, the owner annotations, a new `applied-at` on
every apply, and `confirmed-at` on a Pod that another process than its maker returned to a caller. Where the right to
patch is missing, none of these can be written onto an existing object: see `without_patch.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import (
    ClusterRefused,
    ClusterTimeout,
    ClusterUnavailable,
    KeepsChanging,
    NamespaceMissing,
    ObjectsChanged,
    PatchForbidden,
    ProvisionerError,
    SandboxConflict,
    TemplateRefused,
)
from sandboxes.expiring_dict import ExpiringDict
from sandboxes.objects import of_kind
from sandboxes.service import keepalive
from sandboxes.service.attempt import NOBODY, Attempt, mark_of, needs_confirmation, now
from sandboxes.service.capacity import Capacity
from sandboxes.service.lost import absent_object, delete_by_force, is_lost, why_not_gone
from sandboxes.service.missing import missing_objects, needed_service
from sandboxes.service.network_policy import Protection
from sandboxes.service.rollback import Rollback
from sandboxes.service.template_objects import Extras, TemplateObjects
from sandboxes.service.urls import check_new_url
from sandboxes.service.without_patch import WithoutPatch
from sandboxes.spec.manifests import build_extras, build_pair, user_data_source
from sandboxes.spec.ports import must_be_replaced
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.access.accesses import Accesses
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.service.keepalive import Uses
    from sandboxes.service.locks import Locks
    from sandboxes.service.rollback import Pair
    from sandboxes.spec.options import Sandbox
    from sandboxes.spec.templates import Template

logger = logging.getLogger(__name__)

# Sandboxes whose refusals are kept, for diagnostics; each has at most MOST_WORDS characters (kubectl/stderr.py).
MOST_REFUSALS = 1000


class Made(NamedTuple):
    """A sandbox; without a Service if its access needs none.

    `forced`: its lost predecessor was deleted by force; `is_new`: this create has made the Pod.
    """

    pod: KubeObject
    service: KubeObject | None
    forced: bool
    is_new: bool


# A round is repeated if another writer changed the objects; after this many, give up.
MAX_ROUNDS = 8


class Creation:
    """Creates sandboxes, all or nothing. `locks` serialise the work on one id."""

    def __init__(
        self, cluster: Cluster, templates: Mapping[str, Template], accesses: Accesses, locks: Locks, uses: Uses
    ) -> None:
        self._cluster = cluster
        self._uses = uses
        self._accesses = accesses
        self._settings = accesses.settings
        self.room = Capacity(cluster, self._settings.max_sandboxes)
        self._templates = templates
        self._locks = locks
        self.extras = Extras(cluster, templates, locks)
        self.protection = Protection(cluster)
        self._rollback = Rollback(cluster, accesses, locks, self.extras)
        self._without_patch = WithoutPatch(cluster, accesses, self._wait_until_gone)
        # Uids of Pods that this process returned to a caller. An evicted entry only costs one more confirmation.
        self._confirmed: ExpiringDict[str, None] = ExpiringDict(cluster.deadlines.settle, time.monotonic)
        self._refusals: ExpiringDict[str, str] = ExpiringDict(
            cluster.deadlines.refusals_kept, time.monotonic, MOST_REFUSALS
        )
        # Sent for each new Pod, with the start of its create (loop time).
        self.made: Signal[[KubeObject, float]] = Signal()

    async def create(self, sandbox: Sandbox, seconds: float, marks: Mapping[str, str] | None = None) -> Made:
        """Create the sandbox within `seconds` and return its Pod and Service. The caller holds the lock of the id.

        `marks`: annotations of a new Pod, if the maker may withdraw it; see Attempt.may_be_withdrawn.
        An existing sandbox is returned; the request may extend its lifetime, never shorten it.
        Raises Unprocessable, SandboxConflict, LimitReached, ClusterRefused, ClusterUnavailable or ClusterTimeout, after
        it has deleted the objects it made; if the cluster does not allow that yet, they are deleted in the background.
        """
        began = asyncio.get_running_loop().time()
        template, applied_at = self._templates[sandbox.asks.template], now()
        objects = build_pair(sandbox, template, self._settings, applied_at=applied_at)
        extras = build_extras(sandbox, template, self._settings, applied_at=applied_at)
        attempt = Attempt(
            sandbox,
            objects,
            TemplateObjects(sandbox.sandbox_id, extras),
            began=self._cluster.server_clock.at_least(),
            may_be_withdrawn=marks is not None,
        )
        objects[0]["metadata"]["annotations"] |= marks or {}
        try:
            with self.room.making(sandbox.sandbox_id):
                async with within(seconds):
                    await self.protection.ensure()
                    pair = await self._reconcile(attempt)
        except ProvisionerError as error:
            self._note_refusal(sandbox.sandbox_id, error.words if isinstance(error, ClusterRefused) else "")
            settled = await self._rollback.roll_back(attempt, error)
            if settled is not None and attempt.is_unconfirmed(settled[0]):
                raise
            if settled is None:
                if isinstance(error, ClusterTimeout) and attempt.waits_for_deletion:
                    may_force = "force" in self._settings.allow_fields
                    sentence = why_not_gone(attempt.waits_for_deletion, force_allowed=may_force)
                    raise ClusterUnavailable(sentence, detail=error.detail) from error
                raise
            logger.warning("sandbox %s: its create failed, but it is complete and is returned", sandbox.sandbox_id)
            pair = settled
        self._note_refusal(sandbox.sandbox_id, "")
        # Objects of an earlier failed create of this id are deleted by now, or are part of this sandbox.
        if (is_new := attempt.may_have_made(pair[0])) or not attempt.may_be_withdrawn:
            self.forget_failed(sandbox.sandbox_id)
        self._confirmed.note(pair[0]["metadata"]["uid"], None)
        if is_new:
            self.made.send(pair[0], began)
        return Made(*pair, attempt.forced, is_new)

    @property
    def any_refused(self) -> bool:
        """Whether `is_refused` is true for any sandbox."""
        return self._rollback.any_pending

    def is_refused(self, sandbox_id: str) -> bool:
        """Whether this sandbox's objects come from a failed create and are about to be deleted."""
        return self._rollback.is_pending(sandbox_id)

    def forget_failed(self, sandbox_id: str) -> None:
        """Leave the objects of a failed create alone: a later create has made the sandbox, or returns it."""
        self._rollback.forget(sandbox_id)

    def refusal_of(self, sandbox_id: str) -> str:
        """Return the API server's words if it refused the last create for a reason that is not known; else empty."""
        return self._refusals.get(sandbox_id) or ""

    def _note_refusal(self, sandbox_id: str, words: str) -> None:
        if words or sandbox_id in self._refusals:
            self._refusals.note(sandbox_id, words)

    async def finish(self) -> None:
        """Wait for the clean-up after failed creates and deleted sandboxes, for a limited time."""
        await asyncio.gather(self.extras.finish(), self._rollback.finish())

    async def _reconcile(self, attempt: Attempt) -> Pair:
        """Read the objects and apply the missing ones; start again if another writer changed them."""
        sandbox_id = attempt.sandbox.sandbox_id
        failure: ProvisionerError | None = None
        for number in range(MAX_ROUNDS):
            pod, service = await (self._look_first(attempt) if number == 0 else self._cluster.look(sandbox_id))
            if attempt.before is None:
                attempt.before = {obj["metadata"]["uid"]: mark_of(obj) for obj in (pod, service) if obj is not None}
            service = needed_service(pod, service, self._accesses)
            try:
                if await self._clear_existing(attempt, pod, service):
                    continue
                missing = self._missing(attempt, pod, service)
                if pod is None:
                    check_new_url(of_kind("Pod", missing), self._accesses)
                    await self.room.claim(sandbox_id)
                    attempt.applied = True
                    await self.extras.make(attempt.extras, lambda obj: self._wait_until_gone(attempt, obj))
                elif of_kind("Pod", missing) is None:
                    pod = await self._annotate(attempt, pod, always=bool(missing))
                stored = await self._make(attempt, missing, pod, service) if missing else []
            except (ObjectsChanged, NamespaceMissing) as error:
                failure = error
                if isinstance(error, NamespaceMissing):
                    await self._cluster.make_namespace()
                continue
            pod, service = of_kind("Pod", stored) or pod, of_kind("Service", stored) or service
            if pod is not None and self._accesses.of(pod, service).is_whole(pod, service):
                return pod, service
            # Applied onto terminating objects (record: apply-onto-terminating): read again, and wait for the deletion.
        raise failure or KeepsChanging()

    async def _has_unseen_service(self, attempt: Attempt) -> bool:
        """Whether there is a Service that this attempt did not know of, and whose ports its own could not join."""
        _, service = await self._cluster.look(attempt.sandbox.sandbox_id)
        if service is None or attempt.has_marked(service):
            return False
        # Another process may have completed the Pod by it, so it must not count as left over.
        attempt.before = {**(attempt.before or {}), service["metadata"]["uid"]: ""}
        return True

    async def _look_first(self, attempt: Attempt) -> tuple[KubeObject | None, KubeObject | None]:
        """Return the existing Pod and Service, from the live view if it has none, or a complete one of the same owner.

        The view is good enough even for none: the Pod's revision prevents an apply from changing an existing Pod.
        """
        sandbox_id = attempt.sandbox.sandbox_id
        if self._cluster.is_certain(sandbox_id) and not attempt.sandbox.force:
            pod, service = self._cluster.seen(sandbox_id)
            if pod is None and service is None:
                return None, None
            if attempt.is_made(pod, service, self._accesses):
                return pod, service
        return await self._cluster.look(attempt.sandbox.sandbox_id)

    async def _clear_existing(self, attempt: Attempt, pod: KubeObject | None, service: KubeObject | None) -> bool:
        """Delete an ended Pod and wait until terminating objects are gone; return whether there were any.

        With `force`, a lost Pod is deleted by force. Raises SandboxConflict if the objects belong to another owner or
        are not a sandbox's, or if `force` is given and the Pod is alive.
        """
        sandbox_id = attempt.sandbox.sandbox_id
        if any(obj is not None and kube.sandbox_id_of(obj) != sandbox_id for obj in (pod, service)):
            raise SandboxConflict(f"An object that is not a sandbox has the name of sandbox '{sandbox_id}'")
        if pod is not None and (attempt.sandbox.force or not kube.is_terminating(pod)):
            self._check_owner(attempt, pod)
        if pod is not None and not kube.is_terminating(pod):
            is_new = attempt.sandbox.force and not attempt.has_marked(pod)
            if is_new and (not attempt.is_over(pod) or await self._is_lost(pod)):
                await self._delete_by_force(attempt, pod)
                return True
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
        """Poll until the object is gone; a watch would occupy one of the few kubectl processes."""
        attempt.waits_for_deletion = obj
        pauses = self._cluster.deadlines.gone_pauses
        for pause in itertools.chain(pauses, itertools.repeat(pauses[-1])):
            if await self._cluster.is_gone(obj):
                break
            may_force = attempt.sandbox.force and obj["kind"] == "Pod" and not attempt.forced
            if may_force and await self._is_lost(obj):
                await self._delete_by_force(attempt, obj)
            await asyncio.sleep(pause)
        attempt.waits_for_deletion = None

    async def _is_lost(self, pod: KubeObject) -> bool:
        return await is_lost(self._cluster, pod, absent_object(self._templates, self._settings))

    async def _delete_by_force(self, attempt: Attempt, pod: KubeObject) -> None:
        """Delete the lost Pod; raises SandboxConflict if it is not lost."""
        await delete_by_force(self._cluster, pod, absent_object(self._templates, self._settings))
        attempt.forced = True

    def _check_owner(self, attempt: Attempt, pod: KubeObject) -> None:
        """Raise SandboxConflict unless the Pod has the same owner or can be adopted."""
        wanted = attempt.objects[0]
        if attempt.is_owners(pod):
            return
        # Made by hand, or by this service's predecessor: the same user data mean the same owner.
        if kube.owner_of(pod) == NOBODY and user_data_source(pod) == user_data_source(wanted):
            return
        self._check_cleaned_up(attempt)
        raise SandboxConflict(f"Sandbox '{attempt.sandbox.sandbox_id}' belongs to another thread or user")

    def _check_cleaned_up(self, attempt: Attempt) -> None:
        """Raise ClusterUnavailable while a failed create of the same id is rolled back in the background."""
        if self._rollback.is_pending(attempt.sandbox.sandbox_id):
            raise ClusterUnavailable("A failed create of the same id is still being cleaned up")

    def _missing(self, attempt: Attempt, pod: KubeObject | None, service: KubeObject | None) -> list[KubeObject]:
        """Return the objects to apply; see `missing_objects`."""
        is_contested = not self._without_patch.is_known and pod is not None and self._is_unsettled(pod)
        return missing_objects(attempt, pod, service, self._accesses, is_contested=is_contested)

    async def _make(
        self, attempt: Attempt, missing: list[KubeObject], pod: KubeObject | None, service: KubeObject | None
    ) -> list[KubeObject]:
        """Apply the missing objects, or create them where the right to patch is missing; return them as stored."""
        if not self._without_patch.is_known:
            makes_service = of_kind("Service", missing) is not None
            service_type = self._accesses.service_type(service)
            if makes_service and service is not None and must_be_replaced(service, service_type):
                await self._cluster.delete_exactly(service)
                await self._wait_until_gone(attempt, service)
                service = None
            there = [obj for obj in (pod, service) if obj is not None]
            try:
                return await self._apply(attempt, missing, there)
            except PatchForbidden as error:
                if attempt.may_be_withdrawn:
                    raise
                self._without_patch.note(error)
            except TemplateRefused as error:
                if service is not None or not makes_service or not await self._has_unseen_service(attempt):
                    raise
                raise ObjectsChanged("Another client made the sandbox's Service", detail=error.detail) from error
        if pod is not None and not attempt.has_marked(pod):
            self._check_cleaned_up(attempt)
        return await self._without_patch.make(attempt, pod, service)

    async def _annotate(self, attempt: Attempt, pod: KubeObject, *, always: bool) -> KubeObject:
        """Confirm the existing Pod, extend its lifetime as requested, and return it.

        One that its maker may withdraw is confirmed by the caller of the create.

        Without the right to patch it is returned as it is, unless it has expired.
        """
        try:
            if not self._without_patch.is_known:
                if not attempt.may_be_withdrawn:
                    pod = await self._confirm(attempt.sandbox.sandbox_id, pod, always=always)
                elif always:  # a new version, so that the reaper does not delete it as incomplete
                    pod = await self._cluster.annotate(pod, {kube.COMPLETED_ANNOTATION: now()}, manager="completion")
            return await self._prolong(attempt.sandbox, pod)
        except PatchForbidden as error:
            if attempt.may_be_withdrawn:
                raise
            self._without_patch.note(error)
            if expiry.ttl_ends_at(pod) <= expiry.present():
                raise
            return pod

    async def _apply(self, attempt: Attempt, objects: list[KubeObject], there: list[KubeObject]) -> list[KubeObject]:
        """Apply the objects; raises ObjectsChanged if one of `there` that another create applied did not change."""
        attempt.applied = True
        over = [obj for obj in there if not attempt.has_marked(obj)]
        # If the Pod is refused as another owner's, kubectl still applies the Service: one with requested labels waits.
        steps = [[obj] for obj in objects] if attempt.sandbox.asks.labels else [objects]
        stored = [obj for step in steps for obj in await self._cluster.apply(step, over=over)]
        logger.info("sandbox %s applied: %s", attempt.sandbox.sandbox_id, ", ".join(obj["kind"] for obj in objects))
        return stored

    async def _confirm(self, sandbox_id: str, pod: KubeObject, *, always: bool) -> KubeObject:
        """Annotate a Pod as returned to a caller, once in its life, and return it as stored.

        The annotation, and the new resourceVersion, keep its maker from rolling it back. `always` confirms it again:
        one without its Service, which the reaper may be about to delete. Raises ObjectsChanged if the Pod was replaced.
        """
        if not (always or self._rollback.is_pending(sandbox_id) or self._is_unsettled(pod)):
            return pod
        confirmed = await self._cluster.annotate(pod, {kube.CONFIRMED_ANNOTATION: now()}, manager="confirmation")
        self._rollback.forget(sandbox_id)
        return confirmed

    def _is_unsettled(self, pod: KubeObject) -> bool:
        """Whether the Pod's maker may still change or delete it, unless that is this process."""
        is_known = pod["metadata"]["uid"] in self._confirmed
        return not is_known and needs_confirmation(pod)

    async def _prolong(self, sandbox: Sandbox, pod: KubeObject) -> KubeObject:
        """Extend the sandbox's lifetime to the requested one, record a use, and return its Pod."""
        pod = await keepalive.prolong(self._cluster, pod, sandbox.ttl_seconds, sandbox.idle_timeout_seconds)
        return await self._uses.note(pod)
