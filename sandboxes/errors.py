"""What can go wrong, as one tree: each class carries its HTTP status.

Policy: only `public` ever reaches a caller; it is one sentence for a person, without kubectl's own text,
paths or stack traces. `detail` is everything known, for the log, under the same request id. An exception that
is not of this tree is a bug and becomes a 500 without a word of its text.
"""

from __future__ import annotations

from typing import TypedDict


class InvalidField(TypedDict):
    """One entry of a 422 answer's `detail`, in pydantic's form."""

    type: str
    loc: list[str | int]
    msg: str
    input: object


class StartupError(Exception):
    """The process must not start; the text is one message for the operator, paths included."""


class ProvisionerError(Exception):
    """Something a caller is told of.

    `public`: the sentence at `detail` of the answer. `detail`: for the log only.
    `retry_after`: seconds for the `Retry-After` header, or None for no header.
    """

    status: int = 500
    retry_after: int | None = None

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
    """The API key is missing or wrong; or there is none, and the caller is not one who is answered without."""

    status = 401


class FieldNotAllowed(ProvisionerError):
    """The request uses a field that the operator does not allow."""

    status = 403


class BrowserRefused(ProvisionerError):
    """There is no API key, and this may be a browser's request for a page of another origin."""

    status = 403


class SandboxNotFound(ProvisionerError):
    """There is no such sandbox, or its Pod is being deleted."""

    status = 404

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"Sandbox '{sandbox_id}' not found")


class SandboxConflict(ProvisionerError):
    """The id is taken by somebody else's sandbox, which stays untouched."""

    status = 409


class Unprocessable(ProvisionerError):
    """A field of the request can't be accepted; `fields` is the 422 list."""

    status = 422

    def __init__(self, fields: list[InvalidField], *, detail: str = "") -> None:
        super().__init__("; ".join(field["msg"] for field in fields), detail=detail)
        self.fields = fields


class LimitReached(ProvisionerError):
    """A quota, or the range of node ports, is used up."""

    status = 429
    retry_after = 30


class TooManySandboxes(LimitReached):
    """MAX_SANDBOXES is reached: there are `count`, and `limit` is the most."""

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"There are {count} sandboxes, and {limit} is the most")
        self.count = count
        self.limit = limit


class ClusterRefused(ProvisionerError):
    """The cluster refuses what it was given, or to know us: template, rights, policy, credentials.

    `request_fields` are the fields of a create request from which this may have come: the first one that the caller
    had set is to blame, and the operator if there is none.
    """

    status = 502

    def __init__(self, public: str, *, detail: str = "", request_fields: tuple[str, ...] = ()) -> None:
        super().__init__(public, detail=detail)
        self.request_fields = request_fields


class TemplateRefused(ClusterRefused):
    """A field of the objects is unknown to the schema, or holds what it may not hold."""


class ClusterUnavailable(ProvisionerError):
    """The cluster can't be reached or can't do this just now; the same call may pass later.

    `pauses`: seconds to wait before each further try within one request; none where trying again is no use.
    """

    status = 503
    retry_after: int | None = 5
    pauses: tuple[float, ...] = ()


class KubectlNotRun(ClusterUnavailable):
    """kubectl itself can't be started: it is missing, or the machine has no process or memory left for it."""


class ObjectsChanged(ClusterUnavailable):
    """The objects are not as we believed. The create looks again; a caller is told when that did not help."""

    retry_after = 1


class ApplyConflict(ObjectsChanged):
    """The cluster refuses to change an object that is there: somebody else's, or another revision's."""


class AlreadyThere(ObjectsChanged):
    """An object that was to be made is there already: somebody else was first."""

    # An apply meets it only where two make the same object at once; the next try finds it.
    pauses = (0.3, 1.0)


class PreconditionFailed(ObjectsChanged):
    """Somebody touched the object since it was read, so it was left alone."""


class ObjectsMissing(ObjectsChanged):
    """Objects were named that are not there; `names` has (resource, name) of each, such as ("pods", "sandbox-a").

    `stdout`: what kubectl printed besides.
    """

    def __init__(self, public: str, *, detail: str = "", names: frozenset[tuple[str, str]] = frozenset()) -> None:
        super().__init__(public, detail=detail)
        self.names = names
        self.stdout = b""


class ConnectionFailed(ClusterUnavailable):
    """Nobody answers at the API server's address, or the connection broke."""

    pauses = (0.3, 1.0)


class ServerFailed(ClusterUnavailable):
    """The API server answered with a 5xx, or asked to come back later."""

    pauses = (0.3, 1.0, 2.0)


class KeepsChanging(ClusterUnavailable):
    """Gave up: another writer kept modifying the Pod or Service."""

    def __init__(self) -> None:
        super().__init__("The sandbox is being changed by somebody else all the time")


class ServiceAccountMissing(ClusterUnavailable):
    """The namespace is so new that it has no service account yet: passes within a second or two."""

    pauses = (0.1, 0.2, 0.3, 0.5, 0.5, 1.0, 1.0, 2.0, 2.0)


class LiveViewOff(ClusterUnavailable):
    """What was asked for needs the live view, which the operator has switched off: trying again is no use."""

    retry_after = None


class NamespaceMissing(ClusterUnavailable):
    """The sandboxes' namespace does not exist (yet, or any more)."""


class LogMissing(ClusterUnavailable):
    """The container has no log: it has not started, or its node does not hand one out."""


class Busy(ClusterUnavailable):
    """Too many requests are waiting already; nothing was tried."""

    retry_after = 2

    def __init__(self, public: str = "The provisioner has too many requests waiting") -> None:
        super().__init__(public)


class ClusterTimeout(ProvisionerError):
    """No answer within the time that this call may take."""

    status = 504

    def __init__(self, public: str = "The cluster did not answer in time", *, detail: str = "") -> None:
        super().__init__(public, detail=detail)
