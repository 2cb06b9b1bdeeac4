"""Creates a template's extra objects before the Pod and deletes them after it; never touches another owner's.

Extra objects are created, not applied, so that of two concurrent owners the API server rejects one. A create that uses
existing objects first sets a new `applied-at` on them; a delete skips objects whose `applied-at` has changed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.errors import (
    ClusterRefused,
    KeepsChanging,
    ObjectsChanged,
    PreconditionFailed,
    ProvisionerError,
    SandboxConflict,
)
from sandboxes.spec.templates import suffix_of
from sandboxes.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import Key, KubeObject
    from sandboxes.service.locks import Locks
    from sandboxes.spec.templates import Template

logger = logging.getLogger(__name__)

# A round is repeated if another writer changed the objects; after this many, give up.
MAX_ROUNDS = 8


@dataclass
class TemplateObjects:
    """The extra objects of one create. `before`: uids of objects with those names that it did not make."""

    sandbox_id: str
    objects: list[KubeObject]
    before: set[str] = field(default_factory=set)

    @property
    def applied_at(self) -> str:
        """The `applied-at` annotation of this create, unique to it."""
        return _mark(self.objects[0])

    def has_made(self, obj: KubeObject) -> bool:
        """Whether this create made the object, and no other create has used it since."""
        return obj["metadata"]["uid"] not in self.before and _mark(obj) == self.applied_at


@dataclass(frozen=True)
class PendingDeletion:
    """Objects to delete once `pod` is gone, if `is_meant` is still true for them."""

    sandbox_id: str
    pod: KubeObject
    objects: list[KubeObject]
    is_meant: Callable[[KubeObject], bool]


class Extras:
    """Creates and deletes the extra objects of sandboxes. `locks` serialise the work on one id."""

    def __init__(self, cluster: Cluster, templates: Mapping[str, Template], locks: Locks) -> None:
        self._cluster = cluster
        self._templates = templates
        self._locks = locks
        self._leaving: dict[str, PendingDeletion] = {}
        self._deadlines = cluster.deadlines
        self._tasks = BackgroundTasks()
        self._may_list = True
        # Loop time at which an object without a Pod was first listed, by its identity.
        self._since: dict[tuple[str, str], float] = {}
        # Loop time of the next search for leftovers.
        self._look_at = 0.0
        cluster.exchanged.connect(self._on_exchange)

    async def make(self, wanted: TemplateObjects, wait_until_gone: Callable[[KubeObject], Awaitable[None]]) -> None:
        """Create the missing objects and set `applied-at` on the others. The caller holds the lock and has seen no Pod.

        `wait_until_gone` is awaited for each terminating object. Raises SandboxConflict if an object belongs to another
        owner, ClusterUnavailable if other writers keep changing them, and the errors of a create.
        """
        if not wanted.objects:
            return
        for _ in range(MAX_ROUNDS):
            found = await self._find(wanted.objects)
            wanted.before |= {obj["metadata"]["uid"] for obj in found.values() if _mark(obj) != wanted.applied_at}
            going = [obj for obj in found.values() if kube.is_terminating(obj)]
            for obj in going:
                await wait_until_gone(obj)
            if going or await self._make_room(wanted, found):
                continue
            if not await self._touch(wanted, found):
                continue
            missing = [obj for obj in wanted.objects if kube.key_of(obj) not in found]
            if await self._create(missing):
                return
        raise KeepsChanging

    async def undo(self, wanted: TemplateObjects) -> None:
        """Delete the failed create's objects that no other create has used since, kept claims included.

        If the create's Pod is still terminating, deletes them in the background afterwards. The caller holds the lock.
        """
        if not wanted.objects:
            return
        pod, _ = await self._cluster.look(wanted.sandbox_id, urgent=True)
        if pod is None or not kube.is_terminating(pod):
            await self._delete_where(wanted.objects, wanted.has_made)
        else:
            self.delete_later(PendingDeletion(wanted.sandbox_id, pod, wanted.objects, wanted.has_made))

    async def leaving(self, sandbox_id: str) -> PendingDeletion | None:
        """Return the extra objects to delete after the Pod of a sandbox that is about to be deleted, None for none.

        The caller holds the lock. Reads nothing if no template has extra objects to delete.
        """
        if not any(_has_deletable(template) for template in self._templates.values()):
            return None
        try:
            return await self._find_leaving(sandbox_id)
        except ProvisionerError as error:
            logger.warning("sandbox %s: its extra objects are left to the reaper: %s", sandbox_id, error)
            return None

    async def _find_leaving(self, sandbox_id: str) -> PendingDeletion | None:
        pod, _ = self._cluster.seen(sandbox_id)
        if pod is None:  # another replica may have made it just now
            pod, _ = await self._cluster.look(sandbox_id)
        template = self._templates.get(kube.get_annotations(pod).get(kube.TEMPLATE_ANNOTATION, "")) if pod else None
        if pod is None or template is None or not _has_deletable(template):
            return None
        found = await self._find(_references(sandbox_id, template, pod["metadata"]["namespace"]))
        objects = [obj for obj in found.values() if kube.owner_of(obj) == kube.owner_of(pod) and not _is_kept(obj)]
        return PendingDeletion(sandbox_id, pod, objects, _untouched(objects)) if objects else None

    def delete_later(self, leaving: PendingDeletion | None) -> None:
        """Delete the objects in the background once the Pod is gone: a NetworkPolicy must outlive its Pod."""
        if leaving is not None:
            self._leaving[leaving.sandbox_id] = leaving
            self._tasks.start(self._delete_leaving(leaving))

    async def remove_leftovers(
        self, grace: float, *, dry_run: bool = False, must_last: bool = False, reached: datetime | None = None
    ) -> list[str]:
        """Delete extra objects that have no Pod and were last applied over `grace` seconds ago; keep labelled claims.

        `must_last` measures that by calls that have listed them unchanged, since the times are other machines'. Else
        `reached` is a time that the API server's clock has reached; without it this process's clock is taken.
        Returns the deleted objects, such as "ConfigMap sandbox-a-config"; with `dry_run`, those it would delete. With a
        live view it lists only after a Pod with extra objects is gone, and every ten minutes (`leftovers`). Failed
        deletes are logged. Raises the errors of a list; without the right to list all kinds it deletes nothing.
        """
        now = asyncio.get_running_loop().time()
        if self._cluster.has_informer and now < self._look_at:
            return []
        self._look_at = now + self._deadlines.leftovers
        try:
            objects = await self._cluster.list_extras()
            old, young = _parted(
                objects,
                self._has_lasted(objects, grace) if must_last else _is_older(grace, reached or expiry.present()),
            )
            without_pod = await self._without_pod({**old, **young})
        except ClusterRefused as error:
            if self._may_list:
                logger.warning("Extra objects of templates can't be listed: %s\n%s", error, error.detail)
            self._may_list = False
            return []
        except ProvisionerError:
            self._look_at = 0.0  # what there was to look for is still there
            raise
        self._may_list = True
        if dry_run or not young.keys().isdisjoint(without_pod):
            self._look_at = 0.0  # list again in the next round
        deleted: list[str] = []
        for sandbox_id in (one for one in without_pod if one in old):
            try:
                if not (dry_run or await self._remove(sandbox_id, old[sandbox_id])):
                    self._look_at = 0.0  # its Pod is not gone yet, or there is a new one
                    continue
            except ProvisionerError as error:  # go on with the other sandboxes
                self._look_at = 0.0
                logger.warning(
                    "sandbox %s: its extra objects can't be deleted: %s\n%s", sandbox_id, error, error.detail
                )
                continue
            deleted += [" ".join(kube.key_of(obj)) for obj in old[sandbox_id]]
        return deleted

    def _has_lasted(self, objects: list[KubeObject], grace: float) -> Callable[[KubeObject], bool]:
        """Note which objects are there, and return whether one was there, unchanged, `grace` seconds ago."""
        now = asyncio.get_running_loop().time()
        self._since = {identity: self._since.get(identity, now) for identity in map(_identity, objects)}
        return lambda obj: now - self._since[_identity(obj)] >= grace

    def _on_exchange(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and old["kind"] == "Pod" and new is None:
            template = self._templates.get(kube.get_annotations(old).get(kube.TEMPLATE_ANNOTATION, ""))
            if template is None or _has_deletable(template):
                self._look_at = 0.0

    async def finish(self) -> None:
        """Wait up to `template_objects_finish` seconds for pending deletions; the reaper deletes the rest."""
        await self._tasks.finish(self._deadlines.template_objects_finish)

    async def _make_room(self, wanted: TemplateObjects, found: dict[Key, KubeObject]) -> bool:
        """Delete another owner's objects if their deletion is pending; return whether there were any.

        Raises SandboxConflict if another owner's objects are in use.
        """
        owner = kube.owner_of(wanted.objects[0])
        others = [obj for obj in found.values() if kube.owner_of(obj) != owner]
        if not others:
            return False
        # This process deleted or rolled back their sandbox, and its Pod is gone.
        leaving = self._leaving.pop(wanted.sandbox_id, None)
        if leaving is not None and any(leaving.is_meant(obj) for obj in others):
            await self._delete_where(leaving.objects, leaving.is_meant)
            return True
        kind = others[0]["kind"]
        raise SandboxConflict(f"The {kind} of sandbox '{wanted.sandbox_id}' belongs to another thread or user")

    async def _create(self, missing: list[KubeObject]) -> bool:
        """Create the objects, the first one alone: of two concurrent owners, one must get all of them."""
        for part in (missing[:1], missing[1:]):
            if part and not await self._cluster.create(part):
                return False
        return True

    async def _touch(self, wanted: TemplateObjects, found: dict[Key, KubeObject]) -> bool:
        """Set this create's `applied-at` on the existing objects; return whether all still exist."""
        marks = {kube.APPLIED_AT_ANNOTATION: wanted.applied_at}
        try:
            for obj in found.values():
                if _mark(obj) != wanted.applied_at:
                    await self._cluster.annotate(obj, marks, manager="extras")
        except ObjectsChanged:
            return False
        return True

    async def _delete_leaving(self, leaving: PendingDeletion) -> None:
        try:
            await self._delete_when_gone(leaving)
        finally:
            if self._leaving.get(leaving.sandbox_id) is leaving:
                del self._leaving[leaving.sandbox_id]

    async def _delete_when_gone(self, leaving: PendingDeletion) -> None:
        """Wait until the Pod is gone, then delete the objects; never raises ProvisionerError."""
        sandbox_id = leaving.sandbox_id
        loop = asyncio.get_running_loop()
        end = loop.time() + self._deadlines.template_objects
        pauses = self._deadlines.template_objects_pauses
        for pause in itertools.chain(pauses, itertools.repeat(pauses[-1])):
            try:
                if await self._cluster.is_gone(leaving.pod):
                    async with self._locks.hold(sandbox_id, self._deadlines.template_objects_lock):
                        await self._delete_where(leaving.objects, leaving.is_meant)
                    return
            except ProvisionerError as error:
                logger.debug("sandbox %s: its extra objects can't be deleted yet: %s", sandbox_id, error)
            if loop.time() > end:
                logger.warning("sandbox %s: its extra objects are left to the reaper", sandbox_id)
                return
            await asyncio.sleep(pause)

    async def _without_pod(self, sandbox_ids: dict[str, list[KubeObject]]) -> list[str]:
        """Return the ids without a Pod, by the live view if it is certain, else by one get."""
        if all(map(self._cluster.is_certain, sandbox_ids)):
            return [one for one in sandbox_ids if self._cluster.seen(one)[0] is None]
        if not sandbox_ids:
            return []
        pods = await self._cluster.find([kube.references_of(one, self._cluster.namespace)[0] for one in sandbox_ids])
        names = {pod["metadata"]["name"] for pod in pods}
        return [one for one in sandbox_ids if kube.pod_name(one) not in names]

    async def _remove(self, sandbox_id: str, objects: list[KubeObject]) -> bool:
        """Delete the objects whose `applied-at` is unchanged since they were listed; False if there is a Pod."""
        async with self._locks.hold(sandbox_id, self._deadlines.template_objects_lock):
            pod, _ = await self._cluster.look(sandbox_id)
            if pod is None:
                await self._delete_where(objects, _untouched(objects))
            return pod is None

    async def _delete_where(self, objects: list[KubeObject], is_meant: Callable[[KubeObject], bool]) -> None:
        """Read the objects and delete those that `is_meant` selects; read again if one changes in between."""
        for _ in range(MAX_ROUNDS):
            meant = [obj for obj in (await self._find(objects, urgent=True)).values() if is_meant(obj)]
            try:
                for obj in meant:
                    if not kube.is_terminating(obj):
                        await self._cluster.delete_exactly(obj, urgent=True)
                        logger.info("%s %s deleted", *kube.key_of(obj))
            except PreconditionFailed:
                continue
            return
        raise KeepsChanging

    async def _find(self, objects: list[KubeObject], *, urgent: bool = False) -> dict[Key, KubeObject]:
        found = await self._cluster.find([kube.reference(obj) for obj in objects], urgent=urgent)
        return {kube.key_of(obj): obj for obj in found}


