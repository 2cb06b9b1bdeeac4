"""The HTTP server: dispatches requests to verbs, and builds the responses. Based on kmock.

kmock records the requests, and lets a test answer matching requests with a canned answer or a fault. All others are
answered from the store. Knows no kind's rules.
"""

import hmac
import json
import logging
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING

import kmock
from aiohttp import web

from devcluster import audit, discovery
from devcluster.api import MERGE_PATCH, Api
from devcluster.authorization import Authorization
from devcluster.deletion import Deletion
from devcluster.errors import ApiError, internal, no_such_path, not_allowed, unauthorized, unsupported_media_type
from devcluster.faults import Rules
from devcluster.listing import Listing
from devcluster.logs import Logs
from devcluster.objects import Json
from devcluster.openapi import OpenApi
from devcluster.queries import ListOptions, is_watch
from devcluster.requests import (
    APPLY_PATCH,
    Target,
    body_of,
    delete_options,
    media_type,
    parse_path,
    read,
    verb_of,
    write_options,
)
from devcluster.resources import ACCESS_REVIEWS, NAMESPACES, PODS, Resource
from devcluster.responses import UNCACHED, WatchResponse, respond, written
from devcluster.store import compact
from devcluster.watches import Watches

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

HEALTH_PATHS = ("/healthz", "/livez", "/readyz")
REMEMBERED_REQUESTS = 1000
"""Number of requests that are kept for tests. kmock itself would keep all."""

_PATCHES = [MERGE_PATCH, APPLY_PATCH]


