"""Batches kubectl calls: one List for many sandboxes, with an error for each."""

from __future__ import annotations

import asyncio
import copy
import functools
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from sandboxes import objects as kube
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import ClusterTimeout, ConnectionFailed, LimitReached, ProvisionerError
from sandboxes.expiry import present, text_of
from sandboxes.kubectl.attribution import is_for_all, refusals, refusals_by_name
from sandboxes.kubectl.batching import Batcher
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.client import Kubectl
    from sandboxes.objects import Identity, KubeObject

logger = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item")

# One List of 50 sandboxes takes 1.2 s (kubectl.md, Cost).
MOST = 50

# A process costs as much as three or four sandboxes in a List (kubectl.md, Cost), so groups of one or two are wasteful.
LEAST = 8

UNBOUNDED = 1_000_000

# To discard up to that many objects, marking and deleting them needs no fewer processes than deleting each alone.
FEW = 2


class BatchedKubectl:
    """Combines concurrent calls into one kubectl call; results and errors are those of separate calls.

    Each kind of work uses at most half of the processes, so that none starves the others. `max_processes`: limit of
    `kubectl`. `max_waiting`: queue limit per kind; the queue of `kubectl` itself should be unbounded, since the items
    of a batch have waited already.
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
        self._discards = batches(self._discard_group, workers=quarter, max_waiting=UNBOUNDED)
        self._gets = batches(self._get_group, workers=quarter)
        self._urgent_gets = batches(self._urgent_get_group, workers=quarter, least=1, max_waiting=UNBOUNDED)
        self._annotations = batches(self._annotate_group, workers=quarter)
        self._lists = batches(self._list_group, workers=1, most=UNBOUNDED, least=1)
        # Sent at the start of each batch, with the kind of work and the number of items.
        self.began: Signal[[str, int]] = Signal()
        for work, groups in self._by_work().items():
            groups.began.connect(functools.partial(self.began.send, work))

    def queues(self) -> dict[str, int]:
        """Return the number of waiting items by kind of work."""
        return {work: groups.waiting for work, groups in self._by_work().items()}

    async def apply(self, objects: list[KubeObject]) -> list[KubeObject]:
        """See Kubectl.apply; an error in one caller's objects does not affect others."""
        return await self._applies.do(objects)

    async def annotate(self, obj: KubeObject, annotations: dict[str, str], *, manager: str) -> KubeObject:
        """See Kubectl.annotate."""
        return await self._annotations.do((manager, obj, annotations))

    async def get(self, references: list[KubeObject], *, urgent: bool = False) -> list[KubeObject]:
        """See Kubectl.get."""
        return await (self._urgent_gets if urgent else self._gets).do(references)

    async def list_sandboxes(self, namespace: str) -> list[KubeObject]:
        """See Kubectl.list_sandboxes; waiting callers share one list, which starts after their calls."""
        return await self._lists.do(namespace)

    async def delete(self, references: list[KubeObject]) -> None:
        """See Kubectl.delete."""
        await self._deletes.do(references)

    async def discard(self, objects: list[KubeObject]) -> None:
        """Delete objects whose resourceVersion is unchanged; raises PreconditionFailed if one has been modified.

        Many are marked first, each if it is unchanged, and deleted then. Whoever applies or annotates a marked object
        sees the mark in the answer, and waits until the object is gone; see objects.is_terminating.
        """
        await self._discards.do(objects)

    async def close(self) -> None:
        """Cancel the running calls."""
        await asyncio.gather(*(one.close() for one in self._by_work().values()))

    def _by_work(self) -> dict[str, Batcher[Any, Any]]:
        return {
            "apply": self._applies,
            "annotate": self._annotations,
            "delete": self._deletes,
            "discard": self._discards,
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
        """Recover from a failed batch: find the applied objects, and tell the others apart by kubectl's messages.

        kubectl prints no object if any failed, although the others were applied (kubectl.md 2). An item whose error
        can't be told from the messages is retried alone, until `end`; if a limit is the same for all, one is. If the
        cluster could not be reached, all items get that error; their retries form a new batch.
        """
        if len(group) == 1 or _affects_all(error):
            return [copy.copy(error) for _ in group]
        every = [obj for objects in group for obj in objects]
        # An object that is too many is not there, and each missing one costs a read another process.
        surplus = {one for one, own in refusals_by_name(every, error.each).items() if isinstance(own, LimitReached)}
        uncertain = [obj for obj in every if kube.identity_of(obj) not in surplus]
        try:
            found = {kube.identity_of(obj): obj for obj in (await self._kubectl.get(uncertain) if uncertain else [])}
        except ProvisionerError as failure:
            if (type(failure), failure.public) == (type(error), error.public):  # such as refused credentials
                return [copy.copy(error) for _ in group]
            # Possibly because of one object.
            logger.debug("the objects of a failed batch can't be read: %s", failure)
            found = {}
        there = {one: found[one] for obj in every if _is_applied(obj, found.get(one := kube.identity_of(obj)))}
        refused = refusals([obj for obj in every if kube.identity_of(obj) not in there], error.each, of_all=not there)
        outcomes: list[list[KubeObject] | ProvisionerError | None] = []
        for objects in group:
            identities = [kube.identity_of(obj) for obj in objects]
            own = copy.copy(next((refused[one] for one in identities if one in refused), None))
            there_of_it = [found[one] for one in identities if one in found]
            if own is not None and _are_all(objects, there_of_it):
                own.left = there_of_it
            outcomes.append(own or ([there[one] for one in identities] if there.keys() >= {*identities} else None))
        untold = [number for number, outcome in enumerate(outcomes) if outcome is None]
        apply = functools.partial(self._apply_missing, there)
        if len(untold) > 1 and is_for_all(error):
            first = await _attempt(apply, group[untold[0]], min(end, asyncio.get_running_loop().time() + 1.0))
            if isinstance(first, LimitReached):
                return [copy.copy(first) if outcome is None else outcome for outcome in outcomes]
        alone = await asyncio.gather(*(_attempt(apply, group[number], end) for number in untold))
        for number, result in zip(untold, alone, strict=True):
            outcomes[number] = result
        return [outcome for outcome in outcomes if outcome is not None]

    async def _apply_missing(self, there: dict[Identity, KubeObject], objects: list[KubeObject]) -> list[KubeObject]:
        """Apply the objects that are not `there`, one by one: after a refused Pod, its Service is not made."""
        return [there.get(kube.identity_of(obj)) or (await self._kubectl.apply([obj]))[0] for obj in objects]

    async def _annotate_group(
        self, group: list[tuple[str, KubeObject, dict[str, str]]]
    ) -> list[KubeObject | ProvisionerError]:
        managers = {manager for manager, _, _ in group}
        if len(managers) > 1:
            # Each field manager needs a separate call (kubectl.md 20).
            parts = {one: [item for item in group if item[0] == one] for one in managers}
            results = dict(zip(parts, await asyncio.gather(*map(self._annotate_group, parts.values())), strict=True))
            return [results[manager].pop(0) for manager, _, _ in group]
        manager = managers.pop()
        changes = [(obj, annotations) for _, obj, annotations in group]
        try:
            return list(await self._kubectl.annotate_all(changes, manager=manager))
        except ProvisionerError as error:
            if len(group) == 1 or _affects_all(error):
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
            if len(group) == 1 or _affects_all(error):
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
            if len(group) == 1 or _affects_all(error):
                return [error for _ in group]
            alone = self._kubectl.delete
            return await asyncio.gather(*(_attempt(alone, references) for references in group))
        return [None for _ in group]

    async def _discard_group(self, group: list[list[KubeObject]]) -> list[ProvisionerError | None]:
        every = [obj for objects in group for obj in objects]
        if len(group) > 1 and len(every) > FEW:
            mark = {kube.REFUSED_ANNOTATION: text_of(present())}
            try:
                # No process frees the names before that, so the deletes meet no object made since.
                async with asyncio.timeout(self._deadlines.marked):
                    every = await self._kubectl.annotate_all(
                        [(obj, mark) for obj in every], manager="rollback", unchanged=True
                    )
                    await self._kubectl.delete([kube.reference(obj) for obj in every], urgent=True)
            except TimeoutError:
                return [ClusterTimeout(detail="not deleted in the time after its mark") for _ in group]
            except ProvisionerError as error:  # possibly because of one object: delete each alone
                if _affects_all(error):
                    return [copy.copy(error) for _ in group]
                logger.debug("the objects of failed creates can't be deleted together: %s", error)
            else:
                return [None for _ in group]
            # In the versions that the marks have made, if all are marked: a mark is no reason to begin anew.
            rest = iter(every)
            group = [[next(rest) for _ in objects] for objects in group]
        return await asyncio.gather(*(_attempt(self._discard_alone, objects) for objects in group))

    async def _discard_alone(self, objects: list[KubeObject]) -> None:
        for obj in objects:
            await self._kubectl.delete_exactly(obj, urgent=True)


def _affects_all(error: ProvisionerError) -> bool:
    """Whether the error affects all items: the connection failed. Even a 5xx may come from one object's webhook."""
    return isinstance(error, (ConnectionFailed, ClusterTimeout))


def _are_all(objects: list[KubeObject], found: list[KubeObject]) -> bool:
    """Whether no other object than those found can be part of the sandbox: what its Pod needs was applied together."""
    if [obj["kind"] for obj in objects] == ["Pod"]:
        return all(map(kube.is_behind_gateway, (*objects, *found)))
    return [obj["kind"] for obj in objects] == ["Pod", "Service"]


def _is_applied(sent: KubeObject, found: KubeObject | None) -> bool:
    """Whether `found` is the result of this apply, by its unique `applied-at`."""
    if found is None or kube.is_terminating(found):
        return False
    mark = kube.get_annotations(sent).get(kube.APPLIED_AT_ANNOTATION)
    return mark is not None and kube.get_annotations(found).get(kube.APPLIED_AT_ANNOTATION) == mark


async def _attempt(
    call: Callable[[list[Item]], Awaitable[T]], items: list[Item], end: float | None = None
) -> T | ProvisionerError:
    """Call, and return the result or the error that it raises; ClusterTimeout at `end` (loop time)."""
    try:
        async with asyncio.timeout_at(end):
            return await call(items)
    except TimeoutError:
        return ClusterTimeout(detail="tried alone after its group failed")
    except ProvisionerError as error:
        return error


def _split(stored: list[KubeObject], group: list[list[KubeObject]]) -> list[list[KubeObject] | ProvisionerError]:
    """Split the stored objects, which are in the order of `group`, among its items."""
    rest = iter(stored)
    return [[next(rest) for _ in objects] for objects in group]
