"""Errors of the API server: one exception, and one factory for each kind of `Status`.

The texts are the server's own, because kubectl prints them and its callers parse them. Knows of HTTP only the status
code.
"""

import json
from dataclasses import dataclass
from http import HTTPStatus

from devcluster.objects import Json
from devcluster.resources import Resource


@dataclass(frozen=True, slots=True)
class Cause:
    """One reason why an object is invalid: the field, and what is wrong with it."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class ApiError(Exception):
    """A refused request; `status` is the body of the answer."""

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
        """Seconds after which to retry; 0 if a retry is useless."""
        return int((self.details or {}).get("retryAfterSeconds", 0))

    def status(self) -> Json:
        """Return the `Status` object, in the key order of the record."""
        status: Json = {"kind": "Status", "apiVersion": "v1", "metadata": self.metadata, "status": "Failure"}
        status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        return {**status, "code": int(self.code)}


def _shown(value: object) -> str:
    """Format a value as Go's field errors do: strings quoted, anything else as JSON."""
    return json.dumps(value, ensure_ascii=False)


def invalid_value(field: str, value: object, detail: str) -> Cause:
    """Report that the field's value is invalid (`apply-label-too-long`)."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {detail}")


def required(field: str, detail: str = "") -> Cause:
    """Report that the field is missing (`apply-annotation-only-missing`)."""
    return Cause(field, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def duplicate(field: str, value: object) -> Cause:
    """Report that another element has this value, too (`apply-port-name-twice`)."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def forbidden_field(field: str, detail: str) -> Cause:
    """Report that the field must not be set, or not be changed (`apply-immutable-change`)."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {detail}")


def too_long(field: str, limit: int) -> Cause:
    """Report that the field is longer than `limit` bytes."""
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def unsupported(field: str, value: object, supported: list[str]) -> Cause:
    """Report that the field's value is not one of the supported ones."""
    words = ", ".join(_shown(word) for word in supported)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {_shown(value)}: supported values: {words}")


def not_found(resource: Resource, name: str) -> ApiError:
    """Report that the object does not exist (`get-missing`)."""
    message = f'{resource.qualified} "{name}" not found'
    return ApiError(HTTPStatus.NOT_FOUND, "NotFound", message, _details(resource, name))


def already_exists(resource: Resource, name: str) -> ApiError:
    """Report that the object of a create exists already."""
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(HTTPStatus.CONFLICT, "AlreadyExists", message, _details(resource, name))


def forbidden(resource: Resource, name: str, why: str, causes: list[Json] | None = None) -> ApiError:
    """Report that an admission plugin refuses the object (`apply-namespace-terminating`)."""
    message = f'{resource.qualified} "{name}" is forbidden: {why}'
    details = {**_details(resource, name), "causes": causes} if causes else _details(resource, name)
    return ApiError(HTTPStatus.FORBIDDEN, "Forbidden", message, details)


def invalid(resource: Resource, name: str, causes: list[Cause]) -> ApiError:
    """Report that the object is invalid; needs at least one cause (`apply-invalid`, in the HTTP record)."""
    return _invalid(resource.group, resource.kind, name, causes)


def invalid_options(causes: list[Cause]) -> ApiError:
    """Report that the options of a list or a watch conflict; needs at least one cause."""
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
    """Report that the object has changed meanwhile. `by_kind`: name it by kind (`delete-precondition-stale`)."""
    noun = resource.kind if by_kind else resource.qualified
    message = f'Operation cannot be fulfilled on {noun} "{name}": {why}'
    details = _details(resource, name)
    return ApiError(HTTPStatus.CONFLICT, "Conflict", message, {**details, "kind": noun} if by_kind else details)


def apply_conflict(message: str, causes: list[Cause]) -> ApiError:
    """Report that other field managers own fields that an apply would change (`apply-conflict`)."""
    listed = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    return ApiError(HTTPStatus.CONFLICT, "Conflict", message, {"causes": listed})


def bad_request(message: str) -> ApiError:
    """Report that the request is malformed (`get-bad-selector`)."""
    return ApiError(HTTPStatus.BAD_REQUEST, "BadRequest", message)


def internal(message: str) -> ApiError:
    """Report that the server failed (`apply-nodeports-exhausted`)."""
    causes = {"causes": [{"message": message}]}
    text = f"Internal error occurred: {message}"
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError", text, causes)


def untyped(message: str) -> ApiError:
    """Report that server-side apply can't read the object: a 500 without a reason (`apply-unknown-field-ignored`)."""
    return ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "", message)


def unauthorized() -> ApiError:
    """Report that the credentials are wrong (`unauthorized`)."""
    return ApiError(HTTPStatus.UNAUTHORIZED, "Unauthorized", "Unauthorized")


def expired(message: str, proceed: str = "") -> ApiError:
    """Report that the resource version is too old. `proceed`: a token to continue the list at a newer one."""
    return ApiError(HTTPStatus.GONE, "Expired", message, metadata={"continue": proceed} if proceed else None)


def too_large_version(asked: int, current: int) -> ApiError:
    """Report that the resource version is in the future."""
    message = f"Too large resource version: {asked}, current: {current}"
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    details = {"causes": causes, "retryAfterSeconds": 1}
    return ApiError(HTTPStatus.GATEWAY_TIMEOUT, "Timeout", f"Timeout: {message}", details)


def no_such_path() -> ApiError:
    """Report that nothing is served at this path."""
    message = "the server could not find the requested resource"
    return ApiError(HTTPStatus.NOT_FOUND, "NotFound", message, {})


def not_allowed(resource: Resource) -> ApiError:
    """Report that the resource does not support this verb."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed", message, _details(resource, ""))


def unsupported_media_type(accepted: list[str]) -> ApiError:
    """Report that the body's media type is not supported."""
    message = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return ApiError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)


def _details(resource: Resource, name: str) -> Json:
    details: Json = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return {**details, "kind": resource.plural}
