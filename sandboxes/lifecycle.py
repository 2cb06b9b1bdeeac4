"""Create, get, list, delete: the one place where kubectl, manifests and status meet.

Keeps no state of its own: the cluster is the database, so any number of processes can do this at once. What guards
between them is in the objects: the immutable revision, the owner's annotations, and a new `applied-at` on every
apply.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes import kube
from sandboxes.answers import Answers, answer_for, answers_for
from sandboxes.errors import (
    ClusterRefused,
    ClusterTimeout,
    ClusterUnavailable,
    InvalidField,
    NamespaceMissing,
    ObjectsChanged,
    PreconditionFailed,
    ProvisionerError,
    SandboxConflict,
    SandboxNotFound,
    Unprocessable,
)
from sandboxes.limits import Locks, within
from sandboxes.manifests import Sandbox, build, user_data_source
from sandboxes.mounts import checked_mounts
from sandboxes.retries import persist
from sandboxes.status import has_ended

if TYPE_CHECKING:
    from sandboxes.kube import KubeObject
    from sandboxes.kubectl import Kubectl
    from sandboxes.models import CreateRequest, SandboxAnswer
    from sandboxes.settings import Settings
    from sandboxes.templates import Template
    from sandboxes.view import View

logger = logging.getLogger(__name__)

# A caller gives a create 30 s, a delete 15 s, a read 10 s (contract.md): these end before, cleaning up included.
CREATE_SECONDS = 21.0
UNDO_SECONDS = 5.0
# Cleaning up goes on for so long after a failed create, if need be when its caller has been answered.
SETTLE_SECONDS = 60.0
DELETE_SECONDS = 12.0
READ_SECONDS = 8.0

# Each round of a create ends because somebody else changed the objects; so many in a row is no accident.
MAX_ROUNDS = 8

# Seconds between looks at an object that is being deleted; a container has 5 s to end (manifests/sandbox).
GONE_PAUSES = (0.1, 0.2, 0.4, 0.8)

# Another process's create of the same sandbox is this far at most between its Pod and its Service, mostly 12 ms.
OTHERS_SERVICE_SECONDS = 1.0

# How far the API server's clock may be behind ours; its times are whole seconds.
CLOCKS_DIFFER = timedelta(seconds=10)

# The owner of a Pod without our annotations.
NOBODY = (None, None)


@dataclass
class _Attempt:
    """One create: what was there before it, and what it may have put there."""

    sandbox: Sandbox
    objects: list[KubeObject]
    before: set[str] | None = None
    applied: bool = False
    waits_for_deletion: bool = field(default=False)

    @property
    def applied_at(self) -> str:
        return kube.get_annotations(self.objects[0])[kube.APPLIED_AT_ANNOTATION]

    def may_have_made(self, obj: KubeObject | None) -> bool:
        """Whether this create, and nobody since, has applied the object, and it was not there before.

        The view may not have known what was there before, so what is older than this create is not its own either.
        """
        if obj is None or obj["metadata"]["uid"] in (self.before or ()):
            return False
        made_at = datetime.fromisoformat(obj["metadata"]["creationTimestamp"])
        if made_at < datetime.fromisoformat(self.applied_at) - CLOCKS_DIFFER:
            return False
        return kube.get_annotations(obj).get(kube.APPLIED_AT_ANNOTATION) == self.applied_at


class Lifecycle:
    """What can be done with the sandboxes of one cluster. Raises only errors of `errors.py`."""

    def __init__(self, kubectl: Kubectl, template: Template, settings: Settings, view: View | None = None) -> None:
        self._kubectl = kubectl
        self.view = view
        self._template = template
        self._settings = settings
        self._answers = Answers(settings)
        if view is not None:
            view.on_change(self._answers.forget)
        self._locks = Locks()
        self._settling: set[asyncio.Task[SandboxAnswer | None]] = set()

    async def create(self, request: CreateRequest) -> SandboxAnswer:
        """Return the sandbox, making what of it is missing; the same request again returns the same sandbox.

        All or nothing: when this raises, what it made is gone again, and what was there before is as it was, but for
        a Pod that had ended: that one is removed to make room.
        Raises BadRequest, Unprocessable, SandboxConflict, LimitReached, ClusterRefused, ClusterUnavailable or
        ClusterTimeout.
        """
        mounts = checked_mounts(request.extra_mounts, self._settings.deer_flow_host_base_dir)
        sandbox = Sandbox(request.sandbox_id, request.thread_id or request.sandbox_id, request.user_id, mounts)
        try:
            async with self._locks.hold(sandbox.sandbox_id, CREATE_SECONDS) as seconds_left:
                return await self._create(sandbox, seconds_left)
        except ClusterRefused as error:
            raise _blame(error, request) from error

    async def get(self, sandbox_id: str) -> SandboxAnswer:
        """Return what is known of the sandbox; raises SandboxNotFound also while its Pod is being deleted."""
        answer = self._seen(sandbox_id)
        if answer is not None:
            return answer
        async with within(READ_SECONDS):
            pod, service = await self._look(sandbox_id)
        answer = answer_for(pod, service, self._settings)
        if answer is None:
            raise SandboxNotFound(f"Sandbox '{sandbox_id}' not found")
        return answer

    async def list_all(self) -> list[SandboxAnswer]:
        """Return every sandbox that get() would return, sorted by id."""
        if self.view is not None and self.view.is_fresh and not self.view.has_doubts:
            return self._answers.of_all(self.view.sandboxes())
        async with within(READ_SECONDS):
            objects = await persist(lambda: self._kubectl.list_sandboxes(self._settings.k8s_namespace))
        return answers_for(objects, self._settings)

    async def delete(self, sandbox_id: str) -> None:
        """Have the sandbox deleted, whatever of it there is; the Pod may take its grace to be gone."""
        references = kube.references_of(sandbox_id, self._settings.k8s_namespace)
        async with self._locks.hold(sandbox_id, DELETE_SECONDS) as seconds_left, within(seconds_left):
            uids = {} if self.view is None else self.view.uids(sandbox_id)
            try:
                await persist(lambda: self._kubectl.delete(references))
            except (ProvisionerError, asyncio.CancelledError):
                if self.view is not None:
                    self.view.doubt(sandbox_id)
                raise
            if self.view is not None:
                self.view.note_deleted(uids)
        logger.info("sandbox %s deleted", sandbox_id)

    async def _create(self, sandbox: Sandbox, seconds: float) -> SandboxAnswer:
        objects = build(sandbox, self._template, self._settings, applied_at=now())
        attempt = _Attempt(sandbox, objects)
        try:
            async with within(seconds):
                return await self._reconcile(attempt)
        except ProvisionerError as error:
            answer = await self._settle(attempt)
            if answer is not None:
                logger.warning("sandbox %s is whole after all", sandbox.sandbox_id)
                return answer
            if isinstance(error, ClusterTimeout) and attempt.waits_for_deletion:
                raise ClusterUnavailable(
                    "The sandbox of the same id is still being deleted", detail=error.detail
                ) from error
            raise

    async def _reconcile(self, attempt: _Attempt) -> SandboxAnswer:
        """Look, apply what is missing, and do so again when somebody changed the objects in between."""
        failure: ProvisionerError | None = None
        for number in range(MAX_ROUNDS):
            pod, service = await self._look_first(attempt) if number == 0 else await self._look_again(attempt)
            if attempt.before is None:
                attempt.before = {obj["metadata"]["uid"] for obj in (pod, service) if obj is not None}
            try:
                if await self._clear_the_way(attempt, pod, service):
                    continue
                missing = self._missing(attempt, pod, service)
                stored = await self._apply(attempt, missing) if missing else []
            except (ObjectsChanged, NamespaceMissing) as error:
                failure = error
                if isinstance(error, NamespaceMissing):
                    await self._make_namespace()
                continue
            answer = answer_for(_of("Pod", stored) or pod, _of("Service", stored) or service, self._settings)
            if answer is not None:
                return answer
            # Applied onto objects that are being deleted (record: apply-onto-terminating): look again, and wait.
        raise failure or ClusterUnavailable("The sandbox is being changed by somebody else all the time")

    async def _look_first(self, attempt: _Attempt) -> tuple[KubeObject | None, KubeObject | None]:
        """Return what is there, from the view where it knows of nothing, or of a whole sandbox of the same owner.

        Of nothing, too: the cluster's own guard is the Pod's revision, and an apply onto what is there changes nothing.
        """
        sandbox_id = attempt.sandbox.sandbox_id
        if self.view is not None and self.view.is_certain(sandbox_id):
            pod, service = self.view.sandbox(sandbox_id)
            is_whole = answer_for(pod, service, self._settings) is not None
            if pod is None and service is None:
                return None, None
            if pod is not None and is_whole and not has_ended(pod) and _owner(pod) == _owner(attempt.objects[0]):
                return pod, service
        return await self._look_again(attempt)

    async def _look_again(self, attempt: _Attempt) -> tuple[KubeObject | None, KubeObject | None]:
        return await self._look(attempt.sandbox.sandbox_id)

    def _seen(self, sandbox_id: str) -> SandboxAnswer | None:
        """Return what the view tells of the sandbox, if it may answer for it; None proves nothing."""
        if self.view is None or not self.view.is_certain(sandbox_id):
            return None
        return self._answers.of(*self.view.sandbox(sandbox_id))

    async def _look(self, sandbox_id: str, *, urgent: bool = False) -> tuple[KubeObject | None, KubeObject | None]:
        """Read the sandbox's objects from the cluster itself."""
        references = kube.references_of(sandbox_id, self._settings.k8s_namespace)
        started = asyncio.get_running_loop().time()
        objects = await persist(lambda: self._kubectl.get(references, urgent=urgent))
        if self.view is not None:
            self.view.note_read(sandbox_id, objects, started)
        return _of("Pod", objects), _of("Service", objects)

    async def _clear_the_way(self, attempt: _Attempt, pod: KubeObject | None, service: KubeObject | None) -> bool:
        """Check that what is there may be used, and wait for what is on its way out; whether anything changed."""
        if pod is not None and not kube.is_terminating(pod):
            self._check_owner(attempt, pod)
            if has_ended(pod):
                logger.info("sandbox %s has ended and is replaced", attempt.sandbox.sandbox_id)
                await self._delete_exactly(pod)
                await self._wait_until_gone(attempt, pod)
                return True
        for obj in (pod, service):
            if obj is not None and kube.is_terminating(obj):
                await self._wait_until_gone(attempt, obj)
                return True
        return False

    async def _wait_until_gone(self, attempt: _Attempt, obj: KubeObject) -> None:
        """Look until the object is gone, with pauses: a watch would hold one of the few processes all the time."""
        attempt.waits_for_deletion = True
        for pause in itertools.chain(GONE_PAUSES, itertools.repeat(GONE_PAUSES[-1])):
            found = await persist(lambda: self._kubectl.get([kube.reference(obj)]))
            if not found or found[0]["metadata"]["uid"] != obj["metadata"]["uid"]:
                break
            await asyncio.sleep(pause)
        attempt.waits_for_deletion = False

    def _check_owner(self, attempt: _Attempt, pod: KubeObject) -> None:
        """Raise SandboxConflict unless the Pod is the same owner's, or can be adopted."""
        wanted = attempt.objects[0]
        if _owner(pod) == _owner(wanted):
            return
        # Made by hand, or by the service that this one replaces: the same data mean the same owner.
        if _owner(pod) == NOBODY and user_data_source(pod) == user_data_source(wanted):
            return
        raise SandboxConflict(f"Sandbox '{attempt.sandbox.sandbox_id}' belongs to another thread or user")

    def _missing(self, attempt: _Attempt, pod: KubeObject | None, service: KubeObject | None) -> list[KubeObject]:
        """Return what must be applied. A Pod that is there and ours is never applied again."""
        new_pod, new_service = attempt.objects
        if pod is None:
            return [new_pod, new_service]
        missing = []
        if _owner(pod) == NOBODY:
            logger.info("sandbox %s is adopted", attempt.sandbox.sandbox_id)
            missing.append(_marks_only(new_pod, pod))
        if service is None or not kube.is_managed(service) or answer_for(pod, service, self._settings) is None:
            missing.append(new_service)
        return missing

    async def _apply(self, attempt: _Attempt, objects: list[KubeObject]) -> list[KubeObject]:
        attempt.applied = True
        stored = await persist(lambda: self._kubectl.apply(objects))
        if self.view is not None:
            self.view.note(stored)
        logger.info("sandbox %s applied: %s", attempt.sandbox.sandbox_id, ", ".join(obj["kind"] for obj in objects))
        return stored

    async def _delete_exactly(self, obj: KubeObject, *, urgent: bool = False) -> None:
        await persist(lambda: self._kubectl.delete_exactly(obj, urgent=urgent))

    async def _make_namespace(self) -> None:
        logger.info("namespace %s is missing and is made", self._settings.k8s_namespace)
        await persist(lambda: self._kubectl.ensure_namespace(self._settings.k8s_namespace))

    async def _settle(self, attempt: _Attempt) -> SandboxAnswer | None:
        """After a failed create: return the sandbox if it is whole and ours after all, else undo what it made.

        An apply that was cut off may have reached the server, or another process may have made the same sandbox.
        """
        if not attempt.applied:
            return None
        # What is not done when the caller must have an answer goes on: nothing of a refused create stays.
        task = asyncio.create_task(self._settle_at_last(attempt))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        done, _ = await asyncio.wait([task], timeout=UNDO_SECONDS)
        return task.result() if done else None

    async def _settle_at_last(self, attempt: _Attempt) -> SandboxAnswer | None:
        try:
            async with within(SETTLE_SECONDS):
                return await self._settle_in_time(attempt)
        except ProvisionerError as error:
            logger.exception(
                "sandbox %s: what a failed create made may be left behind: %s\n%s",
                attempt.sandbox.sandbox_id,
                error.public,
                error.detail,
            )
            return None

    async def finish(self) -> None:
        """Wait for what still cleans up after failed creates."""
        await asyncio.gather(*self._settling)

    async def _settle_in_time(self, attempt: _Attempt) -> SandboxAnswer | None:
        pod, service = await self._look(attempt.sandbox.sandbox_id, urgent=True)
        if pod is not None and service is None and attempt.may_have_made(pod):
            # Whoever applied last bears the mark, so the Pod may be another process's, whose Service is on its way.
            await asyncio.sleep(OTHERS_SERVICE_SECONDS)
            pod, service = await self._look(attempt.sandbox.sandbox_id, urgent=True)
        while True:
            if pod is not None and _owner(pod) == _owner(attempt.objects[0]) and not has_ended(pod):
                answer = answer_for(pod, service, self._settings)
                if answer is not None:
                    return answer
            try:
                await self._undo(attempt, pod, service)
            except PreconditionFailed:  # touched since it was read
                pod, service = await self._look(attempt.sandbox.sandbox_id, urgent=True)
            else:
                return None

    async def _undo(self, attempt: _Attempt, pod: KubeObject | None, service: KubeObject | None) -> None:
        """Delete what this create made and nobody has touched since; raises PreconditionFailed if somebody did."""
        ours = [obj for obj in (pod, service) if obj is not None and attempt.may_have_made(obj)]
        if pod is not None and pod not in ours:
            return  # the Pod is somebody else's, and then so is the Service
        for obj in ours:
            if not kube.is_terminating(obj):
                await self._delete_exactly(obj, urgent=True)
                logger.info("sandbox %s: %s of the failed create deleted", attempt.sandbox.sandbox_id, obj["kind"])


def now() -> str:
    """Return the present as an RFC 3339 time with microseconds, for `applied-at`."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _of(kind: str, objects: list[KubeObject]) -> KubeObject | None:
    return next((obj for obj in objects if obj["kind"] == kind), None)


def _owner(obj: KubeObject) -> tuple[str | None, str | None]:
    annotations = kube.get_annotations(obj)
    return annotations.get(kube.THREAD_ANNOTATION), annotations.get(kube.USER_ANNOTATION)


def _marks_only(new_pod: KubeObject, pod: KubeObject) -> KubeObject:
    """Return what gives an existing Pod our marks, and fails if it is no longer that very Pod (kubectl.md 16)."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**new_pod["metadata"], "uid": pod["metadata"]["uid"]},
    }


def _blame(error: ClusterRefused, request: CreateRequest) -> ProvisionerError:
    """Return a 422 if what the cluster refuses came from the caller, else the error itself."""
    name = error.request_field
    if name is None or name not in request.model_fields_set:
        return error
    value = request.model_dump()[name]
    entry = InvalidField(type="value_error", loc=["body", name], msg=error.public, input=value)
    return Unprocessable([entry], detail=error.detail)
