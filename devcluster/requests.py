"""Parses requests: path, body, and the options of a query. Answers nothing."""

import json
import logging
from dataclasses import dataclass

import kmock
import yaml
from aiohttp import web

from devcluster import envelope
from devcluster.api import WriteOptions
from devcluster.deletion import DeleteOptions
from devcluster.errors import bad_request, unsupported_media_type
from devcluster.objects import Json, JsonValue
from devcluster.resources import BY_PATH, Resource

log = logging.getLogger(__name__)

APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Target:
    """The resource, namespace, name and subresource of a path."""

    resource: Resource
    namespace: str
    name: str
    subresource: str


def parse_path(path: str) -> Target | None:
    """Parse a path below `/api/v1` or `/apis/GROUP/VERSION`; None if no resource is served there."""
    parts = path.strip("/").split("/")
    if parts[0] == "apis":
        parts = parts[1:]
    elif parts[0] == "api":
        parts[0] = ""
    else:
        return None
    if len(parts) <= len(("group", "version")):
        return None
    (group, version), rest = parts[:2], parts[2:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > len(("namespaces", "name")) and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    resource = BY_PATH.get((group, version, rest[0]))
    if resource is None:
        return None
    name, subresource, *_ = [*rest[1:], "", ""]
    return Target(resource, namespace, name, subresource)


async def read(raw_request: web.BaseRequest, number: int) -> kmock.Request:
    """Parse a request, for kmock's filters and for us. `number`: its sequence number."""
    body = await raw_request.read()
    try:
        data = json.loads(body) if body else None
    except ValueError:
        data = None
    target = parse_path(raw_request.path)
    resource = target.resource if target else None
    query = dict(raw_request.query)
    return kmock.Request(
        id=number,
        raw_request=raw_request,
        method=raw_request.method,
        url=raw_request.url,
        params=query,
        headers=raw_request.headers,
        cookies=dict(raw_request.cookies),
        body=body,
        text=body.decode(errors="replace"),
        data=data,
        action=_action(raw_request.method, target, query),
        resource=kmock.resource(resource.group, resource.version, resource.plural) if resource else None,
        namespace=(target.namespace or None) if target else None,
        name=(target.name or None) if target else None,
        subresource=(target.subresource or None) if target else None,
    )


def verb_of(request: kmock.Request) -> str:
    """Return Kubernetes' verb of the request; without a resource, the method in lower case."""
    method = request.method.value
    if request.resource is None:
        return str(method).lower()
    if method == "GET":
        names = {kmock.action.WATCH: "watch", kmock.action.LIST: "list"}
        return names.get(request.action, "get") if request.action else "get"
    if method == "DELETE" and not request.name:
        return "deletecollection"
    return {"POST": "create", "PUT": "update"}.get(method, str(method).lower())


def _action(method: str, target: Target | None, query: dict[str, str]) -> kmock.action | None:
    """Return kmock's verb of the request."""
    if target is None:
        return None
    if method == "GET":
        watching = query.get("watch") in ("true", "1")
        return kmock.action.WATCH if watching else kmock.action.FETCH if target.name else kmock.action.LIST
    actions = {"POST": kmock.action.CREATE, "PATCH": kmock.action.UPDATE, "DELETE": kmock.action.DELETE}
    return actions.get(method)


def body_of(request: kmock.Request) -> Json:
    """Parse the body: JSON, YAML or, for some kinds, protobuf. Raises BadRequest, UnsupportedMediaType."""
    sent: JsonValue = request.data
    if not isinstance(sent, dict):
        sent = _decoded(request)
    if not isinstance(sent, dict):
        raise bad_request("the object provided is unrecognized (must be of type Object)")
    return sent


def _decoded(request: kmock.Request) -> JsonValue:
    if media_type(request) == envelope.MEDIA_TYPE:
        try:
            return envelope.decode(request.body)
        except envelope.EnvelopeError as error:
            log.info("%s %s: %s", request.method, request.url.path, error)
            raise unsupported_media_type(["application/json", "application/yaml"]) from None
    try:
        return yaml.safe_load(request.body)
    except yaml.YAMLError as error:
        raise bad_request(f"error decoding YAML: {error}") from None


def media_type(request: kmock.Request) -> str:
    """Return the content type of the body without its parameters."""
    return request.headers.get("Content-Type", "").partition(";")[0].strip()


def write_options(request: kmock.Request, target: Target) -> WriteOptions:
    """Parse the options of a write. The default field manager of an update is from the user agent."""
    query = request.params
    manager = query.get("fieldManager", "")
    if not manager and media_type(request) != APPLY_PATCH:
        manager = request.headers.get("User-Agent", "unknown").partition("/")[0]
    return WriteOptions(
        manager,
        force=query.get("force") == "true",
        dry_run=query.get("dryRun") == "All",
        validation=query.get("fieldValidation", "Warn"),
        subresource=target.subresource,
    )


def delete_options(request: kmock.Request) -> DeleteOptions:
    """Parse the options of a delete from body and query."""
    sent = body_of(request) if request.body else {}
    query = request.params
    grace = query.get("gracePeriodSeconds", sent.get("gracePeriodSeconds"))
    preconditions = sent.get("preconditions") or {}
    if (grace is not None and not str(grace).lstrip("-").isdigit()) or not isinstance(preconditions, dict):
        raise bad_request("DeleteOptions: a field is not of its type")
    sent = {**sent, "gracePeriodSeconds": None if grace is None else int(grace), "preconditions": preconditions}
    return DeleteOptions.read(sent, dry_run=query.get("dryRun") == "All")