def _is_older(grace: float, now: datetime) -> Callable[[KubeObject], bool]:
    """Return whether an object was last applied more than `grace` seconds before `now`."""
    return lambda obj: now - expiry.touched_at(obj) > timedelta(seconds=grace)


def _parted(
    objects: list[KubeObject], is_old: Callable[[KubeObject], bool]
) -> tuple[dict[str, list[KubeObject]], dict[str, list[KubeObject]]]:
    """Group extra objects by sandbox id: the old ones, and the others."""
    old: dict[str, list[KubeObject]] = {}
    young: dict[str, list[KubeObject]] = {}
    for obj in objects:
        sandbox_id = _sandbox_id_of(obj)
        if sandbox_id is not None and not kube.is_terminating(obj):
            (old if is_old(obj) else young).setdefault(sandbox_id, []).append(obj)
    return old, young


def _mark(obj: KubeObject) -> str:
    return kube.get_annotations(obj).get(kube.APPLIED_AT_ANNOTATION, "")


def _identity(obj: KubeObject) -> tuple[str, str]:
    """Return uid and `applied-at`, which this service's writes change and a controller's do not."""
    return obj["metadata"]["uid"], _mark(obj)


def _untouched(objects: list[KubeObject]) -> Callable[[KubeObject], bool]:
    """Return a predicate: whether an object is one of these, and no create has used it since."""
    identities = {_identity(obj) for obj in objects}
    return lambda obj: _identity(obj) in identities


def _is_kept(obj: KubeObject) -> bool:
    return kube.get_labels(obj).get(kube.KEEP_LABEL) == "true"


def _has_deletable(template: Template) -> bool:
    """Whether the template has extra objects that are deleted with the sandbox."""
    return not all(_is_kept(extra) for extra in template.extras)


def _references(sandbox_id: str, template: Template, namespace: str) -> list[KubeObject]:
    return [
        {
            "apiVersion": extra["apiVersion"],
            "kind": extra["kind"],
            "metadata": {"name": kube.extra_name(sandbox_id, suffix_of(extra)), "namespace": namespace},
        }
        for extra in template.extras
    ]


def _sandbox_id_of(obj: KubeObject) -> str | None:
    """Return the sandbox id of an extra object, by label and name; None if this service did not create it."""
    sandbox_id = kube.get_labels(obj).get(kube.ID_LABEL, "")
    prefix = kube.extra_name(sandbox_id, "")
    was_created_here = obj["metadata"]["name"].startswith(prefix) and kube.owner_of(obj) != (None, None) and _mark(obj)
    return sandbox_id if was_created_here else None
