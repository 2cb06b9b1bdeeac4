"""Applies, gets and deletes in batches: one List for many sandboxes, one error for each."""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from sandboxes import objects as kube
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import ClusterTimeout, ConnectionFailed, ProvisionerError
from sandboxes.kubectl.batching import Batcher
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.client import Kubectl
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")

# One List of 50 sandboxes takes 1.2 s (kubectl.md, Cost).
MOST = 50

# A process costs as much as three or four sandboxes in a List (kubectl.md, Cost): groups of one or two waste it.
LEAST = 8

UNBOUNDED = 1_000_000


class BatchedKubectl:
    """Does what arrives together in one call of kubectl; whoever asks notices nothing but the speed.

    No kind of work takes more than half of the processes, so that none starves another. `max_processes`: those that
    `kubectl` may use. `max_waiting`: items of each kind that may wait; the line of `kubectl` itself should have no
    bound, since what is in a batch has waited already.
    """

    def __init__(
        self, kubectl: Kubectl, *, max_processes: int, max_waiting: int, deadlines: Deadlines = DEADLINES
    ) -> None:
        self._kubectl = kubectl
        self._deadlines = deadlines
        half, quarter = max(1, max_processes // 2), max(1, max_processes // 4)
        batches = functools.partial(Batcher, most=MOST, least=LEAST, max_waiting=max_waiting, deadlines=deadlines)
        self._applies = batches(self._apply_group, workers=half)
        self._deletes = batches(self._delete_group, workers=half)
        self._gets = batches(self._get_group, workers=quarter)
        self._urgent_gets = batches(self._urgent_get_group, workers=quarter, least=1, max_waiting=UNBOUNDED)
        self._annotations = batches(self._annotate_group, workers=quarter)
        self._lists = batches(self._list_group, workers=1, most=UNBOUNDED, least=1)
        # For each batch that begins: the kind of work, and how many items it has.
        self.began: Signal[[str, int]] = Signal()
        for work, groups in self._by_work().items():
            groups.began.connect(functools.partial(self.began.send, work))

    def queues(self) -> dict[str, int]:
        """Return how much waits now, by kind of work."""
        return {work: groups.waiting for work, groups in self._by_work().items()}

    async def apply(self, objects: list[KubeObject]) -> list[KubeObject]:
        """See Kubectl.apply; what fails for one caller's objects fails for no other's."""
        return await self._applies.do(objects)

    async def annotate(self, obj: KubeObject, annotations: dict[str, str], *, manager: str) -> KubeObject:
        """See Kubectl.annotate."""
        return await self._annotations.do((manager, obj, annotations))

    async def get(self, references: list[KubeObject], *, urgent: bool = False) -> list[KubeObject]:
        """See Kubectl.get."""
        return await (self._urgent_gets if urgent else self._gets).do(references)

    async def list_sandboxes(self, namespace: str) -> list[KubeObject]:
        """See Kubectl.list_sandboxes; all that wait are given the same list, which began after they came."""
        return await self._lists.do(namespace)

    async def delete(self, references: list[KubeObject]) -> None:
        """See Kubectl.delete."""
        await self._deletes.do(references)

    async def close(self) -> None:
        """End the calls that still run, nobody waiting for them any more."""
        await asyncio.gather(*(one.close() for one in self._by_work().values()))

    def _by_work(self) -> dict[str, Batcher[Any, Any]]:
        return {
            "apply": self._applies,
            "annotate": self._annotations,
            "delete": self._deletes,
            "get": self._gets,
            "urgent_get": self._urgent_gets,
            "list": self._lists,
        }

    async def _apply_group(self, group: list[list[KubeObject]]) -> list[list[KubeObject] | ProvisionerError]:
        end = asyncio.get_running_loop().time() + self._deadlines.batch_limit - self._deadlines.batch_spare
        try:
            stored = await self._kubectl.apply([obj for objects in group for obj in objects])
        except ProvisionerError as error:
            return await self._apply_apart(group, error, end)
        return _split(stored, group)

    async def _apply_apart(
        self, group: list[list[KubeObject]], error: ProvisionerError, end: float
    ) -> list[list[KubeObject] | ProvisionerError]:
        """After a group failed: find what was applied all the same, and try the others once each alone, until `end`.

        kubectl prints nothing if any object failed, though the others were applied (kubectl.md 2). Where the cluster
        was not to be reached, all get that error: whoever tries again does so in a new group.
        """
        if len(group) == 1 or _is_everybodys(error):
            return [error for _ in group]
        try:
            found = {
                kube.identity_of(obj): obj
                for obj in await self._kubectl.get([obj for objects in group for obj in objects])
            }
        except ProvisionerError as failure:  # of one of them, which is not the others': all are tried alone
            logger.debug("what a group has made can't be read: %s", failure)
            found = {}
        results = []
        for objects in group:
            there = [
                found[kube.identity_of(obj)] for obj in objects if _is_applied(obj, found.get(kube.identity_of(obj)))
            ]
            results.append(
                _result(there) if len(there) == len(objects) else _attempt(self._kubectl.apply, objects, end)
            )
        return await asyncio.gather(*results)

    async def _annotate_group(
        self, group: list[tuple[str, KubeObject, dict[str, str]]]
    ) -> list[KubeObject | ProvisionerError]:
        managers = {manager for manager, _, _ in group}
        if len(managers) > 1:
            # Annotations that are written on their own have a field manager of their own (kubectl.md 20): a call each.
            parts = {one: [item for item in group if item[0] == one] for one in managers}
            results = dict(zip(parts, await asyncio.gather(*map(self._annotate_group, parts.values())), strict=True))
            return [results[manager].pop(0) for manager, _, _ in group]
        manager = managers.pop()
        changes = [(obj, annotations) for _, obj, annotations in group]
        try:
            return list(await self._kubectl.annotate_all(changes, manager=manager))
        except ProvisionerError as error:
            if len(group) == 1 or _is_everybodys(error):
                return [error for _ in group]
        alone = functools.partial(self._kubectl.annotate_all, manager=manager)
        results_alone = await asyncio.gather(*(_attempt(alone, [change]) for change in changes))
        return [one if isinstance(one, ProvisionerError) else one[0] for one in results_alone]

    async def _get_group(
        self, group: list[list[KubeObject]], *, urgent: bool = False
    ) -> list[list[KubeObject] | ProvisionerError]:
        references = {kube.identity_of(reference): reference for references in group for reference in references}
        try:
            stored = await self._kubectl.get(list(references.values()), urgent=urgent)
        except ProvisionerError as error:
            if len(group) == 1 or _is_everybodys(error):
                return [error for _ in group]
            alone = functools.partial(self._kubectl.get, urgent=urgent)
            return await asyncio.gather(*(_attempt(alone, references) for references in group))
        found = {kube.identity_of(obj): obj for obj in stored}
        return [
            [found[kube.identity_of(one)] for one in references if kube.identity_of(one) in found]
            for references in group
        ]

    async def _urgent_get_group(self, group: list[list[KubeObject]]) -> list[list[KubeObject] | ProvisionerError]:
        return await self._get_group(group, urgent=True)

    async def _list_group(self, group: list[str]) -> list[list[KubeObject] | ProvisionerError]:
        lists = {namespace: await self._kubectl.list_sandboxes(namespace) for namespace in set(group)}
        return [lists[namespace] for namespace in group]

    async def _delete_group(self, group: list[list[KubeObject]]) -> list[ProvisionerError | None]:
        try:
            await self._kubectl.delete([reference for references in group for reference in references])
        except ProvisionerError as error:
            if len(group) == 1 or _is_everybodys(error):
                return [error for _ in group]
            alone = self._kubectl.delete
            return await asyncio.gather(*(_attempt(alone, references) for references in group))
        return [None for _ in group]


def _is_everybodys(error: ProvisionerError) -> bool:
    """Whether the error is the connection's: of any one object, even a 5xx can be its own webhook's."""
    return isinstance(error, (ConnectionFailed, ClusterTimeout))


def _is_applied(sent: KubeObject, found: KubeObject | None) -> bool:
    """Whether `found` is what this very apply left: no other has the same `applied-at`."""
    if found is None or kube.is_terminating(found):
        return False
    mark = kube.get_annotations(sent).get(kube.APPLIED_AT_ANNOTATION)
    return mark is not None and kube.get_annotations(found).get(kube.APPLIED_AT_ANNOTATION) == mark


async def _attempt(
    call: Callable[[list[Item]], Awaitable[T]], items: list[Item], end: float | None = None
) -> T | ProvisionerError:
    """Return what the call returns, or the error that it raises; ClusterTimeout at `end` (loop time)."""
    try:
        async with asyncio.timeout_at(end):
            return await call(items)
    except TimeoutError:
        return ClusterTimeout(detail="tried alone after its group failed")
    except ProvisionerError as error:
        return error


async def _result(objects: list[KubeObject]) -> list[KubeObject]:
    return objects


def _split(stored: list[KubeObject], group: list[list[KubeObject]]) -> list[list[KubeObject] | ProvisionerError]:
    """Part the stored objects, in the order in which they were sent, among those who sent them."""
    rest = iter(stored)
    return [[next(rest) for _ in objects] for objects in group]
