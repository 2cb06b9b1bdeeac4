"""Sandboxes on another port than today's settings say: adopted, healed, and reached where their Service says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.contract.views import is_status
from tests.kubectl import Kubectl

POD = ("Pod", "deer-flow", "sandbox-a")
SERVICE = ("Service", "deer-flow", "sandbox-a-svc")
LABELS = {"app": "deer-flow-sandbox", "sandbox-id": "a"}
IN_CLUSTER = "http://sandbox-a-svc.deer-flow.svc.cluster.local"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_reaper")]


def a_pod(port: int = 9000) -> dict[str, Any]:
    """A Pod as DeerFlow's provisioner makes it."""
    probe = {"httpGet": {"path": "/v1/sandbox", "port": port}}
    container = {
        "name": "sandbox",
        "image": "sandbox:1",
        "ports": [{"name": "http", "containerPort": port, "protocol": "TCP"}],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "volumeMounts": [{"name": "user-data", "mountPath": "/mnt/user-data"}],
    }
    volume = {"name": "user-data", "hostPath": {"path": "/threads/t/user-data", "type": "DirectoryOrCreate"}}
    spec = {"containers": [container], "volumes": [volume]}
    meta = {"name": "sandbox-a", "namespace": "deer-flow", "labels": LABELS}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def a_service(*ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A Service as DeerFlow's provisioner makes it, by default on port 9000."""
    own = {"name": "http", "port": 9000, "targetPort": 9000, "protocol": "TCP"}
    meta = {"name": "sandbox-a-svc", "namespace": "deer-flow", "labels": LABELS}
    made = {"type": "NodePort", "selector": {"sandbox-id": "a"}, "ports": list(ports) or [own], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": made}


async def made(kubectl: Kubectl, *objects: dict[str, Any]) -> None:
    """Create the objects as another client than the service; its fields are not the service's."""
    result = await kubectl("create", "-f", "-", stdin={"apiVersion": "v1", "kind": "List", "items": list(objects)})
    assert result.rc == 0, result.stderr


def ports(cluster: Cluster) -> list[dict[str, Any]]:
    """The ports of the sandbox's Service."""
    service = cluster.get(*SERVICE)
    assert service is not None
    found: list[dict[str, Any]] = service["spec"]["ports"]
    return found


async def is_seen(provisioner: Provisioner, index: int) -> bool:
    """Whether the live view has the Pod (0) or the Service (1)."""
    return provisioner.view.sandbox("a")[index] is not None


def uid(cluster: Cluster, key: tuple[str, str, str]) -> str:
    obj = cluster.get(*key)
    assert obj is not None
    return str(obj["metadata"]["uid"])


@pytest.mark.parametrize("container_port", ["9000", "8080"])
@pytest.mark.parametrize("kind", ["NodePort", "ClusterIP"])
async def test_a_predecessors_pair_on_another_port_is_adopted_with_its_url(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, kind: str, container_port: str
) -> None:
    provisioner = await start_provisioner(
        THREADS_HOST_PATH="/threads", SANDBOX_SERVICE_TYPE=kind, SANDBOX_CONTAINER_PORT=container_port
    )
    await made(kubectl, a_pod(), a_service(type=kind))
    before = ports(cluster)
    adopted = await create(provisioner, thread_id="t")
    assert ports(cluster) == before
    url = f"{IN_CLUSTER}:9000" if kind == "ClusterIP" else f"http://127.0.0.1:{before[0]['nodePort']}"
    assert adopted["sandbox_url"] == url
    assert (await (await provisioner.get(f"{URL}/a")).json())["sandbox_url"] == url
    service = cluster.get(*SERVICE)
    assert service is not None
    assert service["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "sandbox-provisioner"


@pytest.mark.parametrize("kind", ["NodePort", "ClusterIP"])
async def test_a_missing_service_is_made_with_the_port_of_its_pod(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, kind: str
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads", SANDBOX_SERVICE_TYPE=kind)
    await made(kubectl, a_pod())
    await until(lambda: is_seen(provisioner, 0))
    completed = await create(provisioner, thread_id="t")
    (port,) = ports(cluster)
    assert (port["name"], port["port"], port["targetPort"]) == ("http", 9000, 9000)
    url = f"{IN_CLUSTER}:9000" if kind == "ClusterIP" else f"http://127.0.0.1:{port['nodePort']}"
    assert completed["sandbox_url"] == url


async def test_a_sandbox_keeps_its_port_when_the_setting_changes(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    old = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP", SANDBOX_CONTAINER_PORT="9000")
    before = await create(old)
    new = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP", SANDBOX_CONTAINER_PORT="8080")
    assert (await create(new))["sandbox_url"] == before["sandbox_url"] == f"{IN_CLUSTER}:9000"
    assert (await kubectl("delete", "service/sandbox-a-svc", "-n", "deer-flow")).rc == 0
    await until(lambda: is_status(new, "a", 404))
    assert (await create(new))["sandbox_url"] == f"{IN_CLUSTER}:9000"
    assert ports(cluster)[0]["targetPort"] == 9000


async def test_a_service_that_has_lost_its_pod_keeps_its_port_and_leads_to_the_new_pod(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    provisioner = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP")
    await made(kubectl, a_service())
    await until(lambda: is_seen(provisioner, 1))
    completed = await create(provisioner)
    assert completed["sandbox_url"] == f"{IN_CLUSTER}:9000"
    assert [(port["port"], port["targetPort"]) for port in ports(cluster)] == [(9000, 8080)]


async def test_a_service_that_the_live_view_has_not_seen_is_no_refusal(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioner = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP")
    await made(kubectl, a_service())
    # As if the watch had not told of it yet.
    monkeypatch.setattr(type(provisioner.view), "is_certain", lambda *_: True)
    monkeypatch.setattr(type(provisioner.view), "sandbox", lambda *_: (None, None))
    completed = await create(provisioner)
    assert completed["sandbox_url"] == f"{IN_CLUSTER}:9000"
    assert [(port["port"], port["targetPort"]) for port in ports(cluster)] == [(9000, 8080)]


async def test_a_service_that_leads_to_no_port_of_its_pod_is_mended(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, template: Template
) -> None:
    # Two replicas at once, before and after a change of the setting: one made the Pod, the other the Service.
    provisioner = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP", SANDBOX_CONTAINER_PORT="9000")
    await create(provisioner)
    other = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP", SANDBOX_CONTAINER_PORT="8080")
    _, service = build(Sandbox("a", "a", "default"), template, Settings.load(), applied_at="2026-01-01T00:00:00Z")
    assert (await kubectl.apply(service)).rc == 0
    assert [port["targetPort"] for port in ports(cluster)] == [8080]
    await until(lambda: leads_to(other, 8080))
    await create(other)
    assert [port["targetPort"] for port in ports(cluster)] == [9000]


async def leads_to(provisioner: Provisioner, target: int) -> bool:
    """Whether the live view has the Service with this target."""
    service = provisioner.view.sandbox("a")[1]
    return service is not None and service["spec"]["ports"][0]["targetPort"] == target


@pytest.mark.parametrize(
    "there",
    [
        a_service({"name": "web", "port": 80, "targetPort": "http"}),
        a_service({"port": 80, "targetPort": 9000}),
        a_service({"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "web", "port": 80, "targetPort": 9000}),
        a_service({"name": "metrics", "port": 8080}, {"name": "http", "port": 80, "targetPort": 9000}),
    ],
    ids=["a name of its own", "no name", "beside UDP", "our number is another's"],
)
@pytest.mark.parametrize("kind", ["NodePort", "ClusterIP"])
async def test_a_service_made_by_hand_with_other_ports_is_adopted_with_its_own(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl, there: Any, kind: str
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads", SANDBOX_SERVICE_TYPE=kind)
    await made(kubectl, a_pod(), there)
    await until(lambda: is_seen(provisioner, 0))
    await until(lambda: is_seen(provisioner, 1))
    key = ("port", "targetPort", "protocol")
    before = [tuple(port.get(field) for field in key) for port in ports(cluster)]
    adopted = await create(provisioner, thread_id="t")
    assert [tuple(port.get(field) for field in key) for port in ports(cluster)] == before
    (port,) = [port for port in ports(cluster) if port["port"] == 80]
    url = f"{IN_CLUSTER}:80" if kind == "ClusterIP" else f"http://127.0.0.1:{port['nodePort']}"
    assert adopted["sandbox_url"] == url


async def test_a_sandbox_survives_a_change_of_the_service_type_and_back(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    inside = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP", SANDBOX_CONTAINER_PORT="9000")
    first = await create(inside)
    before = uid(cluster, POD)
    outside = await start_provisioner(SANDBOX_SERVICE_TYPE="NodePort", SANDBOX_CONTAINER_PORT="8080")
    assert (await outside.get(f"{URL}/a")).status == 404
    opened = await create(outside)
    assert opened["sandbox_url"] == f"http://127.0.0.1:{ports(cluster)[0]['nodePort']}"
    assert ports(cluster)[0]["targetPort"] == 9000
    again = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP", SANDBOX_CONTAINER_PORT="8080")
    assert (await create(again))["sandbox_url"] == first["sandbox_url"]
    assert uid(cluster, POD) == before


async def test_a_headless_service_is_replaced_where_node_ports_are_asked_for(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads")
    await made(kubectl, a_pod(), a_service(type="ClusterIP", clusterIP="None"))
    pod, service = uid(cluster, POD), uid(cluster, SERVICE)
    opened = await create(provisioner, thread_id="t")
    assert opened["sandbox_url"] == f"http://127.0.0.1:{ports(cluster)[0]['nodePort']}"
    assert (uid(cluster, POD), uid(cluster, SERVICE) == service) == (pod, False)


async def test_a_headless_services_url_is_the_port_of_the_pod(
    start_provisioner: StartProvisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    provisioner = await start_provisioner(THREADS_HOST_PATH="/threads", SANDBOX_SERVICE_TYPE="ClusterIP")
    await made(
        kubectl,
        a_pod(),
        a_service({"name": "http", "port": 80, "targetPort": "http"}, clusterIP="None", type="ClusterIP"),
    )
    service = uid(cluster, SERVICE)
    assert (await create(provisioner, thread_id="t"))["sandbox_url"] == f"{IN_CLUSTER}:9000"
    assert uid(cluster, SERVICE) == service


def template_folder(tmp_path: Path, *, pod: str = "- name: http\n", service: str = "- name: http\n") -> Path:
    """Write a template `web`: the shipped one with these lines in place of its ports' names; return what holds it."""
    folder = tmp_path / "templates" / "web"
    folder.mkdir(parents=True)
    shipped = Path(__file__).parents[2] / "manifests" / "sandbox"
    for name, lines in (("pod.yaml", pod), ("service.yaml", service)):
        (folder / name).write_text((shipped / name).read_text().replace("- name: http\n", lines))
    return folder.parent


@pytest.mark.starts_in_full
async def test_a_templates_ports_by_other_names_start_and_keep_their_fields(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    folder = template_folder(
        tmp_path, pod="- name: web\n          hostPort: 18080\n", service="- name: web\n      appProtocol: http\n"
    )
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(folder))
    answer = await create(provisioner, template="web")
    made_pod = cluster.get(*POD)
    assert made_pod is not None
    assert made_pod["spec"]["containers"][0]["ports"] == [
        {"name": "web", "hostPort": 18080, "containerPort": 8080, "protocol": "TCP"}
    ]
    (port,) = ports(cluster)
    assert (port["name"], port["appProtocol"], port["targetPort"]) == ("web", "http", 8080)
    assert answer["sandbox_url"] == f"http://127.0.0.1:{port['nodePort']}"


async def test_a_templates_node_port_is_kept_and_said_to_be_taken_when_it_is(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path
) -> None:
    first = await start_provisioner()
    await create(first)
    number = ports(cluster)[0]["nodePort"]
    folder = template_folder(tmp_path, service=f"- name: http\n      nodePort: {number}\n")
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(folder))
    refused = await provisioner.post(URL, json={"sandbox_id": "b", "template": "web"})
    assert refused.status == 502
    assert (await refused.json())["detail"] == "The node port that the template asks for is taken"
    assert (await first.delete(f"{URL}/a")).status == 200
    answer = await create(provisioner, "b", template="web")
    assert answer["sandbox_url"] == f"http://127.0.0.1:{number}"
