"""Reads and copies Kubernetes objects, which are plain JSON. Knows no kind."""

import secrets
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

JsonValue = Any
"""Any JSON: its type is given by the Kubernetes schema, not by Python's."""

Json = dict[str, JsonValue]
"""A JSON object."""

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # Kubernetes' alphabet for generated names: no vowels, so no words


def clone(value: JsonValue) -> JsonValue:
    """Copy JSON deeply. Several times faster than `copy.deepcopy`, which matters with hundreds of Pods."""
    if isinstance(value, dict):
        return {key: clone(item) if isinstance(item, (dict, list)) else item for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) if isinstance(item, (dict, list)) else item for item in value]
    return value


def without_nulls(value: JsonValue) -> JsonValue:
    """Copy JSON deeply without null fields, which the server treats as absent."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def metadata(obj: Json) -> Json:
    """Return the object's metadata."""
    meta: Json = obj["metadata"]
    return meta


def name_of(obj: Json) -> str:
    """Return the object's name, or an empty string."""
    return str(metadata(obj).get("name", ""))


def namespace_of(obj: Json) -> str:
    """Return the object's namespace, or an empty string if it is cluster-scoped."""
    return str(metadata(obj).get("namespace", ""))


def labels_of(obj: Json) -> dict[str, str]:
    """Return the object's labels; never None."""
    return metadata(obj).get("labels") or {}


def is_terminating(obj: Json) -> bool:
    """Return whether the object is being deleted."""
    return "deletionTimestamp" in metadata(obj)


def timestamp(delay: float = 0) -> str:
    """Return the wall-clock time in `delay` seconds, as `metadata` writes it: RFC 3339, whole seconds."""
    return (datetime.now(UTC) + timedelta(seconds=delay)).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp() -> str:
    """Return the wall-clock time as `eventTime` writes it: RFC 3339 with microseconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_uid() -> str:
    """Generate a uid."""
    return str(uuid.uuid4())


def random_suffix(length: int = 5) -> str:
    """Generate the random suffix of a name, as in `kube-api-access-tp5l2`."""
    return "".join(secrets.choice(_SUFFIX) for _ in range(length))


def random_hex(length: int) -> str:
    """Generate `length` hexadecimal digits, for container ids and image digests."""
    return secrets.token_hex((length + 1) // 2)[:length]
