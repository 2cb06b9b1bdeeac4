"""The floor: the service's own objects, by the API server's own HTTP interface, without the service.

The objects are rendered by the service's code, from this process's environment: it must be the provisioner's, which
`check_same_objects` makes sure of.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from provisioner import TEMPLATE
from sandboxes import objects as kube
from sandboxes.kubectl.client import FIELD_MANAGER
from sandboxes.service.create import now
from sandboxes.spec import manifests
from sandboxes.spec.templates import load_template
from scripts.bench.client import BenchError, Client, WrongAnswer
from scripts.bench.figures import DIRECT
from scripts.bench.targets import THREAD_ID

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from scripts.bench.client import Answer

APPLY_PATCH = "application/apply-patch+yaml"

_JSON = "application/json"
_USER_ID = "default"
_APPLY = urlencode({"fieldManager": FIELD_MANAGER, "force": "true"})
_SANDBOXES = urlencode({"labelSelector": f"{kube.APP_LABEL}={kube.APP}"})
_DELETE = json.dumps({"propagationPolicy": "Background"}).encode()  # as kubectl does


class DirectTarget:
    """The same work straight to the API server; each call is two requests, one after the other."""

    name = DIRECT

    def __init__(self, client: Client, settings: Settings) -> None:
        self._client = client
        self._settings = settings
        self._template = load_template(Path(TEMPLATE))
        self._root = f"/api/v1/namespaces/{settings.k8s_namespace}"
        self.made: set[str] = set()
        self._bodies: dict[str, tuple[bytes, bytes]] = {}

    def prepare(self, sandbox_ids: Iterable[str]) -> None:
        """Render what will be applied: a create is timed without it."""
        for sandbox_id in sandbox_ids:
            pod, service = (json.dumps(obj).encode() for obj in self.render(sandbox_id))
            self._bodies[sandbox_id] = (pod, service)

    def render(self, sandbox_id: str) -> list[KubeObject]:
        """Return the Pod and the Service that the service would apply."""
        sandbox = manifests.Sandbox(sandbox_id, THREAD_ID, _USER_ID)
        return manifests.build(sandbox, self._template, self._settings, applied_at=now())

    async def open_connections(self, count: int) -> None:
        """Have so many connections open."""
        await self._client.open_connections(count, "/version")

    async def create(self, sandbox_id: str) -> float:
        """Apply Pod and Service; the Service's answer has the node port already (kubectl.md, 4)."""
        self.made.add(sandbox_id)
        pod_path, service_path = self._paths(sandbox_id)
        pod_body, service_body = self._bodies.pop(sandbox_id)
        pod = await self._client.send("PATCH", f"{pod_path}?{_APPLY}", pod_body, APPLY_PATCH)
        service = await self._client.send("PATCH", f"{service_path}?{_APPLY}", service_body, APPLY_PATCH)
        return _checked(sandbox_id, pod, service)

    async def get(self, sandbox_id: str) -> float:
        """Read Pod and Service."""
        pod_path, service_path = self._paths(sandbox_id)
        pod = await self._client.send("GET", pod_path)
        service = await self._client.send("GET", service_path)
        return _checked(sandbox_id, pod, service)

    async def list_all(self, sandbox_ids: frozenset[str]) -> float:
        """Read all Pods and all Services of sandboxes; both of these must be among them."""
        pods, services = await self._list()
        for answer in (pods, services):
            if not sandbox_ids <= _ids(answer):
                raise answer.wrong()
        return pods.seconds + services.seconds

    async def delete(self, sandbox_id: str) -> float:
        """Delete Pod and Service, without waiting until they are gone."""
        pod_path, service_path = self._paths(sandbox_id)
        pod = await self._client.send("DELETE", pod_path, _DELETE, _JSON)
        service = await self._client.send("DELETE", service_path, _DELETE, _JSON)
        for answer in (pod, service):
            answer.json()
        self.made.discard(sandbox_id)
        return pod.seconds + service.seconds

    async def listed(self) -> set[str]:
        """Return the ids of all sandboxes of which anything is there, be it on its way out."""
        pods, services = await self._list()
        return _ids(pods) | _ids(services)

    async def remove(self, sandbox_id: str) -> float:
        """Delete whatever there is of a sandbox, whoever made it; no answer is checked."""
        answers = [await self._client.send("DELETE", path, _DELETE, _JSON) for path in self._paths(sandbox_id)]
        return sum(answer.seconds for answer in answers)

    async def check_same_objects(self, sandbox_id: str) -> None:
        """Raise BenchError unless the sandbox, made by the provisioner, is what would be made here."""
        pod_path, service_path = self._paths(sandbox_id)
        try:
            pod = (await self._client.send("GET", pod_path)).json()
            service = (await self._client.send("GET", service_path)).json()
        except WrongAnswer as error:
            raise BenchError(
                "The provisioner made a sandbox that the API server of --direct does not show: is it the same cluster, "
                f"and K8S_NAMESPACE ({self._settings.k8s_namespace} here) the provisioner's? {error}"
            ) from error
        our_pod, our_service = self.render(sandbox_id)
        same_pod = manifests.revision_of(pod) == manifests.revision_of(our_pod)
        if not same_pod or service["spec"]["type"] != our_service["spec"]["type"]:
            raise BenchError(
                "The provisioner makes other objects than --direct would: set here the variables of its environment "
                "that say what a sandbox is (SANDBOX_IMAGE, SANDBOX_SERVICE_TYPE, …), and use the same manifests/."
            )

    async def _list(self) -> tuple[Answer, Answer]:
        pods = await self._client.send("GET", f"{self._root}/pods?{_SANDBOXES}")
        return pods, await self._client.send("GET", f"{self._root}/services?{_SANDBOXES}")

    def _paths(self, sandbox_id: str) -> tuple[str, str]:
        pod, service = kube.pod_name(sandbox_id), kube.service_name(sandbox_id)
        return f"{self._root}/pods/{pod}", f"{self._root}/services/{service}"


def _checked(sandbox_id: str, pod: Answer, service: Answer) -> float:
    """Return how long both took; raises WrongAnswer unless they are this sandbox's."""
    names = (kube.pod_name(sandbox_id), kube.service_name(sandbox_id))
    for answer, name in zip((pod, service), names, strict=True):
        if answer.json().get("metadata", {}).get("name") != name:
            raise answer.wrong()
    return pod.seconds + service.seconds


def _ids(answer: Answer) -> set[str]:
    return {kube.get_labels(obj).get(kube.ID_LABEL, "") for obj in answer.json().get("items") or []}
