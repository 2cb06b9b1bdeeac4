"""The fields of a template that the service relies on, as pydantic models; all other fields are allowed."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, field_validator

from sandboxes.grammar import check_image

# Names of volumes that the service adds for a request's mounts, for skills and for the Lark CLI.
ADDED_VOLUME = re.compile(r"extra-[0-9]+|skills-(public|custom|legacy)|lark-cli-runtime")


class _Shape(BaseModel):
    """The fields that the service relies on; others are allowed."""

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


def _below_the_volume(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError("must be a relative path without `..`")
    return path


class _Mount(_Named):
    mountPath: str  # noqa: N815
    readOnly: bool = False  # noqa: N815
    subPath: Annotated[str, AfterValidator(_below_the_volume)] = ""  # noqa: N815
    subPathExpr: Annotated[str, AfterValidator(_below_the_volume)] = ""  # noqa: N815


def _image(text: str) -> str:
    # Cluster managers inject containers whose image they fill in.
    return text and check_image(text)


class _Container(_Named):
    image: Annotated[str, AfterValidator(_image)] = ""
    env: list[_Named] = []
    resources: _Resources = _Resources()
    ports: list[dict[str, Any]] = []
    volumeMounts: list[_Mount] = []  # noqa: N815
    startupProbe: _Probe = _Probe()  # noqa: N815
    readinessProbe: _Probe = _Probe()  # noqa: N815
    livenessProbe: _Probe = _Probe()  # noqa: N815


class _Volume(_Named):
    persistentVolumeClaim: dict[str, Any] = {}  # noqa: N815

    @field_validator("name")
    @classmethod
    def _is_the_templates(cls, name: str) -> str:
        # Otherwise the template's mounts would expose a caller's extra mount.
        if ADDED_VOLUME.fullmatch(name):
            raise ValueError("the service gives this name to the volumes of a request")
        return name


class _PodSpec(_Shape):
    containers: list[_Container]
    initContainers: list[_Container] = []  # noqa: N815
    volumes: list[_Volume] = []
    securityContext: dict[str, Any] = {}  # noqa: N815


class PodShape(_Shape):
    """pod.yaml."""

    metadata: _Metadata = _Metadata()
    spec: _PodSpec


class _ExtraMetadata(_Metadata):
    name: str


class _Extra(_Shape):
    metadata: _ExtraMetadata


class ConfigMapShape(_Extra):
    """A ConfigMap that a template brings."""

    data: dict[str, str] = {}
    binaryData: dict[str, str] = {}  # noqa: N815


class ExtraShape(_Extra):
    """A PersistentVolumeClaim or a NetworkPolicy that a template brings."""

    spec: dict[str, Any]


class _ServiceSpec(_Shape):
    ports: list[dict[str, Any]] = []


class ServiceShape(_Shape):
    """service.yaml."""

    metadata: _Metadata = _Metadata()
    spec: _ServiceSpec
