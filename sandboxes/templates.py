"""Reads the template of a sandbox from its folder, and checks that it has the shape that the service fills in.

Only the shape: what a field may hold is the cluster's to say, by a dry run at the start (`preflight.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sandboxes import kube
from sandboxes.errors import StartupError

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.kube import KubeObject


@dataclass(frozen=True)
class Template:
    """A sandbox's Pod and Service as the operator wrote them. Read-only: whoever changes one copies it first."""

    pod: KubeObject
    service: KubeObject


def load_template(folder: Path) -> Template:
    """Read `pod.yaml` and `service.yaml` of `folder`.

    Raises StartupError with one sentence when a file can't be read or has not the shape that it must have.
    """
    pod = _read(folder / "pod.yaml", "Pod", _Pod)
    service = _read(folder / "service.yaml", "Service", _Service)
    if not any(container["name"] == kube.CONTAINER for container in pod["spec"]["containers"]):
        raise StartupError(f"The template {folder / 'pod.yaml'} has no container named `{kube.CONTAINER}`.")
    return Template(pod, service)


class _Shape(BaseModel):
    """As much of an object as the service relies on; there may be more."""

    model_config = ConfigDict(extra="allow", strict=True)


class _Metadata(_Shape):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class _Named(_Shape):
    name: str


class _Probe(_Shape):
    httpGet: dict[str, Any] = {}  # noqa: N815 - Kubernetes' own name


class _Resources(_Shape):
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}


class _Container(_Named):
    env: list[_Named] = []
    resources: _Resources = _Resources()
    ports: list[dict[str, Any]] = []
    volumeMounts: list[dict[str, Any]] = []  # noqa: N815
    startupProbe: _Probe = _Probe()  # noqa: N815
    readinessProbe: _Probe = _Probe()  # noqa: N815
    livenessProbe: _Probe = _Probe()  # noqa: N815


class _PodSpec(_Shape):
    containers: list[_Container]
    volumes: list[_Named] = []
    securityContext: dict[str, Any] = {}  # noqa: N815


class _Pod(_Shape):
    metadata: _Metadata = _Metadata()
    spec: _PodSpec


class _ServiceSpec(_Shape):
    ports: list[dict[str, Any]] = []


class _Service(_Shape):
    metadata: _Metadata = _Metadata()
    spec: _ServiceSpec


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(path: Path, kind: str, shape: type[BaseModel]) -> KubeObject:
    try:
        loaded = _without_nulls(yaml.load(path.read_text(encoding="utf-8"), _Loader))  # noqa: S506 - derives from SafeLoader
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StartupError(f"The template {path} can't be read: {error}") from error
    if not isinstance(loaded, dict) or loaded.get("kind") != kind:
        raise StartupError(f"The template {path} must hold exactly one {kind}.")
    try:
        shape.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StartupError(f"The template {path} is wrong at {where}: {first['msg']}.") from error
    return loaded


def _without_nulls(value: object) -> object:
    """Return the value without fields that are null, which Kubernetes takes as left out."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value
