"""Create, get, list, delete: what the REST API's routes do, and within which time.

Keeps no state of its own: the cluster is the database, so any number of processes can do this at once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sandboxes.answers import Answers, answer_for, answers_for
from sandboxes.asks import checked_asks
from sandboxes.creation import Creation
from sandboxes.errors import BadRequest, ClusterRefused, InvalidField, ProvisionerError, SandboxNotFound, Unprocessable
from sandboxes.limits import Locks, within
from sandboxes.manifests import Sandbox
from sandboxes.models import TemplateAnswer
from sandboxes.mounts import checked_mounts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.cluster import Cluster
    from sandboxes.models import CreateRequest, SandboxAnswer
    from sandboxes.settings import Settings
    from sandboxes.templates import Template

logger = logging.getLogger(__name__)

# A caller gives a create 30 s, a delete 15 s, a read 10 s (contract.md): these end before, cleaning up included.
CREATE_SECONDS = 21.0
DELETE_SECONDS = 12.0
READ_SECONDS = 8.0


class Lifecycle:
    """What can be done with the sandboxes of one cluster. Raises only errors of `errors.py`."""

    def __init__(self, cluster: Cluster, templates: Mapping[str, Template], settings: Settings) -> None:
        self.cluster = cluster
        self._templates = templates
        self._settings = settings
        self._answers = Answers(settings)
        if cluster.view is not None:
            cluster.view.on_change(self._answers.forget)
        self._locks = Locks()
        self._creation = Creation(cluster, templates, settings, self._locks)
        self.extras = self._creation.extras
        self.protection = self._creation.protection

    async def create(self, request: CreateRequest) -> SandboxAnswer:
        """Return the sandbox, making what of it is missing; the same request again returns the same sandbox.

        All or nothing: when this raises, what it made is gone again, and what was there before is as it was, but for
        a Pod that had ended: that one is removed to make room.
        Raises BadRequest, FieldNotAllowed, Unprocessable, SandboxConflict, LimitReached, ClusterRefused,
        ClusterUnavailable or ClusterTimeout.
        """
        sandbox = self._checked(request)
        try:
            async with self._locks.hold(sandbox.sandbox_id, CREATE_SECONDS) as seconds_left:
                pair = await self._creation.create(sandbox, seconds_left)
        except ClusterRefused as error:
            raise _blame(error, request) from error
        answer = answer_for(*pair, self._settings)
        assert answer is not None  # noqa: S101 - creation returns whole sandboxes
        return answer

    def _checked(self, request: CreateRequest) -> Sandbox:
        """Return what is asked for; raises BadRequest, FieldNotAllowed or Unprocessable where it may not be."""
        asks = checked_asks(request, self._templates, self._settings)
        if request.extra_mounts and self._templates[asks.template].is_restricted:
            raise BadRequest(f"extra_mounts is not available with the template '{asks.template}'")
        return Sandbox(
            sandbox_id=request.sandbox_id,
            thread_id=request.thread_id or request.sandbox_id,
            user_id=request.user_id,
            extra_mounts=checked_mounts(request.extra_mounts, self._settings.deer_flow_host_base_dir),
            asks=asks,
        )

    def templates(self) -> list[TemplateAnswer]:
        """Return what a caller may know of each template, sorted by name."""
        return [
            TemplateAnswer(
                name=name,
                description=template.description,
                image=self._settings.sandbox_image,
                objects=sorted({extra["kind"] for extra in template.extras}),
            )
            for name, template in sorted(self._templates.items())
        ]

    async def get(self, sandbox_id: str) -> SandboxAnswer:
        """Return what is known of the sandbox; raises SandboxNotFound also while its Pod is being deleted."""
        answer = self._seen(sandbox_id)
        if answer is None:
            async with within(READ_SECONDS):
                pod, service = await self.cluster.look(sandbox_id)
            answer = answer_for(pod, service, self._settings)
        if answer is None or self._creation.is_refused(sandbox_id):
            raise SandboxNotFound(f"Sandbox '{sandbox_id}' not found")
        return answer

    async def list_all(self) -> list[SandboxAnswer]:
        """Return every sandbox that get() would return, sorted by id."""
        view = self.cluster.view
        if view is not None and view.is_fresh and not view.has_doubts:
            answers = self._answers.of_all(view.sandboxes())
        else:
            async with within(READ_SECONDS):
                objects = await self.cluster.list_live()
            answers = answers_for(objects, self._settings)
        return [answer for answer in answers if not self._creation.is_refused(answer.sandbox_id)]

    async def delete(self, sandbox_id: str) -> None:
        """Have the sandbox deleted, whatever of it there is; the Pod may take its grace to be gone.

        What else its template brought goes after the Pod.
        """
        async with self._locks.hold(sandbox_id, DELETE_SECONDS) as seconds_left, within(seconds_left):
            leaving = await self.extras.leaving(sandbox_id)
            await self.cluster.delete(sandbox_id)
        self.extras.delete_later(leaving)
        logger.info("sandbox %s deleted", sandbox_id)

    async def finish(self) -> None:
        """Give what still cleans up after failed creates a while to end."""
        await self._creation.finish()

    def _seen(self, sandbox_id: str) -> SandboxAnswer | None:
        """Return what the view tells of the sandbox, if it may answer for it; None proves nothing."""
        view = self.cluster.view
        if view is None or not view.is_certain(sandbox_id):
            return None
        return self._answers.of(*view.sandbox(sandbox_id))


def _blame(error: ClusterRefused, request: CreateRequest) -> ProvisionerError:
    """Return a 422 if what the cluster refuses came from the caller, else the error itself."""
    name = error.request_field
    if name is None or name not in request.model_fields_set:
        return error
    value = request.model_dump()[name]
    entry = InvalidField(type="value_error", loc=["body", name], msg=error.public, input=value)
    return Unprocessable([entry], detail=error.detail)
