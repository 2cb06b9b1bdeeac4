"""The port of a sandbox: completed in a template, found in a Service, kept by what is applied onto one."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import devcluster
from sandboxes import objects as kube
from sandboxes.errors import StartupError
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.ports import fitted, must_be_replaced
from sandboxes.spec.templates import Template
from tests.unit.manifests import sandbox_url

MakeSettings = Callable[..., Settings]

AT = "2026-01-01T00:00:00Z"
HTTP_8080 = {"name": "http", "containerPort": 8080, "protocol": "TCP"}


def changed(template: Template, *, pod_ports: Any = None, service: Any = None) -> Template:
    """Return the template with other ports in its container, and other fields in its Service's spec."""
    pod, made = copy.deepcopy(template.pod), copy.deepcopy(template.service)
    if pod_ports is not None:
        kube.sandbox_container(pod)["ports"] = pod_ports
    made["spec"].update(service or {})
    return replace(template, pod=pod, service=made)


def built(template: Template, settings: Settings) -> tuple[Any, Any]:
    pod, service = build(Sandbox("a", "t", "u"), template, settings, applied_at=AT)
    return pod, service


def a_service(*ports: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A Service as the cluster has it; each port has a node port."""
    stored = [{"protocol": "TCP", "nodePort": 30500 + index, **port} for index, port in enumerate(ports)]
    return {
        "kind": "Service",
        "metadata": {"name": "sandbox-a-svc", "namespace": "deer-flow"},
        "spec": {"type": "NodePort", "clusterIP": "10.0.0.9", "ports": stored, **spec},
    }


def a_pod(*ports: dict[str, Any], **probes: Any) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {}, "spec": {"containers": [{"name": "sandbox", "ports": [*ports], **probes}]}}


# A template's container


@pytest.mark.parametrize(
    ("written", "completed"),
    [
        ([], [HTTP_8080]),
        ([{"name": "web", "containerPort": 8080}], [{**HTTP_8080, "name": "web"}]),
        ([{"containerPort": 8080, "hostPort": 18080}], [{**HTTP_8080, "hostPort": 18080}]),
        ([{"name": "http", "containerPort": 3000, "hostIP": "127.0.0.1"}], [{**HTTP_8080, "hostIP": "127.0.0.1"}]),
        (
            [{"name": "http", "containerPort": 3000}, {"name": "web", "containerPort": 8080, "protocol": "TCP"}],
            [{"name": "http", "containerPort": 3000}, {**HTTP_8080, "name": "web"}],
        ),
        (
            [{"name": "quic", "containerPort": 8080, "protocol": "UDP"}],
            [{"name": "quic", "containerPort": 8080, "protocol": "UDP"}, HTTP_8080],
        ),
        (
            [{"name": "http", "containerPort": 8080, "protocol": "UDP"}],
            [{"name": "http", "containerPort": 8080, "protocol": "UDP"}, {"containerPort": 8080, "protocol": "TCP"}],
        ),
    ],
)
def test_the_entry_of_a_containers_port_is_completed_and_keeps_its_name(
    make_settings: MakeSettings, template: Template, written: Any, completed: Any
) -> None:
    pod, _ = built(changed(template, pod_ports=written), make_settings())
    assert kube.sandbox_container(pod)["ports"] == completed


# A template's Service

OURS = {"name": "http", "port": 9000, "targetPort": 9000, "protocol": "TCP"}


@pytest.mark.parametrize(
    ("written", "completed"),
    [
        ([], [OURS]),
        (
            [{"name": "http", "port": 80, "appProtocol": "kubernetes.io/ws"}],
            [{**OURS, "appProtocol": "kubernetes.io/ws"}],
        ),
        ([{"name": "http", "port": 80, "nodePort": 30080}], [{**OURS, "nodePort": 30080}]),
        ([{"name": "web", "port": 9000, "targetPort": "web"}], [{**OURS, "name": "web"}]),
        ([{"port": 9000}], [OURS]),
        (
            [{"name": "http", "port": 80}, {"name": "web", "port": 9000}],
            [{**OURS, "port": 80}, {"name": "web", "port": 9000}],
        ),
        (
            [{"name": "http", "port": 9000, "protocol": "UDP"}],
            [{"name": "http", "port": 9000, "protocol": "UDP"}, {**OURS, "name": "http-tcp"}],
        ),
    ],
)
def test_the_entry_of_a_services_port_is_completed_and_keeps_its_other_fields(
    make_settings: MakeSettings, template: Template, written: Any, completed: Any
) -> None:
    settings = make_settings(SANDBOX_CONTAINER_PORT="9000")
    pod, service = built(changed(template, service={"ports": written}), settings)
    assert service["spec"]["ports"] == completed
    found = kube.sandbox_port(service, pod, settings.sandbox_container_port)
    assert found is not None
    assert found["targetPort"] == 9000


def test_a_service_of_type_cluster_ip_keeps_nothing_that_needs_node_ports(
    make_settings: MakeSettings, template: Template
) -> None:
    fields = {
        "ports": [{"name": "http", "port": 8080, "nodePort": 30080}, {"name": "m", "port": 1, "nodePort": 30081}],
        "externalTrafficPolicy": "Local",
    }
    _, service = built(changed(template, service=fields), make_settings(SANDBOX_SERVICE_TYPE="ClusterIP"))
    assert not any("nodePort" in port for port in service["spec"]["ports"])
    assert "externalTrafficPolicy" not in service["spec"]


# The port of a URL


@pytest.mark.parametrize(
    ("ports", "number"),
    [
        ([{"name": "http", "port": 9000}], 9000),
        ([{"name": "other", "port": 8080}, {"name": "http", "port": 81, "targetPort": 3000}], 81),
        ([{"port": 80}], 80),
        ([{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "web", "port": 80}], 80),
        ([{"name": "http", "port": 53, "protocol": "UDP"}, {"name": "web", "port": 80}], 80),
        ([{"name": "m", "port": 8080, "targetPort": 1}, {"name": "web", "port": 80, "targetPort": 8080}], 80),
        ([{"name": "m", "port": 1}, {"name": "web", "port": 80, "targetPort": "serve"}], 80),
        ([{"name": "m", "port": 1}, {"name": "web", "port": 8080, "targetPort": 7}], 8080),
        ([{"name": "m", "port": 1}, {"name": "n", "port": 2}], None),
        ([{"name": "dns", "port": 53, "protocol": "UDP"}], None),
        ([], None),
    ],
)
@pytest.mark.parametrize("kind", ["NodePort", "ClusterIP"])
def test_the_url_ends_in_the_port_that_the_service_says(
    make_settings: MakeSettings, ports: list[dict[str, Any]], number: int | None, kind: str
) -> None:
    service = a_service(*ports)
    pod = a_pod({"name": "serve", "containerPort": 8080})
    url = sandbox_url(service, make_settings(SANDBOX_SERVICE_TYPE=kind, NODE_HOST="n"), pod)
    if number is None:
        assert url is None
        return
    node_port = next(port["nodePort"] for port in service["spec"]["ports"] if port["port"] == number)
    ends = {
        "NodePort": f"http://n:{node_port}",
        "ClusterIP": f"http://sandbox-a-svc.deer-flow.svc.cluster.local:{number}",
    }
    assert url == ends[kind]


@pytest.mark.parametrize(("target", "number"), [(9000, 9000), ("serve", 7000), ("missing", None), (None, 80)])
def test_the_url_of_a_headless_service_ends_in_the_port_of_the_pod(
    make_settings: MakeSettings, target: Any, number: int | None
) -> None:
    port = {"name": "http", "port": 80, **({} if target is None else {"targetPort": target})}
    service = a_service(port, clusterIP="None", type="ClusterIP")
    url = sandbox_url(
        service, make_settings(SANDBOX_SERVICE_TYPE="ClusterIP"), a_pod({"name": "serve", "containerPort": 7000})
    )
    assert url == (number and f"http://sandbox-a-svc.deer-flow.svc.cluster.local:{number}")


def test_a_service_that_is_only_another_name_has_no_url(make_settings: MakeSettings) -> None:
    service = a_service({"name": "http", "port": 80}, type="ExternalName")
    assert sandbox_url(service, make_settings(SANDBOX_SERVICE_TYPE="ClusterIP")) is None


def test_the_url_inside_the_cluster_has_the_clusters_own_domain(make_settings: MakeSettings) -> None:
    settings = make_settings(SANDBOX_SERVICE_TYPE="ClusterIP", CLUSTER_DOMAIN="k8s.example.com")
    url = "http://sandbox-a-svc.deer-flow.svc.k8s.example.com:80"
    assert sandbox_url(a_service({"name": "http", "port": 80}), settings) == url


@pytest.mark.parametrize(
    "value", [".cluster.local", "cluster.local.", "Cluster.Local", "a..b", "http://a", "a b", "a:1", "a_b", "a" * 64]
)
def test_a_domain_that_is_no_dns_name_stops_the_start(make_settings: MakeSettings, value: str) -> None:
    with pytest.raises(StartupError, match=r"CLUSTER_DOMAIN holds .* a DNS name in lower case"):
        make_settings(CLUSTER_DOMAIN=value)


# The port of a Pod


@pytest.mark.parametrize(
    ("pod", "number"),
    [
        (a_pod({"name": "http", "containerPort": 1}, readinessProbe={"httpGet": {"port": 2}}), 2),
        (a_pod({"name": "p", "containerPort": 3}, livenessProbe={"httpGet": {"port": "p"}}), 3),
        (a_pod({"name": "m", "containerPort": 1}, {"name": "http", "containerPort": 4}), 4),
        (a_pod({"containerPort": 5}), 5),
        (a_pod({"containerPort": 5}, {"containerPort": 5, "protocol": "UDP"}), 5),
        (a_pod({"containerPort": 5}, {"containerPort": 6}), None),
        (a_pod(readinessProbe={"tcpSocket": {"port": 1}}), None),
    ],
)
def test_a_pod_says_by_its_probes_and_ports_where_its_server_listens(pod: Any, number: int | None) -> None:
    assert kube.server_port(pod) == number


# What is applied onto an existing Service, or beside an existing Pod


def new_service(settings: Settings, template: Template, *ports: dict[str, Any], **spec: Any) -> Any:
    fields = {**({"ports": list(ports)} if ports else {}), **spec}
    return built(changed(template, service=fields), settings)[1]


def ports_of(service: Any) -> Any:
    return [tuple(port.get(key) for key in ("name", "port", "targetPort")) for port in service["spec"]["ports"]]


@pytest.mark.parametrize(
    ("there", "applied"),
    [
        ({"name": "http", "port": 9000, "targetPort": 9000}, ("http", 9000, 9000)),
        ({"name": "http", "port": 80, "targetPort": "serve"}, ("http", 80, "serve")),
        ({"name": "web", "port": 80, "targetPort": 9000}, ("web", 80, 9000)),
        ({"port": 80}, ("http", 80, 9000)),
        ({"name": "http", "port": 80, "targetPort": 8081}, ("http", 80, 9000)),
        ({"name": "http", "port": 80, "targetPort": 7000}, ("http", 80, 7000)),
    ],
)
def test_a_service_keeps_its_port_and_a_target_that_its_pod_has(
    make_settings: MakeSettings, template: Template, there: Any, applied: Any
) -> None:
    new = new_service(make_settings(), template)
    pod = a_pod({"name": "serve", "containerPort": 9000})
    pod["spec"]["containers"].append({"name": "proxy", "ports": [{"containerPort": 7000}]})
    assert ports_of(fitted(new, pod, a_service(there), 8080)) == [applied]


def test_a_service_without_its_pod_keeps_its_port_and_leads_to_the_new_pods(
    make_settings: MakeSettings, template: Template
) -> None:
    there = a_service({"name": "http", "port": 9000, "targetPort": 9000})
    new = new_service(make_settings(), template)
    assert ports_of(fitted(new, None, there, 8080)) == [("http", 9000, 8080)]


def test_a_new_service_has_the_port_of_the_pod_that_it_completes(
    make_settings: MakeSettings, template: Template
) -> None:
    pod, _ = built(template, make_settings(SANDBOX_CONTAINER_PORT="9000"))
    new = new_service(make_settings(), template)
    assert ports_of(fitted(new, pod, None, 8080)) == [("http", 9000, 9000)]
    assert fitted(new, None, None, 8080) == new


def test_other_ports_of_a_template_meet_those_of_the_same_name_and_never_repeat_one(
    make_settings: MakeSettings, template: Template
) -> None:
    new = new_service(make_settings(), template, {"name": "http", "port": 8080}, {"name": "metrics", "port": 9100})
    there = a_service({"name": "http", "port": 80, "targetPort": 80}, {"name": "metrics", "port": 9200})
    assert ports_of(fitted(new, None, there, 8080)) == [("http", 80, 8080), ("metrics", 9200, None)]
    assert ports_of(fitted(new, None, a_service({"name": "m", "port": 9100}), 8080)) == [("m", 9100, 8080)]


def test_a_node_port_and_an_address_that_are_there_stay(make_settings: MakeSettings, template: Template) -> None:
    fields = {"clusterIP": "10.0.0.1", "ipFamilies": ["IPv6"]}
    new = new_service(make_settings(), template, {"name": "http", "port": 8080, "nodePort": 30080}, **fields)
    there = a_service({"name": "http", "port": 80, "targetPort": 80}, type="LoadBalancer", ipFamilies=["IPv4"])
    spec = fitted(new, None, there, 8080)["spec"]
    assert (spec["ports"][0]["nodePort"], spec["clusterIP"], spec["ipFamilies"]) == (30500, "10.0.0.9", ["IPv4"])
    assert spec["type"] == "LoadBalancer"


def test_only_a_headless_service_that_is_to_have_node_ports_must_be_replaced() -> None:
    headless = a_service({"name": "http", "port": 80}, clusterIP="None", type="ClusterIP")
    assert must_be_replaced(headless, "NodePort")
    assert not must_be_replaced(headless, "ClusterIP")
    assert not must_be_replaced(a_service({"name": "http", "port": 80}), "NodePort")


# The keys of lists


@pytest.mark.parametrize(
    ("definition", "field", "keys"),
    [
        ("ServiceSpec", "ports", ["port", "protocol"]),
        ("Container", "ports", ["containerPort", "protocol"]),
        ("Container", "env", ["name"]),
        ("Container", "volumeMounts", ["mountPath"]),
        ("PodSpec", "volumes", ["name"]),
        ("PodSpec", "containers", ["name"]),
        ("PodSpec", "initContainers", ["name"]),
    ],
)
def test_lists_that_the_service_completes_are_merged_by_these_keys(
    definition: str, field: str, keys: list[str]
) -> None:
    schema = json.loads((Path(devcluster.__file__).parent / "data" / "schema.json").read_text(encoding="utf-8"))
    found = schema["definitions"][f"io.k8s.api.core.v1.{definition}"]["properties"][field]
    assert found["x-kubernetes-list-map-keys"] == keys


def test_the_shipped_template_says_where_its_server_listens(template: Template) -> None:
    assert kube.server_port(template.pod) == 8080
