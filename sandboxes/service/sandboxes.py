"""The operations behind the routes (create, get, list, delete, …), each within a deadline.

All lasting state is in the cluster, so any number of processes can serve it concurrently.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple, get_args

from sandboxes import objects as kube
from sandboxes.access.accesses import Accesses
from sandboxes.deadlines import within
from sandboxes.errors import (
    ClusterRefused,
    InvalidField,
    KeepsChanging,
    ObjectsChanged,
    ProvisionerError,
    SandboxNotFound,
    Unprocessable,
)
from sandboxes.models.responses import FORCED, SandboxList, Status, TemplateResponse, with_warning
from sandboxes.service import keepalive, urls
from sandboxes.service.attempt import mark_of
from sandboxes.service.create import Creation
from sandboxes.service.diagnostics import diagnose
from sandboxes.service.events import EventBroker
from sandboxes.service.keepalive import Uses
from sandboxes.service.listing import ListQuery, select
from sandboxes.service.locks import Bulkhead, Locks
from sandboxes.service.lost import absent_object, delete_by_force
from sandboxes.service.readiness import ReadinessWaiter, waited
from sandboxes.service.reaper import Reaper
from sandboxes.service.scheduling import finds_no_node
from sandboxes.service.withdrawals import Withdrawals
from sandboxes.spec.options import validate
from sandboxes.status.response import Answers, answer_for, answers_for, reconciliation_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from datetime import datetime

    from sandboxes.access.tokens import Keys
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.models.clusters import DoubledSandbox
    from sandboxes.models.requests import CreateRequest
    from sandboxes.models.responses import Diagnostics, Reconciliation, SandboxResponse, WaitedResponse
    from sandboxes.models.urls import SandboxUrl
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

logger = logging.getLogger(__name__)

# A diagnosis starts up to four kubectl processes, of a pool that all requests share.
DIAGNOSES_AT_ONCE = 2
DIAGNOSES_WAITING = 16

# A round is repeated if another writer changed the Pod; after this many, give up.
MAX_ROUNDS = 5


class MadeSandbox(NamedTuple):
    """A sandbox that a create returns. `mark`: of the last create that has applied its Pod; `is_new`: this one.

    `is_confirmed`: another create has returned it.
    """

    answer: SandboxResponse
    uid: str
    mark: str | None
    is_new: bool
    is_confirmed: bool


class SandboxService:
    """The operations on one cluster's sandboxes. Raises only errors of `errors.py`. `keys`: see Accesses."""

    def __init__(
        self, cluster: Cluster, templates: Mapping[str, Template], settings: Settings, keys: Keys | None = None
    ) -> None:
        self.cluster = cluster
        self.loaded_templates = templates
        self._settings = settings
        self.accesses = Accesses(settings, keys)
        self._answers = Answers(self.accesses)
        cluster.changed.connect(self._answers.forget)
        self._waits = ReadinessWaiter(cluster, self.accesses)
        self.feed = EventBroker(cluster, self._answers)
        self._locks = Locks()
        self._uses = Uses(cluster)
        self._diagnosing = Bulkhead(DIAGNOSES_AT_ONCE, DIAGNOSES_WAITING)
        self._creation = Creation(cluster, templates, self.accesses, self._locks, self._uses)
        self.made = self._creation.made
        self.room = self._creation.room
        self.extras = self._creation.extras
        self.protection = self._creation.protection
        self.withdrawals = Withdrawals(cluster, self._locks, self.extras)
        self.reaper = Reaper(cluster, settings, self._locks, self._uses, self.extras)

    async def create(self, request: CreateRequest) -> SandboxResponse:
        """Create the sandbox or complete it, and return it. Idempotent: the same request returns the same sandbox.

        All or nothing: if it raises, the objects it made are deleted, at once or in the background, and existing ones
        are unchanged, except for an ended Pod, which is deleted to be replaced.
        Raises BadRequest, FieldNotAllowed, Unprocessable, SandboxConflict, LimitReached, ClusterRefused,
        ClusterUnavailable or ClusterTimeout.
        """
        return (await self._make(request, None)).answer

    async def make(self, request: CreateRequest, marks: Mapping[str, str], seconds: float) -> MadeSandbox:
        """Create the sandbox as `create` does, with these annotations of a new Pod, so that it may be withdrawn.

        After `seconds` it raises ClusterTimeout, once what it made is deleted, for which it takes up to `undo`.
        """
        return await self._make(request, marks, seconds)

    async def _make(
        self, request: CreateRequest, marks: Mapping[str, str] | None, seconds: float | None = None
    ) -> MadeSandbox:
        sandbox = validate(request, self.loaded_templates, self._settings)
        most = self.cluster.deadlines.create if seconds is None else seconds
        try:
            async with self._locks.hold(sandbox.sandbox_id, most) as seconds_left:
                made = await self._creation.create(sandbox, seconds_left, marks)
        except ClusterRefused as error:
            raise _blame(error, request) from error
        answer = self._answer(made.pod, made.service, sandbox.sandbox_id)
        if made.forced:
            answer = with_warning(answer, FORCED)
        is_confirmed = not made.is_new and kube.CONFIRMED_ANNOTATION in kube.get_annotations(made.pod)
        return MadeSandbox(answer, made.pod["metadata"]["uid"], mark_of(made.pod), made.is_new, is_confirmed)

    async def confirm(self, sandbox_id: str, uid: str, mark: str | None) -> bool:
        """Mark the Pod with this uid as returned to a caller; see Withdrawals.confirm."""
        is_there = await self.withdrawals.confirm(sandbox_id, uid, mark)
        if is_there:
            self._creation.forget_failed(sandbox_id)
        return is_there

    def explained(self, error: ProvisionerError) -> ProvisionerError:
        """Return the error, or one that names the cause of a timeout; see Kubectl.explained."""
        return self.cluster.kubectl.explained(error)

    def templates(self) -> list[TemplateResponse]:
        """Return the public description of each template, sorted by name."""
        return [
            TemplateResponse(
                name=name,
                description=template.description,
                image=self._settings.sandbox_image,
                objects=sorted({extra["kind"] for extra in template.extras}),
            )
            for name, template in sorted(self.loaded_templates.items())
        ]

    async def clock(self) -> datetime | None:
        """Return a time that the API server's clock has reached; None if it can't be measured."""
        return await self.cluster.measure_clock(self._absent_object())

    def _absent_object(self) -> KubeObject:
        return absent_object(self.loaded_templates, self._settings)

    async def get(self, sandbox_id: str) -> SandboxResponse:
        """Return the sandbox; raises SandboxNotFound if it does not exist or its Pod is terminating."""
        answer = self._answers.of(*self.cluster.seen(sandbox_id))
        if answer is not None and not self._creation.is_refused(sandbox_id):
            return answer
        async with within(self.cluster.deadlines.read):
            pod, service = await self.cluster.look(sandbox_id)
        return self._answer(pod, service, sandbox_id)

    async def reconcile(self, sandbox_id: str) -> Reconciliation:
        """Return which Pod the sandbox has, or that it has none; also a Pod that get() does not show.

        Always asks the cluster: callers decide by it whether to make a sandbox anew. The live view may be behind, and
        hides a Pod whose delete was accepted, although it is there until its containers have ended.
        """
        async with within(self.cluster.deadlines.read):
            pod, service = await self.cluster.look(sandbox_id)
        return reconciliation_for(sandbox_id, pod, service, self.accesses)

    async def diagnostics(self, sandbox_id: str) -> Diagnostics:
        """Return the diagnosis of the sandbox; see diagnose. Raises SandboxNotFound, or Busy if too many wait."""
        if self._creation.is_refused(sandbox_id):
            raise SandboxNotFound(sandbox_id)
        async with within(self.cluster.deadlines.read), self._diagnosing.one():
            refusal = self._creation.refusal_of(sandbox_id)
            return await diagnose(self.cluster, sandbox_id, self.accesses, refusal=refusal)

    async def finds_no_node(self, sandbox_id: str, uid: str, seconds: float) -> bool:
        """Whether the scheduler goes on saying that no node can take the new Pod; see scheduling.finds_no_node.

        Takes up to `seconds`. False if that is too short, or if the cluster can't be asked.
        """
        moment = min(self.cluster.deadlines.unscheduled, self._settings.fail_fast_after)
        if seconds < moment:
            return False
        most = min(2 * moment, seconds)
        try:
            async with within(most):
                return await finds_no_node(self.cluster, sandbox_id, uid, moment=moment, most=most)
        except ProvisionerError as error:
            logger.debug("sandbox %s: whether it finds a node is not known: %s", sandbox_id, error)
            return False

    async def wait(self, answer: SandboxResponse, until: float, *, is_made: bool = False) -> WaitedResponse:
        """Return the sandbox once it is usable or can't become usable, or at `until` (loop time).

        `is_made`: this request has created it, so its last known state is returned if the cluster can't be read.
        Raises SandboxNotFound if it is deleted; see ReadinessWaiter.until_usable.
        """
        try:
            return await self._waits.until_usable(answer, until)
        except SandboxNotFound:
            raise
        except ProvisionerError:
            if is_made:
                return waited(answer)
            raise

    async def list_matching(self, query: ListQuery | None = None) -> SandboxList:
        """Return the sandboxes that match the query, or one page of them."""
        if query is None:
            sandboxes = await self.list_all()
            return SandboxList(sandboxes=sandboxes, count=len(sandboxes))
        return select(await self.list_all(query if query.label else None), query)

    async def list_all(self, query: ListQuery | None = None) -> list[SandboxResponse]:
        """Return all sandboxes that get() would return, sorted by id; of `query`, only the labels are applied."""
        pairs = self.cluster.seen_all()
        if pairs is not None:
            answers = self._answers.of_all(pairs if query is None else (one for one in pairs if query.fits(one[0])))
        else:
            async with within(self.cluster.deadlines.read):
                objects = await self.cluster.list_live()
            if query is not None:
                objects = [obj for obj in objects if obj["kind"] != "Pod" or query.fits(obj)]
            answers = answers_for(objects, self.accesses)
        if self.is_settling:
            answers = [answer for answer in answers if not self._creation.is_refused(answer.sandbox_id)]
        return answers

    async def doubled(self) -> list[DoubledSandbox]:
        """Return nothing: one cluster has one Pod of each sandbox."""
        return []

    def list_known(self, query: ListQuery) -> list[SandboxResponse]:
        """Return the sandboxes that the live view has, however old it is, as list_all does."""
        return self._answers.of_all(one for one in self.cluster.known_all() if query.fits(one[0]))

    def statuses(self) -> dict[str, int] | None:
        """Return the number of sandboxes by status, from the live view; None while it is not fresh."""
        if not self.cluster.is_fresh:
            return None
        counted = dict.fromkeys((word for word in get_args(Status) if word != "NotFound"), 0)
        for answer in self._answers.of_all(self.cluster.known_all()):
            counted[answer.status] += 1
        return counted

    async def delete(self, sandbox_id: str, *, force: bool = False) -> str | None:
        """Delete the Pod and the Service, or those that exist; its extra objects follow once the Pod is gone.

        Does not wait for the Pod's termination grace period. `force`: delete a lost Pod without its node's
        confirmation, and return a warning; raises SandboxConflict if there is one that is not lost.
        """
        warning = None
        async with self._locks.hold(sandbox_id, self.cluster.deadlines.delete) as seconds_left, within(seconds_left):
            leaving = await self.extras.leaving(sandbox_id)
            if force:
                pod, _ = await self.cluster.look(sandbox_id)
                if pod is not None and kube.sandbox_id_of(pod) == sandbox_id:
                    await delete_by_force(self.cluster, pod, self._absent_object())
                    warning = FORCED
            await self.cluster.delete(sandbox_id)
        self.extras.delete_later(leaving)
        logger.info("sandbox %s deleted", sandbox_id)
        return warning

    @property
    def is_settling(self) -> bool:
        """Whether objects of a failed create are still to be deleted."""
        return self._creation.any_refused

    async def release(self) -> None:
        """Answer all waiting callers and end all event streams at once; call it at shutdown."""
        self.feed.close()
        await self._waits.release()

    async def renew(self, sandbox_id: str, ttl_seconds: int) -> SandboxResponse:
        """Set the expiry to now + `ttl_seconds`; 0 disables it. May shorten.

        Raises SandboxNotFound, ClusterRefused, ClusterUnavailable or ClusterTimeout.
        """
        return await self._change(sandbox_id, lambda pod: keepalive.renew(self.cluster, pod, ttl_seconds))

    async def touch(self, sandbox_id: str) -> SandboxResponse:
        """Record a use of the sandbox, written at most once a minute (`keepalive.py`). Raises the errors of renew."""
        return await self._change(sandbox_id, self._uses.note)

    async def make_url(self, sandbox_id: str, *, port: int | None = None, ttl_seconds: int | None = None) -> SandboxUrl:
        """Return a URL of the sandbox by the gateway; see `urls.make_url`. Raises SandboxNotFound, too."""
        pod, service = self.cluster.seen(sandbox_id)
        if self._answers.of(pod, service) is None:
            async with within(self.cluster.deadlines.read):
                pod, service = await self.cluster.look(sandbox_id)
        self._answer(pod, service, sandbox_id)
        assert pod is not None  # noqa: S101 - else that raised
        return urls.make_url(pod, self.accesses, port, ttl_seconds)

    async def revoke_urls(self, sandbox_id: str) -> SandboxResponse:
        """Make all URLs of the sandbox by the gateway invalid. Raises NotBehindGateway, and the errors of renew."""
        return await self._change(sandbox_id, lambda pod: urls.revoke_urls(self.cluster, self.accesses, pod))

    def note_use(self, pod: KubeObject) -> None:
        """Record a use of the Pod's sandbox, to be written later; see Uses.note_later."""
        self._uses.note_later(pod)

    async def _change(self, sandbox_id: str, change: Callable[[KubeObject], Awaitable[KubeObject]]) -> SandboxResponse:
        """Change the sandbox's Pod; if it was replaced, read again and retry."""
        pod, service = self.cluster.seen(sandbox_id)
        async with within(self.cluster.deadlines.read):
            for _ in range(MAX_ROUNDS):
                if pod is None or (service is None and not kube.is_behind_gateway(pod)):
                    pod, service = await self.cluster.look(sandbox_id)
                self._answer(pod, service, sandbox_id)
                assert pod is not None  # noqa: S101 - else that raised
                try:
                    changed = await change(pod)
                except ObjectsChanged as error:
                    logger.debug("sandbox %s has changed and is read again: %s", sandbox_id, error)
                    pod = None
                else:
                    # The Pod may be terminating: an apply onto it still succeeds (record: apply-onto-terminating).
                    return self._answer(changed, service, sandbox_id)
        raise KeepsChanging

    async def finish(self) -> None:
        """Wait for the clean-up after failed creates and for pending writes, for a limited time."""
        await asyncio.gather(self._creation.finish(), self._uses.finish())

    def _answer(self, pod: KubeObject | None, service: KubeObject | None, sandbox_id: str) -> SandboxResponse:
        """Return the response for these objects; raises SandboxNotFound if they are not a visible sandbox."""
        used = None if pod is None else self._uses.latest(pod)
        answer = answer_for(pod, service, self.accesses, used=used)
        if answer is None or self._creation.is_refused(sandbox_id):
            raise SandboxNotFound(sandbox_id)
        return answer


def _blame(error: ClusterRefused, request: CreateRequest) -> ProvisionerError:
    """Return a 422 if the cluster refused a field that the caller set, else the error itself."""
    given = [name for name in error.request_fields if name in request.model_fields_set]
    # Null counts as absent.
    name = next((name for name in given if getattr(request, name) is not None), None)
    if name is None:
        return error
    value = request.model_dump()[name]
    entry = InvalidField(type="value_error", loc=["body", name], msg=error.public, input=value)
    return Unprocessable([entry], detail=error.detail)
