"""What a template brings besides Pod and Service: made before the Pod, deleted after it, and never another owner's.

Making is a create, so that of two owners the API server lets one in. Whoever uses what is there touches it first (a
new `applied-at`): whoever wants to delete it does so only as long as nobody has.
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

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import Key, KubeObject
    from sandboxes.service.locks import Locks
    from sandboxes.spec.templates import Template

logger = logging.getLogger(__name__)

# Each round ends because somebody else changed the objects; so many in a row is no accident.
MAX_ROUNDS = 8


@dataclass
class TemplateObjects:
    """The extra objects of one create, and the uids of those that were there before it or are somebody else's."""

    sandbox_id: str
    objects: list[KubeObject]
    before: set[str] = field(default_factory=set)

    @property
    def applied_at(self) -> str:
        """The mark of this create; no other has the same."""
        return _mark(self.objects[0])

    def has_made(self, obj: KubeObject) -> bool:
        """Whether this create made the object, and nobody has touched it since."""
        return obj["metadata"]["uid"] not in self.before and _mark(obj) == self.applied_at


@dataclass(frozen=True)
class PendingDeletion:
    """What is to go once this very Pod is gone: those of the objects that are still meant then."""

    sandbox_id: str
    pod: KubeObject
    objects: list[KubeObject]
    is_meant: Callable[[KubeObject], bool]


class Extras:
    """Makes and deletes the extra objects of sandboxes. One task at a time works on one id: `locks`."""

    def __init__(self, cluster: Cluster, templates: Mapping[str, Template], locks: Locks) -> None:
        self._cluster = cluster
        self._templates = templates
        self._locks = locks
        self._leaving: dict[str, PendingDeletion] = {}
        self._deadlines = cluster.deadlines
        self._tasks = BackgroundTasks()
        self._may_list = True
        # When (loop time) to look next for what was left behind.
        self._look_at = 0.0
        cluster.exchanged.connect(self._on_exchange)

    async def make(self, wanted: TemplateObjects, wait_until_gone: Callable[[KubeObject], Awaitable[None]]) -> None:
        """Have all the objects there, as the owner's, and touched. The caller holds the lock and has seen no Pod.

        `wait_until_gone` is awaited for an object that is being deleted. Raises SandboxConflict if one is another
        owner's, ClusterUnavailable if somebody changes them all the time, and what a create raises.
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
        """Delete what a failed create made and nobody has touched since, kept claims included.

        If the create's Pod is still on its way out, it is done when that is gone. The caller holds the lock.
        """
        if not wanted.objects:
            return
        pod, _ = await self._cluster.look(wanted.sandbox_id, urgent=True)
        if pod is None or not kube.is_terminating(pod):
            await self._delete_where(wanted.objects, wanted.has_made)
        else:
            self.delete_later(PendingDeletion(wanted.sandbox_id, pod, wanted.objects, wanted.has_made))

    async def leaving(self, sandbox_id: str) -> PendingDeletion | None:
        """Return what must go after the Pod of a sandbox that is about to be deleted, None if there is nothing.

        The caller holds the lock. It costs nothing where no template brings anything that goes.
        """
        if not any(_going(template) for template in self._templates.values()):
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
        if pod is None or template is None or not _going(template):
            return None
        found = await self._find(_references(sandbox_id, template, pod["metadata"]["namespace"]))
        objects = [obj for obj in found.values() if kube.owner_of(obj) == kube.owner_of(pod) and not _is_kept(obj)]
        return PendingDeletion(sandbox_id, pod, objects, _untouched(objects)) if objects else None

    def delete_later(self, leaving: PendingDeletion | None) -> None:
        """Delete them when the Pod is gone: a NetworkPolicy must outlive it."""
        if leaving is not None:
            self._leaving[leaving.sandbox_id] = leaving
            self._tasks.start(self._delete_leaving(leaving))

    async def remove_leftovers(self, grace: float, *, dry_run: bool = False) -> list[str]:
        """Delete what templates brought for Pods that do not exist, and was touched over `grace` seconds ago.

        With a live view it looks only after Pods that had such objects are gone, and every ten minutes. Returns what
        was deleted, or with `dry_run` would be, such as "ConfigMap sandbox-a-config". What says that it stays does, and
        what can't be deleted is logged. Raises what a list raises; without the right to list all these kinds nothing is
        deleted.
        """
        now = asyncio.get_running_loop().time()
        if self._cluster.has_informer and now < self._look_at:
            return []
        self._look_at = now + self._deadlines.leftovers
        try:
            old, young = _by_age(await self._cluster.list_extras(), timedelta(seconds=grace))
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
            self._look_at = 0.0  # the next round has something to do
        deleted: list[str] = []
        for sandbox_id in (one for one in without_pod if one in old):
            try:
                if not (dry_run or await self._remove(sandbox_id, old[sandbox_id])):
                    self._look_at = 0.0  # its Pod is not gone yet, or there is a new one
                    continue
            except ProvisionerError as error:  # the others' turn comes all the same
                self._look_at = 0.0
                logger.warning(
                    "sandbox %s: its extra objects can't be deleted: %s\n%s", sandbox_id, error, error.detail
                )
                continue
            deleted += [" ".join(kube.key_of(obj)) for obj in old[sandbox_id]]
        return deleted

    def _on_exchange(self, old: KubeObject | None, new: KubeObject | None) -> None:
        if old is not None and old["kind"] == "Pod" and new is None:
            template = self._templates.get(kube.get_annotations(old).get(kube.TEMPLATE_ANNOTATION, ""))
            if template is None or _going(template):
                self._look_at = 0.0

    async def finish(self) -> None:
        """Give what waits for Pods to go a while to end; the rest is the reaper's."""
        await self._tasks.finish(self._deadlines.template_objects_finish)

    async def _make_room(self, wanted: TemplateObjects, found: dict[Key, KubeObject]) -> bool:
        """Raise SandboxConflict for what is another owner's, unless it is only waiting to go; whether it was."""
        owner = kube.owner_of(wanted.objects[0])
        others = [obj for obj in found.values() if kube.owner_of(obj) != owner]
        if not others:
            return False
        # Its sandbox was deleted, or undone, here, and no Pod was seen: nobody needs it any more.
        leaving = self._leaving.pop(wanted.sandbox_id, None)
        if leaving is not None and any(leaving.is_meant(obj) for obj in others):
            await self._delete_where(leaving.objects, leaving.is_meant)
            return True
        kind = others[0]["kind"]
        raise SandboxConflict(f"The {kind} of sandbox '{wanted.sandbox_id}' belongs to another thread or user")

    async def _create(self, missing: list[KubeObject]) -> bool:
        """Make the objects, the first alone: of two owners who make several at once, one is to have all of them."""
        for part in (missing[:1], missing[1:]):
            if part and not await self._cluster.create(part):
                return False
        return True

    async def _touch(self, wanted: TemplateObjects, found: dict[Key, KubeObject]) -> bool:
        """Put this create's mark on what is there; whether it is all still there."""
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
            await self._when_gone(leaving)
        finally:
            if self._leaving.get(leaving.sandbox_id) is leaving:
                del self._leaving[leaving.sandbox_id]

    async def _when_gone(self, leaving: PendingDeletion) -> None:
        """Wait until the Pod is gone, then delete what is meant; never raises our errors."""
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
        """Return those of which there is no Pod, as far as the view or one get tells."""
        if all(map(self._cluster.is_certain, sandbox_ids)):
            return [one for one in sandbox_ids if self._cluster.seen(one)[0] is None]
        if not sandbox_ids:
            return []
        pods = await self._cluster.find([kube.references_of(one, self._cluster.namespace)[0] for one in sandbox_ids])
        names = {pod["metadata"]["name"] for pod in pods}
        return [one for one in sandbox_ids if kube.pod_name(one) not in names]

    async def _remove(self, sandbox_id: str, objects: list[KubeObject]) -> bool:
        """Delete what nobody has touched since it was listed, if there is no Pod; whether there was none."""
        async with self._locks.hold(sandbox_id, self._deadlines.template_objects_lock):
            pod, _ = await self._cluster.look(sandbox_id)
            if pod is None:
                await self._delete_where(objects, _untouched(objects))
            return pod is None

    async def _delete_where(self, objects: list[KubeObject], is_meant: Callable[[KubeObject], bool]) -> None:
        """Delete those of the objects that are meant as they are now; read again when one was changed meanwhile."""
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