class ApiServer(kmock.KubernetesScaffold):
    """The handler behind the port."""

    def __init__(  # noqa: PLR0913, PLR0917 - it is where everything comes together
        self,
        api: Api,
        deletion: Deletion,
        listing: Listing,
        watches: Watches,
        logs: Logs,
        openapi: OpenApi,
        token: str,
    ) -> None:
        super().__init__()
        self.rules = Rules()
        self.authorization = Authorization()
        self._logs = logs
        self._requests = deque(maxlen=REMEMBERED_REQUESTS)  # type: ignore[assignment]  # kmock only appends and reads
        self._served = 0
        self._api = api
        self._deletion = deletion
        self._listing = listing
        self._watches = watches
        self._openapi = openapi
        self._token = token

    def __attrs_post_init__(self) -> None:
        """Disable kmock's own discovery; ours follows the record."""

    @property
    def requests(self) -> list[kmock.Request]:
        """The last requests, oldest first."""
        return list(self._requests)

    async def __call__(self, raw_request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request: check credentials, then apply faults, then call the API.

        Replaces kmock's own method, which can't parse the path `/api/v1/namespaces`.
        """
        request = await read(raw_request, self._served)
        self._served += 1
        self._requests.append(request)
        audit.note(request)
        return await self.rules.serve(request, raw_request.transport, self._respond)

    async def _respond(self, request: kmock.Request) -> web.StreamResponse:
        try:
            self._authenticate(request)
            self.authorization.require_impersonation(request.headers.get("Impersonate-User", ""))
            if self._payloads:
                try:
                    return await self._handle(request)
                except NotImplementedError:
                    log.debug("nothing canned for %s %s", request.method, request.url)
            return self._serve(request)
        except ApiError as refused:
            response = respond(compact(refused.status()), refused.code)
            if refused.retry_after:
                response.headers["Retry-After"] = str(refused.retry_after)
            return response
        except kmock.KubernetesError as canned:
            return await self._render_error(canned)
        except Exception as error:
            log.exception("%s %s", request.method, request.url)
            failure = internal(repr(error))
            return respond(compact(failure.status()), failure.code)

    def _authenticate(self, request: kmock.Request) -> None:
        """Refuse a wrong token (`unauthorized`). Not checked without TLS: kubectl never sends tokens in the clear."""
        given = request.headers.get("Authorization", "")
        if not self._token or (not given and request.url.path.startswith((*HEALTH_PATHS, "/version"))):
            return
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise unauthorized()

    def _serve(self, request: kmock.Request) -> web.StreamResponse:
        path = request.url.path.rstrip("/")
        method = request.method.value
        if method == "GET":
            answer = self._serve_document(path, request)
            if answer is not None:
                return answer
        target = parse_path(path)
        if target is None:
            raise no_such_path()
        # Rights on a namespace are checked within that namespace, as in Kubernetes' RequestInfo.
        scope = target.name if target.resource is NAMESPACES else target.namespace
        self.authorization.require(verb_of(request), target.resource, scope, target.name, target.subresource)
        verbs: dict[str, Callable[[Target, kmock.Request], web.StreamResponse]] = {
            "GET": self._get if target.name else self._list,
            "POST": self._create,
            "PATCH": self._patch,
            "PUT": self._update,
            "DELETE": self._delete if target.name else self._delete_collection,
        }
        if method not in verbs or (method == "POST" and target.name):
            raise not_allowed(target.resource)
        if (target.resource, target.subresource, method) == (PODS, "log", "GET"):
            text = self._logs.read((target.namespace, target.name), request.params)
            return web.Response(text=text, headers=UNCACHED)
        if target.subresource not in ("", "status") or (target.subresource and not target.resource.has_status):
            raise no_such_path()
        return verbs[method](target, request)

    def _serve_document(self, path: str, request: kmock.Request) -> web.StreamResponse | None:
        """Answer a path without a resource: health, version, discovery, OpenAPI."""
        if path.startswith(HEALTH_PATHS):
            return web.Response(text="ok", headers=UNCACHED)
        if path == "/version":
            return respond(compact(discovery.VERSION))
        if path.startswith("/openapi/"):
            return self._openapi.respond(path, request)
        if path in ("/api", "/apis"):
            version = discovery.aggregated_version(request.headers.get("Accept", ""))
            if version:
                document = discovery.aggregated(version, core=path == "/api")
                return respond(compact(document), media_type=discovery.aggregated_media_type(version))
        document_or_none = discovery.legacy(path, request.headers.get("Host", ""))
        return None if document_or_none is None else respond(compact(document_or_none))

    def _get(self, target: Target, request: kmock.Request) -> web.StreamResponse:
        if not target.resource.stored:
            raise not_allowed(target.resource)
        if is_watch(request.params):
            query = {**request.params, "fieldSelector": f"metadata.name={target.name}"}
            return self._watch(target, query)
        return respond(self._api.get(target.resource, target.namespace, target.name).body())

    def _list(self, target: Target, request: kmock.Request) -> web.StreamResponse:
        if not target.resource.stored:
            raise not_allowed(target.resource)
        if is_watch(request.params):
            return self._watch(target, dict(request.params))
        options = ListOptions.read(target.resource, dict(request.params))
        return respond(self._listing.list(target.resource, target.namespace, options))

    def _watch(self, target: Target, query: dict[str, str]) -> web.StreamResponse:
        options = ListOptions.read(target.resource, query, watch_list=self._watches.watch_list)
        return WatchResponse(self._watches, target, options)

    def _create(self, target: Target, request: kmock.Request) -> web.StreamResponse:
        sent = body_of(request)
        if not target.resource.stored:
            return respond(compact(self._reviewed(target.resource, sent)), HTTPStatus.CREATED)
        _check_verb(target.resource, "create")
        return written(self._api.create(target.resource, target.namespace, sent, write_options(request, target)))

    def _patch(self, target: Target, request: kmock.Request) -> web.StreamResponse:
        _check_verb(target.resource, "patch")
        sent_as = media_type(request)
        if sent_as not in _PATCHES:
            raise unsupported_media_type(_PATCHES)
        options = write_options(request, target)
        sent = body_of(request)
        if sent_as == APPLY_PATCH:
            if self._api.store.get(target.resource, target.namespace, target.name) is None:
                # An apply that creates an object needs both rights (kubectl.md 14).
                audit.note(request, "create")
                self.authorization.require("create", target.resource, target.namespace, target.name)
            return written(self._api.apply(target.resource, target.namespace, target.name, sent, options))
        key = (target.namespace, target.name)
        return written(self._api.patch(target.resource, key, sent, options))

    def _update(self, target: Target, request: kmock.Request) -> web.StreamResponse:
        _check_verb(target.resource, "update")
        key = (target.namespace, target.name)
        return written(self._api.update(target.resource, key, body_of(request), write_options(request, target)))

    def _delete(self, target: Target, request: kmock.Request) -> web.StreamResponse:
        _check_verb(target.resource, "delete")
        options = delete_options(request)
        return respond(compact(self._deletion.delete(target.resource, target.namespace, target.name, options)))

    def _delete_collection(self, target: Target, request: kmock.Request) -> web.StreamResponse:
        _check_verb(target.resource, "deletecollection")
        options = ListOptions.read(target.resource, dict(request.params))
        listed = self._listing.list(target.resource, target.namespace, options)
        for item in json.loads(listed)["items"]:
            meta = item["metadata"]
            self._deletion.delete(target.resource, meta["namespace"], meta["name"], delete_options(request))
        return respond(listed)

    def _reviewed(self, resource: Resource, review: Json) -> Json:
        """Answer a review of the caller's rights."""
        spec = review.get("spec") or {}
        head = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {}}
        if resource is ACCESS_REVIEWS:
            return {**head, "spec": spec, "status": self.authorization.access_review(spec)}
        # Without the requested namespace (`rules-review-role`).
        return {**head, "spec": {}, "status": self.authorization.rules_review(spec)}


def _check_verb(resource: Resource, verb: str) -> None:
    if verb not in resource.verbs:
        raise not_allowed(resource)
