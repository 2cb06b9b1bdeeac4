"""What the service replaces in a template is named at the start, and nothing else is."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from sandboxes import objects as kube
from sandboxes.api.callers import Callers
from sandboxes.app import _warn, load_all_templates
from sandboxes.settings import Settings
from sandboxes.spec.replaced import replaced_fields
from sandboxes.spec.templates import Template

MakeSettings = Callable[..., Settings]

OWN = "Pod spec.containers[sandbox]"


class Parts(NamedTuple):
    """What a test changes in a template: the container `sandbox`, its Pod, the spec of its Service."""

    box: dict[str, Any]
    pod: dict[str, Any]
    svc: dict[str, Any]


def changed(template: Template, change: Callable[[Parts], object]) -> Template:
    """Return a changed copy of the template."""
    one = replace(template, pod=copy.deepcopy(template.pod), service=copy.deepcopy(template.service))
    change(Parts(kube.sandbox_container(one.pod), one.pod, one.service["spec"]))
    return one


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"SANDBOX_CONTAINER_PORT": "9000", "SANDBOX_SERVICE_TYPE": "ClusterIP", "SANDBOX_IMAGE": "a:1"},
        {"THREADS_HOST_PATH": "/threads", "SKILLS_HOST_PATH": "/skills"},
        {"USERDATA_PVC_NAME": "data", "SKILLS_PVC_NAME": "skills"},
        {"SANDBOX_SECCOMP": "Unconfined", "SANDBOX_STARTUP_FAILURE_THRESHOLD": "7"},
    ],
)
def test_of_the_shipped_templates_nothing_is_named(make_settings: MakeSettings, variables: dict[str, str]) -> None:
    settings = make_settings(**variables)
    for name, template in load_all_templates(settings).items():
        assert replaced_fields(name, template, settings) == []


CHANGES: list[tuple[Callable[[Parts], object], list[str]]] = [
    (lambda t: t.box["ports"].__setitem__(0, {"name": "web", "containerPort": 8080, "hostPort": 1}), []),
    (lambda t: t.box["ports"][0].update(containerPort=3000), [f"{OWN}.ports[http].containerPort"]),
    (lambda t: t.box["readinessProbe"]["httpGet"].update(port="http"), []),
    (lambda t: t.box["readinessProbe"]["httpGet"].update(port=81), [f"{OWN}.readinessProbe.httpGet.port"]),
    (lambda t: t.box["startupProbe"].update(failureThreshold=5), [f"{OWN}.startupProbe.failureThreshold"]),
    (lambda t: t.svc["ports"][0].update(appProtocol="http", nodePort=30080), []),
    (lambda t: t.svc["ports"][0].update(port=80), ["Service spec.ports[http].port"]),
    (lambda t: t.svc["ports"][0].update(targetPort="http"), []),
    (lambda t: t.svc["ports"][0].update(targetPort="web"), ["Service spec.ports[http].targetPort"]),
    (lambda t: t.svc["selector"].update(tier="a"), ["Service spec.selector.tier"]),
    (lambda t: t.svc.update(type="LoadBalancer"), ["Service spec.type"]),
    (
        lambda t: t.box.setdefault("env", []).append({"name": "SANDBOX_REVISION", "valueFrom": {"fieldRef": {}}}),
        [f"{OWN}.env[SANDBOX_REVISION].valueFrom"],
    ),
    (
        lambda t: t.pod["spec"]["volumes"].__setitem__(0, {"name": "user-data", "ephemeral": {"x": 1}}),
        ["Pod spec.volumes[user-data].ephemeral"],
    ),
    (
        lambda t: t.pod["spec"]["volumes"].__setitem__(0, {"name": "user-data", "emptyDir": {"sizeLimit": "1Gi"}}),
        [],
    ),
    (lambda t: t.box["volumeMounts"][0].update(name="other"), [f"{OWN}.volumeMounts[other].name"]),
    (lambda t: t.box["volumeMounts"][0].update(mountPropagation="HostToContainer"), []),
    (lambda t: t.pod["metadata"]["labels"].update(app="mine"), ["Pod metadata.labels.app"]),
    (lambda t: t.pod["metadata"].update(namespace="mine"), ["Pod metadata.namespace"]),
]


@pytest.mark.parametrize(("change", "fields"), CHANGES, ids=range(len(CHANGES)))
def test_a_field_that_the_service_replaces_is_named_and_one_that_it_keeps_is_not(
    make_settings: MakeSettings, template: Template, change: Any, fields: list[str]
) -> None:
    assert replaced_fields("mine", changed(template, change), make_settings()) == fields


def test_an_image_is_named_unless_the_operator_has_set_another(make_settings: MakeSettings, template: Template) -> None:
    mine = copy.deepcopy(template.pod)
    kube.sandbox_container(mine)["image"] = "mine:1"
    written = replace(template, pod=mine)
    assert replaced_fields("mine", written, make_settings()) == [f"{OWN}.image"]
    assert replaced_fields("mine", written, make_settings(SANDBOX_IMAGE="other:1")) == []


def test_what_needs_node_ports_is_named_where_there_are_none(make_settings: MakeSettings, template: Template) -> None:
    written = changed(template, lambda t: t.svc["ports"][0].update(nodePort=30080))
    settings = make_settings(SANDBOX_SERVICE_TYPE="ClusterIP")
    assert replaced_fields("mine", written, settings) == ["Service spec.ports[http].nodePort"]


def test_the_fields_of_a_template_are_one_line_of_the_log(
    make_settings: MakeSettings, template: Template, caplog: pytest.LogCaptureFixture
) -> None:
    settings = make_settings(THREADS_HOST_PATH="/t")
    secret = {"name": "SANDBOX_REVISION", "value": "a-secret"}
    written = changed(
        template, lambda t: (t.box.setdefault("env", []).append(secret), t.svc.update(type="LoadBalancer"))
    )
    with caplog.at_level(logging.WARNING):
        _warn(settings, Callers(settings, in_pod=False), {"mine": written, "default": template})
    (line,) = [
        record.getMessage()
        for record in caplog.records
        if "template" in record.getMessage() and "mine" in record.getMessage()
    ]
    assert "these fields of the template mine" in line
    assert line.endswith("Service spec.type.")
    assert "a-secret" not in line
