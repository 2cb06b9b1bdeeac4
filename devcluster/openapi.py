"""Serves the schema as OpenAPI for kubectl's validation: v2 as protobuf (`apply-strict`) or JSON, v3 as JSON.

The documents contain only what kubectl reads: definitions, and for each kind a PATCH with the parameter
`fieldValidation`. Field numbers are those of gnostic's OpenAPIv2.proto.
"""

import hashlib
import json
from functools import cached_property

import kmock
from aiohttp import web

from devcluster.errors import no_such_path
from devcluster.objects import Json
from devcluster.resources import RESOURCES, Resource
from devcluster.schema import Schema
from devcluster.store import compact

_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_V2_ASKED = ("application/com.github.proto-openapi.spec.v2@v1.0+protobuf", _V2_PROTOBUF)
_QUERY = ("fieldManager", "fieldValidation", "force", "dryRun")
_LENGTH_DELIMITED = 2
_CONTINUES = 0x80
_SEVEN_BITS = 0x7F
_INFO = {"title": "Kubernetes", "version": "v1.36.2"}


class OpenApi:
    """The documents, each built at its first request."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def respond(self, path: str, request: kmock.Request) -> web.Response:
        """Answer for a path below `/openapi/`. Raises NotFound."""
        accept = request.headers.get("Accept", "")
        if path == "/openapi/v2":
            if any(media_type in accept for media_type in _V2_ASKED):
                return _document(self._v2_protobuf, _V2_PROTOBUF, request)
            return _document(compact(self._v2), "application/json", request)
        if path == "/openapi/v3":
            paths = {f"{_root(group)}": f"/openapi/v3/{_root(group)}" for group in _groups()}
            index = {name: {"serverRelativeURL": f"{url}?hash={self._hash}"} for name, url in paths.items()}
            return _document(compact({"paths": index}), "application/json", request)
        for group in _groups():
            if path == f"/openapi/v3/{_root(group)}":
                return _document(compact(self._v3(group)), "application/json", request)
        raise no_such_path()

    @cached_property
    def _hash(self) -> str:
        return hashlib.sha512(compact(self._schema.definitions)).hexdigest().upper()

    @cached_property
    def _v2(self) -> Json:
        paths = {_object_path(resource): _path_item(resource) for resource in RESOURCES if resource.stored}
        definitions = self._schema.definitions
        return {"swagger": "2.0", "info": _INFO, "paths": paths, "definitions": definitions}

    @cached_property
    def _v2_protobuf(self) -> bytes:
        document = self._v2
        info = _string(1, _INFO["title"]) + _string(2, _INFO["version"])
        paths = b"".join(_named(2, path, _pb_path_item(item)) for path, item in document["paths"].items())
        definitions = b"".join(_named(1, name, _pb_schema(body)) for name, body in document["definitions"].items())
        return _string(1, "2.0") + _message(2, info) + _message(8, paths) + _message(9, definitions)

    def _v3(self, group: tuple[str, str]) -> Json:
        served = [r for r in RESOURCES if r.stored and (r.group, r.version) == group]
        paths = {_object_path(resource): _path_item(resource, v3=True) for resource in served}
        text = json.dumps(self._schema.definitions).replace('"#/definitions/', '"#/components/schemas/')
        return {"openapi": "3.0.0", "info": _INFO, "paths": paths, "components": {"schemas": json.loads(text)}}


def _document(body: bytes, media_type: str, request: kmock.Request) -> web.Response:
    """Answer with a document, or with 304 if the client's copy is current."""
    tag = f'"{hashlib.sha512(body).hexdigest().upper()}"'
    headers = {"Cache-Control": "no-cache, private", "Content-Type": media_type, "Etag": tag, "Vary": "Accept"}
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers)


def _groups() -> list[tuple[str, str]]:
    return list(dict.fromkeys((resource.group, resource.version) for resource in RESOURCES if resource.stored))


def _root(group: tuple[str, str]) -> str:
    return f"apis/{group[0]}/{group[1]}" if group[0] else f"api/{group[1]}"


def _object_path(resource: Resource) -> str:
    namespace = "/namespaces/{namespace}" if resource.namespaced else ""
    return f"/{_root((resource.group, resource.version))}{namespace}/{resource.plural}/{{name}}"


def _path_item(resource: Resource, *, v3: bool = False) -> Json:
    """Describe the PATCH of a kind, whose parameters tell kubectl that the server validates fields."""
    typed: Json = {"schema": {"type": "string", "uniqueItems": True}} if v3 else {"type": "string", "uniqueItems": True}
    kind = {"group": resource.group, "kind": resource.kind, "version": resource.version}
    return {
        "patch": {
            "parameters": [{"name": name, "in": "query", **typed} for name in _QUERY],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": kind,
        }
    }


def _pb_path_item(item: Json) -> bytes:
    operation = item["patch"]
    out = b""
    for parameter in operation["parameters"]:
        query = _string(2, "query") + _string(4, parameter["name"]) + _string(6, "string")
        out += _message(8, _message(1, _message(2, _message(3, query))))
    response = _message(1, _string(1, "OK"))
    out += _message(9, _named(1, "200", response))
    out += _pb_extensions(13, operation)
    return _message(7, out)


def _pb_schema(schema: Json) -> bytes:
    """Encode a Schema message: references, types, items, properties and the x-kubernetes extensions."""
    out = b""
    if "$ref" in schema:
        out += _string(1, schema["$ref"])
    if "format" in schema:
        out += _string(2, schema["format"])
    if "default" in schema:
        out += _message(5, _string(2, json.dumps(schema["default"])))
    for name in schema.get("required", ()):
        out += _string(19, name)
    if "additionalProperties" in schema:
        out += _message(21, _message(1, _pb_schema(schema["additionalProperties"])))
    if "type" in schema:
        out += _message(22, _string(1, schema["type"]))
    if "items" in schema:
        out += _message(23, _message(1, _pb_schema(schema["items"])))
    if "properties" in schema:
        out += _message(25, b"".join(_named(1, n, _pb_schema(child)) for n, child in schema["properties"].items()))
    return out + _pb_extensions(31, schema)


def _pb_extensions(field: int, described: Json) -> bytes:
    extensions = {name: value for name, value in described.items() if name.startswith("x-")}
    return b"".join(_named(field, name, _string(2, json.dumps(value))) for name, value in extensions.items())


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > _SEVEN_BITS:
        out.append(number & _SEVEN_BITS | _CONTINUES)
        number >>= 7
    out.append(number)
    return bytes(out)


def _message(field: int, body: bytes) -> bytes:
    """Encode a field with a message or other bytes."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(len(body)) + body


def _string(field: int, text: str) -> bytes:
    """Encode a string field."""
    return _message(field, text.encode())


def _named(field: int, name: str, value: bytes) -> bytes:
    """Encode one entry of a map, in gnostic's messages a name (1) and a value (2)."""
    return _message(field, _string(1, name) + _message(2, value))
