"""What the API server answers when it refuses: one exception, and one maker for each kind of `Status`.

The texts are the server's own, because kubectl prints them and its callers read them. Knows no HTTP but the status
code.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus

from devcluster.objects import Json
from devcluster.resources import Resource


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why an object is invalid: which field, and what is wrong with it."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class ApiError(Exception):
    """A request that is refused; `status` is the body of the answer."""

    def __init__(
        self, code: HTTPStatus, reason: str, message: str, details: Json | None = None, metadata: Json | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.metadata = metadata or {}

    @property
    def retry_after(self) -> int:
        """Give after how many seconds to ask again; 0 where it is of no use."""
        return int((self.details or {}).get("retryAfterSeconds", 0))

    def status(self) -> Json:
        """Give the `Status` object, in the key order of the record."""
        status: Json = {"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure"}
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return {**status, "code": int(self.code)}


def _shown(value: object) -> str:
    """Write a value as Go's field errors do: strings quoted, anything else as JSON."""
    return json.dumps(value, ensure_ascii=False)


def invalid_value(field: str, value: object, detail: str) -> Cause:
    """Say that the field's value is not possible (`apply-label-too-long`)."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}")


def required(field: str, detail: str = "") -> Cause:
    """Say that the field is missing (`apply-annotation-only-missing`)."""
    return Cause(field, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def forbidden_field(field: str, detail: str) -> Cause:
    """Say that the field may not be set, or not be changed (`apply-immutable-change`)."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> Cause:
    """Say that the field takes up more than `limit` bytes."""
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def unsupported(field: str, value: object, supported: list[str]) -> Cause:
    """Say that the field knows only certain words."""
    words = ", ".join(_shown(word) for word in supported)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {words}")


def not_found(resource: Resource, name: str) -> ApiError:
    """Say that there is no such object (`get-missing`)."""
    message = f'{resource.qualified} "{name}" not found'
    return ApiError(HTTPStatus.NOT_FOUND, "NotFound", message, _details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """Say that a create came too late."""
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(HTTPStatus.CONFLICT, "AlreadyExists", message, _details(resource, name))


def forbidden(resource: Resource, name: str, why: str, causes: list[Json] | None = None) -> ApiError:
    """Say that an admission rule is against it (`apply-namespace-terminating`)."""
    message = f'{resource.qualified} "{name}" is forbidden: {why}'
    details = {**_details(resource, name), "causes": causes} if causes else _details(resource, name)
    return ApiError(HTTPStatus.FORBIDDEN, "Forbidden", message, details)


def invalid(resource: Resource, name: str, causes: list[Cause]) -> ApiError:
    """Say that the object breaks its kind's rules; at least one cause (`apply-invalid`, in the HTTP record)."""
    return _invalid(resource.group, resource.kind, name, causes)


def invalid_options(causes: list[Cause]) -> ApiError:
    """Say that what the query of a list or a watch asks for doesn't go together; at least one cause."""
    return _invalid("meta.k8s.io", "ListOptions", "", causes)


def _invalid(group: str, kind: str, name: str, causes: list[Cause]) -> ApiError:
    text = str(causes[0]) if len(causes) == 1 else f"[{', '.join(str(cause) for cause in causes)}]"
    details: Json = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    message = f'{kind}{group and "."}{group} "{name}" is invalid: {text}'
    return ApiError(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid", message, details)


def conflict(resource: Resource, name: str, why: str, *, by_kind: bool = False) -> ApiError:
    """Say that the object is not the one that the caller knew (`delete-precondition-stale`: it names the kind)."""
    noun = resource.kind if by_kind else resource.qualified
    message = f'Operation cannot be fulfilled on {noun} "{name}": {why}'
    details = _details(resource, name)
    return ApiError(HTTPStatus.CONFLICT, "Conflict", message, {**details, "kind": noun} if by_kind else details)


def apply_conflict(message: str, causes: list[Cause]) -> ApiError:
    """Say that other field managers own what an apply would change (`apply-conflict`)."""
    listed = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return ApiError(HTTPStatus.CONFLICT, "Conflict", message, {"causes": listed})


def bad_request(message: str) -> ApiError:
    """Say that the request itself makes no sense (`get-bad-selector`)."""
    return ApiError(HTTPStatus.BAD_REQUEST, "BadRequest", message)


def internal(message: str) -> ApiError:
    """Say that the server could not do its part (`apply-nodeports-exhausted`)."""
    causes = {"causes": [{"message": message}]}
    text = f"Internal error occurred: {message}"
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", text, causes)


def untyped(message: str) -> ApiError:
    """Say what server-side apply can't read: a 500 without a reason (`apply-unknown-field-ignored`)."""
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "", message)


def unauthorized() -> ApiError:
    """Say that the credentials are none of ours (`unauthorized`)."""
    return ApiError(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")


def expired(message: str, proceed: str = "") -> ApiError:
    """Say that a resource version is no longer kept; `proceed` continues a list in another one."""
    return ApiError(HTTPStatus.GONE, "Expired", message, metadata={"continue": proceed} if proceed else None)


def too_large_version(asked: int, current: int) -> ApiError:
    """Say that a resource version is still to come."""
    message = f"Too large resource version: {asked}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    details = {"causes": causes, "retryAfterSeconds": 1}
    return ApiError(HTTPStatus.GATEWAY_TIMEOUT, "Timeout", f"Timeout: {message}", details)


def no_such_path() -> ApiError:
    """Say that nothing is served at this path."""
    message = "the server could not find the requested resource"
    return ApiError(HTTPStatus.NOT_FOUND, "NotFound", message, {})


def not_allowed(resource: Resource) -> ApiError:
    """Say that the resource is there, but not for this verb."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message, _details(resource, ""))


def unsupported_media_type(accepted: list[str]) -> ApiError:
    """Say which bodies are understood."""
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)


def _details(resource: Resource, name: str) -> Json:
    details: Json = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return {**details, "kind": resource.plural}
