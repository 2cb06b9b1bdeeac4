"""The exceptions of the service; each class has an HTTP status.

Policy: callers only see `public`, one sentence for a person, without kubectl's output, paths or stack traces.
`detail` has everything else and is logged under the same request id. Any other exception is a bug and becomes a 500
that does not show its text.
"""

from __future__ import annotations

from typing import Any, TypedDict


class InvalidField(TypedDict):
    """One entry of `detail` in a 422 response, in pydantic's format."""

    type: str
    loc: list[str | int]
    msg: str
    input: object


class StartupError(Exception):
    """The service can't start; the text is a message for the operator and may contain paths."""


class ProvisionerError(Exception):
    """An error that is reported to the caller.

    `public` becomes `detail` of the response; `detail` is only logged. `retry_after`: seconds for the `Retry-After`
    header, or None for no header.
    """

    status: int = 500
    retry_after: int | None = None
    # Of an apply: kubectl's message about each object that the API server refused, with its error.
    each: tuple[tuple[str, ProvisionerError], ...] = ()
    # Of an apply of a Pod and a Service: which of them existed afterwards, as read; None if they were not read.
    left: list[dict[str, Any]] | None = None

    def __init__(self, public: str, *, detail: str = "", retry_after: int | None = None) -> None:
        super().__init__(public)
        self.public = public
        self.detail = detail
        if retry_after is not None:
            self.retry_after = retry_after


class BadRequest(ProvisionerError):
    """The request breaks a rule that the schema can't express."""

    status = 400


class Unauthenticated(ProvisionerError):
    """The API key is missing or wrong, or none is configured and this caller needs one."""

    status = 401


class FieldNotAllowed(ProvisionerError):
    """The request uses a field that the operator does not allow."""

    status = 403


class BrowserRefused(ProvisionerError):
    """No API key is configured, and the request may come from a page of another origin in a browser."""

    status = 403


class SandboxNotFound(ProvisionerError):
    """The sandbox does not exist, or its Pod is being deleted."""

    status = 404

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"Sandbox '{sandbox_id}' not found")


class SandboxConflict(ProvisionerError):
    """The id, or the name of an object, belongs to another owner; that object was not changed."""

    status = 409


class NotBehindGateway(SandboxConflict):
    """The sandbox has no URL by the gateway."""


class Unprocessable(ProvisionerError):
    """A field of the request is invalid; `fields` is the list in the 422 response."""

    status = 422

    def __init__(self, fields: list[InvalidField], *, detail: str = "") -> None:
        super().__init__("; ".join(field["msg"] for field in fields), detail=detail)
        self.fields = fields


class LimitReached(ProvisionerError):
    """A quota or the node port range is exhausted."""

    status = 429
    retry_after = 30


class TooManySandboxes(LimitReached):
    """`count` sandboxes exist, and MAX_SANDBOXES is `limit`."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"The limit of {limit} sandboxes is reached: {count} exist")
        self.count = count
        self.limit = limit


class ClusterRefused(ProvisionerError):
    """The cluster rejected a request: because of the template, RBAC, a policy, or the credentials.

    `request_fields`: fields of a create request that may be the cause, most likely first. The first one that the caller
    set is blamed; if the caller set none, the operator's configuration is. `words`: what the API server said, masked,
    if the provisioner does not know the reason; for operators. `refuses_all`: whether it would refuse every request,
    because of the credentials or the kubeconfig.
    """

    status = 502
    refuses_all = False

    def __init__(self, public: str, *, detail: str = "", request_fields: tuple[str, ...] = (), words: str = "") -> None:
        super().__init__(public, detail=detail)
        self.request_fields = request_fields
        self.words = words


class PatchForbidden(ClusterRefused):
    """The provisioner may not patch Pods or Services, which an apply and every annotation need."""


class TemplateRefused(ClusterRefused):
    """An object has a field that is unknown to the schema, or an invalid value."""


class ClusterUnavailable(ProvisionerError):
    """The cluster can't be reached, or can't do this now; a later attempt may succeed.

    `pauses`: seconds to wait before each retry within a request; empty if a retry can't help.
    """

    status = 503
    retry_after: int | None = 5
    pauses: tuple[float, ...] = ()


class KubectlNotRun(ClusterUnavailable):
    """kubectl can't be started: the binary is missing, or the machine is out of processes or memory."""


class ObjectsChanged(ClusterUnavailable):
    """The objects are not in the expected state. A create reads them again; the caller sees this if that fails."""

    retry_after = 1


class ApplyConflict(ObjectsChanged):
    """The existing object can't be changed: another client or another revision created it."""


class AlreadyThere(ObjectsChanged):
    """The object to create exists already: another client was first."""

    # An apply fails with it only if two clients create the object at the same time; a retry finds it.
    pauses = (0.3, 1.0)


class PreconditionFailed(ObjectsChanged):
    """The object was modified after it was read, so it was not changed."""


class ObjectsMissing(ObjectsChanged):
    """Some of the named objects do not exist.

    `names`: (resource, name) of each, such as ("pods", "sandbox-a"). `stdout`: kubectl's output for the others.
    """

    def __init__(self, public: str, *, detail: str = "", names: frozenset[tuple[str, str]] = frozenset()) -> None:
        super().__init__(public, detail=detail)
        self.names = names
        self.stdout = b""


class ConnectionFailed(ClusterUnavailable):
    """The API server can't be reached, or the connection broke."""

    pauses = (0.3, 1.0)


class ServerFailed(ClusterUnavailable):
    """The API server failed (5xx) or asked for a retry (429)."""

    pauses = (0.3, 1.0, 2.0)


class KeepsChanging(ClusterUnavailable):
    """Gave up: another writer kept modifying the Pod or Service."""

    def __init__(self) -> None:
        super().__init__("Another client keeps modifying the sandbox")


class ServiceAccountMissing(ClusterUnavailable):
    """The namespace is new and has no service account yet; it gets one within a second or two."""

    pauses = (0.1, 0.2, 0.3, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0)


class StillDeleting(ClusterUnavailable):
    """The deletion of the sandbox's Pod was accepted, and has not ended in time."""

    def __init__(self) -> None:
        super().__init__("The sandbox of the same id is still being deleted")


class LiveViewOff(ClusterUnavailable):
    """The request needs the informer, which the operator has disabled; a retry can't help."""

    retry_after = None


class NamespaceMissing(ClusterUnavailable):
    """The namespace of the sandboxes does not exist."""


class LogMissing(ClusterUnavailable):
    """The container has no log: it has not started, or its node does not serve it."""


class Busy(ClusterUnavailable):
    """Too many requests are waiting; this one was not attempted."""

    retry_after = 2

    def __init__(self, public: str = "The provisioner has too many requests waiting") -> None:
        super().__init__(public)


class ClusterTimeout(ProvisionerError):
    """The cluster did not respond within the deadline."""

    status = 504

    def __init__(self, public: str = "The cluster did not answer in time", *, detail: str = "") -> None:
        super().__init__(public, detail=detail)


class OutOfTime(ProvisionerError):
    """The time of a request that asks several clusters is used up; it says nothing about the one that it asked last."""

    status = 504

    def __init__(self, *, detail: str = "") -> None:
        super().__init__("The clusters did not answer in time", detail=detail)
