"""Create, get, list, delete: what the routes do, and within which time.

Keeps no state of its own: the cluster is the database, so any number of processes can do this at once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, get_args

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
from sandboxes.models.responses import Status, TemplateResponse
from sandboxes.service import keepalive
from sandboxes.service.create import Creation
from sandboxes.service.diagnostics import diagnose
from sandboxes.service.events import EventBroker
from sandboxes.service.keepalive import Uses
from sandboxes.service.listing import ListQuery, select
from sandboxes.service.locks import Bulkhead, Locks
from sandboxes.service.readiness import ReadinessWaiter, waited
from sandboxes.service.reaper import Reaper
from sandboxes.spec.options import validate
from sandboxes.status.response import Answers, answer_for, answers_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.models.requests import CreateRequest
    from sandboxes.models.responses import Diagnostics, SandboxList, SandboxResponse, WaitedResponse
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

logger = logging.getLogger(__name__)

# One diagnosis is up to four processes of kubectl, which all others share.
DIAGNOSES_AT_ONCE = 2
DIAGNOSES_WAITING = 16

# Each round ends because somebody else changed the Pod; so many in a row is no accident.
MAX_ROUNDS = 5


class SandboxService:
    """What can be done with the sandboxes of one cluster. Raises only errors of `errors.py`."""

    def __init__(self, cluster: Cluster, templates: Mapping[str, Template], settings: Settings) -> None:
        self.cluster = cluster
        self._templates = templates
        self._settings = settings
        self._answers = Answers(settings)
        cluster.changed.connect(self._answers.forget)
        self._waits = ReadinessWaiter(cluster, settings)
        self.feed = EventBroker(cluster, self._answers)
        self._locks = Locks()
        self._uses = Uses(cluster)
        self._diagnosing = Bulkhead(DIAGNOSES_AT_ONCE, DIAGNOSES_WAITING)
        self._creation = Creation(cluster, templates, settings, self._locks, self._uses)
        self.made = self._creation.made
        self.extras = self._creation.extras
        self.protection = self._creation.protection
        self.reaper = Reaper(cluster, settings, self._locks, self._uses, self.extras)

    async def create(self, request: CreateRequest) -> SandboxResponse:
        """Return the sandbox, making what of it is missing; the same request again returns the same sandbox.

        All or nothing: when this raises, what it made is gone again, and what was there before is as it was, but for
        a Pod that had ended: that one is removed to make room.
        Raises BadRequest, FieldNotAllowed, Unprocessable, SandboxConflict, LimitReached, ClusterRefused,
        ClusterUnavailable or ClusterTimeout.
        """
        sandbox = validate(request, self._templates, self._settings)
        try:
            async with self._locks.hold(sandbox.sandbox_id, self.cluster.deadlines.create) as seconds_left:
                pod, service = await self._creation.create(sandbox, seconds_left)
        except ClusterRefused as error:
            raise _blame(error, request) from error
        return self._answer(pod, service, sandbox.sandbox_id)

    def templates(self) -> list[TemplateResponse]:
        """Return what a caller may know of each template, sorted by name."""
        return [
            TemplateResponse(
                name=name,
                description=template.description,
                image=self._settings.sandbox_image,
                objects=sorted({extra["kind"] for extra in template.extras}),
            )
            for name, template in sorted(self._templates.items())
        ]

    async def get(self, sandbox_id: str) -> SandboxResponse:
        """Return what is known of the sandbox; raises SandboxNotFound also while its Pod is being deleted."""
        answer = self._answers.of(*self.cluster.seen(sandbox_id))
        if answer is not None and not self._creation.is_refused(sandbox_id):
            return answer
        async with within(self.cluster.deadlines.read):
            pod, service = await self.cluster.look(sandbox_id)
        return self._answer(pod, service, sandbox_id)

    async def diagnostics(self, sandbox_id: str) -> Diagnostics:
        """Return how the sandbox is, and why; see diagnose. Raises SandboxNotFound as get() does."""
        if self._creation.is_refused(sandbox_id):
            raise SandboxNotFound(sandbox_id)
        async with within(self.cluster.deadlines.read), self._diagnosing.one():
            return await diagnose(self.cluster, sandbox_id, self._settings)

    async def wait(self, answer: SandboxResponse, until: float, *, is_made: bool = False) -> WaitedResponse:
        """Return the sandbox when it is usable or can't become so, or at `until` (loop time), see Waits.until_usable.

        `is_made`: this very request has made it. Then a cluster that can't be asked any more is no error, and the
        answer is what is known; else this raises what kept it from answering. Raises SandboxNotFound if it is deleted.
        """
        try:
            return await self._waits.until_usable(answer, until)
        except SandboxNotFound:
            raise
        except ProvisionerError:
            if is_made:
                return waited(answer)
            raise

    async def list_matching(self, query: ListQuery) -> SandboxList:
        """Return what of list_all() the query asks for."""
        return select(await self.list_all(query if query.label else None), query)

    async def list_all(self, query: ListQuery | None = None) -> list[SandboxResponse]:
        """Return every sandbox that get() would return, sorted by id; of a query, only the labels are looked at."""
        pairs = self.cluster.seen_all()
        if pairs is not None:
            answers = self._answers.of_all(pairs if query is None else (one for one in pairs if query.fits(one[0])))
        else:
            async with within(self.cluster.deadlines.read):
                objects = await self.cluster.list_live()
            if query is not None:
                objects = [obj for obj in objects if obj["kind"] != "Pod" or query.fits(obj)]
            answers = answers_for(objects, self._settings)
        if self._creation.any_refused:
            answers = [answer for answer in answers if not self._creation.is_refused(answer.sandbox_id)]
        return answers

    def statuses(self) -> dict[str, int] | None:
        """Return how many sandboxes have each status, as the live view has it; None while it is not fresh."""
        if not self.cluster.is_fresh:
            return None
        counted = dict.fromkeys((word for word in get_args(Status) if word != "NotFound"), 0)
        for answer in self._answers.of_all(self.cluster.known_all()):
            counted[answer.status] += 1
        return counted

    async def delete(self, sandbox_id: str) -> None:
        """Have the sandbox deleted, whatever of it there is; the Pod may take its grace to be gone.

        What else its template brought goes after the Pod.
        """
        async with self._locks.hold(sandbox_id, self.cluster.deadlines.delete) as seconds_left, within(seconds_left):
            leaving = await self.extras.leaving(sandbox_id)
            await self.cluster.delete(sandbox_id)
        self.extras.delete_later(leaving)
        logger.info("sandbox %s deleted", sandbox_id)

    @property
    def is_settling(self) -> bool:
        """Whether something that a failed create made is still to be deleted."""
        return self._creation.any_refused

    async def release(self) -> None:
        """Answer all who wait, and end all streams, at once: the process is about to end."""
        self.feed.close()
        await self._waits.release()

    async def renew(self, sandbox_id: str, ttl_seconds: int) -> SandboxResponse:
        """Have the sandbox end `ttl_seconds` from now, sooner or later than before, or never (0).

        Raises SandboxNotFound, ClusterRefused, ClusterUnavailable or ClusterTimeout.
        """
        return await self._change(sandbox_id, lambda pod: keepalive.renew(self.cluster, pod, ttl_seconds))

    async def touch(self, sandbox_id: str) -> SandboxResponse:
        """Count this as a use of the sandbox; written at most once a minute (`keepalive.py`). Raises as renew does."""
        return await self._change(sandbox_id, self._uses.note)

    async def _change(self, sandbox_id: str, change: Callable[[KubeObject], Awaitable[KubeObject]]) -> SandboxResponse:
        """Change the sandbox's Pod; when it is another one by now, look and try again."""
        pod, service = self.cluster.seen(sandbox_id)
        async with within(self.cluster.deadlines.read):
            for _ in range(MAX_ROUNDS):
                if pod is None or service is None:
                    pod, service = await self.cluster.look(sandbox_id)
                self._answer(pod, service, sandbox_id)
                assert pod is not None  # noqa: S101 - else that raised
                try:
                    changed = await change(pod)
                except ObjectsChanged as error:
                    logger.debug("sandbox %s is looked at again: %s", sandbox_id, error)
                    pod = None
                else:
                    # It may be on its way out by now: an apply onto it succeeds (record: apply-onto-terminating).
                    return self._answer(changed, service, sandbox_id)
        raise KeepsChanging

    async def finish(self) -> None:
        """Give what still cleans up after failed creates, and what is still to be written, a while to end."""
        await asyncio.gather(self._creation.finish(), self._uses.finish())

    def _answer(self, pod: KubeObject | None, service: KubeObject | None, sandbox_id: str) -> SandboxResponse:
        """Return what a caller is told of these objects; raises SandboxNotFound if that is "not found"."""
        used = None if pod is None else self._uses.latest(pod)
        answer = answer_for(pod, service, self._settings, used=used)
        if answer is None or self._creation.is_refused(sandbox_id):
            raise SandboxNotFound(sandbox_id)
        return answer


def _blame(error: ClusterRefused, request: CreateRequest) -> ProvisionerError:
    """Return a 422 if what the cluster refuses came from the caller, else the error itself."""
    given = [name for name in error.request_fields if name in request.model_fields_set]
    # Null counts as absent.
    name = next((name for name in given if getattr(request, name) is not None), None)
    if name is None:
        return error
    value = request.model_dump()[name]
    entry = InvalidField(type="value_error", loc=["body", name], msg=error.public, input=value)
    return Unprocessable([entry], detail=error.detail)
