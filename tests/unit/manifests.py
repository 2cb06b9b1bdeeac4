"""The objects of one sandbox, and parts of its Pod."""

from __future__ import annotations

from typing import Any

from sandboxes.access.cluster_ip import ClusterIPAccess
from sandboxes.access.node_port import NodePortAccess
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template

AT = "2026-01-01T00:00:00.000000Z"
SANDBOX = Sandbox("abc", "T-1", "u_1")


def rendered(settings: Settings, template: Template, sandbox: Sandbox = SANDBOX) -> tuple[Any, Any]:
    """Return the Pod and the Service of the sandbox."""
    pod, service = build(sandbox, template, settings, applied_at=AT)
    return pod, service


def container(pod: Any) -> Any:
    return pod["spec"]["containers"][0]


def revision_of(pod: Any) -> str:
    """Return the value of SANDBOX_REVISION."""
    (value,) = [variable["value"] for variable in container(pod)["env"] if variable["name"] == "SANDBOX_REVISION"]
    assert isinstance(value, str)
    return value


def volumes(pod: Any) -> Any:
    """Return the sources of the Pod's volumes by name."""
    return {volume["name"]: {k: v for k, v in volume.items() if k != "name"} for volume in pod["spec"]["volumes"]}


def mounts(pod: Any) -> Any:
    """Return the mounts of the first container by path, without the path."""
    return {mount.pop("mountPath"): mount for mount in container(pod)["volumeMounts"]}


def sandbox_url(service: Any, settings: Settings, pod: Any = None) -> str | None:
    """Return the URL of a sandbox that is reached by a Service."""
    access = ClusterIPAccess if settings.service_type == "ClusterIP" else NodePortAccess
    return access(settings).url(pod, service)
