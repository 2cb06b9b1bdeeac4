"""Decodes protobuf bodies, which kubectl sends for `create namespace` and `auth can-i`, not for applies and deletes.

Knows only the field numbers of those messages (Kubernetes' generated.proto); refuses all others, like a server without
a decoder for them.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from devcluster.objects import Json, JsonValue

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_TYPE_META, _RAW = 1, 2
_VARINT, _FIXED64, _LENGTH_DELIMITED, _FIXED32 = 0, 1, 2, 5
_CONTINUES, _SEVEN_BITS = 0x80, 0x7F


class EnvelopeError(ValueError):
    """A body that can't be read."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of a message: its JSON name and message type; a string without a type."""

    name: str
    message: "_Message | None" = None
    is_map: bool = False


_Message = dict[int, _Field]

_METADATA: _Message = {
    1: _Field("name"),
    2: _Field("generateName"),
    3: _Field("namespace"),
    11: _Field("labels", is_map=True),
    12: _Field("annotations", is_map=True),
}
_RESOURCE_NAMES = ("namespace", "verb", "group", "version", "resource", "subresource", "name")
_ATTRIBUTES: _Message = {
    1: _Field("resourceAttributes", {number: _Field(name) for number, name in enumerate(_RESOURCE_NAMES, 1)}),
    2: _Field("nonResourceAttributes", {1: _Field("path"), 2: _Field("verb")}),
}
_BODIES: dict[str, _Message] = {
    "Namespace": {1: _Field("metadata", _METADATA)},
    "SelfSubjectAccessReview": {1: _Field("metadata", _METADATA), 2: _Field("spec", _ATTRIBUTES)},
    "SelfSubjectRulesReview": {1: _Field("metadata", _METADATA), 2: _Field("spec", {1: _Field("namespace")})},
    "DeleteOptions": {},
}


def decode(body: bytes) -> Json:
    """Decode the object in an envelope (runtime.Unknown). Raises EnvelopeError."""
    if not body.startswith(_MAGIC):
        raise EnvelopeError("the body is not in Kubernetes' protobuf envelope")
    outer = dict(_fields(body[len(_MAGIC) :]))
    kind_of = _read(outer.get(_TYPE_META, b""), {1: _Field("apiVersion"), 2: _Field("kind")})
    kind = kind_of.get("kind", "")
    if kind not in _BODIES:
        raise EnvelopeError(f"no decoder for {kind or 'an object without a kind'}")
    return {**kind_of, **_read(outer.get(_RAW, b""), _BODIES[kind])}


def _read(body: bytes, message: _Message) -> Json:
    """Read the known fields of a message."""
    found: Json = {}
    maps: dict[str, dict[str, str]] = defaultdict(dict)
    for number, value in _fields(body):
        field = message.get(number)
        if field is None or not value:
            continue
        if field.is_map:
            entry = _read(value, {1: _Field("key"), 2: _Field("value")})
            maps[field.name][entry.get("key", "")] = entry.get("value", "")
        else:
            found[field.name] = _value(value, field)
    return found | maps


def _value(value: bytes, field: _Field) -> JsonValue:
    return value.decode() if field.message is None else _read(value, field.message)


def _fields(body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of the length-delimited fields. Skips numbers and booleans."""
    at = 0
    while at < len(body):
        tag, at = _varint(body, at)
        number, wire_type = tag >> 3, tag & 0b111
        if wire_type == _LENGTH_DELIMITED:
            length, at = _varint(body, at)
            yield number, body[at : at + length]
            at += length
        elif wire_type == _VARINT:
            _, at = _varint(body, at)
        elif wire_type in (_FIXED64, _FIXED32):
            at += 8 if wire_type == _FIXED64 else 4
        else:
            raise EnvelopeError(f"unknown wire type {wire_type}")


def _varint(body: bytes, at: int) -> tuple[int, int]:
    number, shift = 0, 0
    while at < len(body):
        byte = body[at]
        number |= (byte & _SEVEN_BITS) << shift
        at += 1
        if not byte & _CONTINUES:
            return number, at
        shift += 7
    raise EnvelopeError("the body is cut short")