def _by_age(
    objects: list[KubeObject], grace: timedelta
) -> tuple[dict[str, list[KubeObject]], dict[str, list[KubeObject]]]:
    """Return by sandbox the extra objects that were touched longer than `grace` ago, and the others."""
    old: dict[str, list[KubeObject]] = {}
    young: dict[str, list[KubeObject]] = {}
    for obj in objects:
        sandbox_id = _sandbox_id_of(obj)
        if sandbox_id is not None and not kube.is_terminating(obj):
            is_old = expiry.present() - expiry.touched_at(obj) > grace
            (old if is_old else young).setdefault(sandbox_id, []).append(obj)
    return old, young


def _mark(obj: KubeObject) -> str:
    return kube.get_annotations(obj).get(kube.APPLIED_AT_ANNOTATION, "")


def _identity(obj: KubeObject) -> tuple[str, str]:
    """Return what changes when one of us touches the object, and not when a controller does."""
    return obj["metadata"]["uid"], _mark(obj)


def _untouched(objects: list[KubeObject]) -> Callable[[KubeObject], bool]:
    """Return what tells whether an object is one of these, and no create has touched it since they were read."""
    identities = {_identity(obj) for obj in objects}
    return lambda obj: _identity(obj) in identities


def _is_kept(obj: KubeObject) -> bool:
    return kube.get_labels(obj).get(kube.KEEP_LABEL) == "true"


def _going(template: Template) -> bool:
    """Whether the template brings anything that goes with its sandbox."""
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
    """Return whose extra object it is by label and name; None if it was not made for a template by this service."""
    sandbox_id = kube.get_labels(obj).get(kube.ID_LABEL, "")
    prefix = kube.extra_name(sandbox_id, "")
    is_ours = obj["metadata"]["name"].startswith(prefix) and kube.owner_of(obj) != (None, None) and _mark(obj)
    return sandbox_id if is_ours else None
