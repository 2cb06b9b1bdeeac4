"""Loads sandbox templates from their folders and checks the fields that the service fills in.

It checks structure only; the cluster validates all values in a dry run at startup (`preflight.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator

from sandboxes import objects as kube
from sandboxes.errors import StartupError
from sandboxes.grammar import is_dns_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sandboxes.objects import KubeObject

# The one value of the annotation `provisioner/pod-security`.
RESTRICTED = "restricted"

# No dash in the suffix, so that `sandbox-{id}-{suffix}` is unambiguous.
_EXTRA_NAME = re.compile(r"sandbox-example-(?P<suffix>[a-z0-9]{1,63})")

# Names of volumes that the service adds for a request's mounts, for skills and for the Lark CLI.
ADDED_VOLUME = re.compile(r"extra-[0-9]+|skills-(public|custom|legacy)|lark-cli-runtime")

_OTHER_ENDINGS = frozenset({".yml", ".json"})


@dataclass(frozen=True)
class Template:
    """A sandbox's objects as the operator wrote them. Treat as read-only: copy before a change.

    `extras`: all objects but the Pod and the Service, in the order of files and documents.
    """

    pod: KubeObject
    service: KubeObject
    extras: tuple[KubeObject, ...] = ()
    description: str = ""
    # Settings and requests must keep to the Pod Security Standard `restricted`: no hostPath, seccomp RuntimeDefault
    # (kubernetes.io/docs/concepts/security/pod-security-standards).
    is_restricted: bool = False
    # The Pod's file, for messages.
    file: str = "pod.yaml"


def load_templates(default: tuple[str, Path], *folders: Path) -> dict[str, Template]:
    """Load the default template (name, folder) and every subfolder of `folders` as a template named after it.

    A later template replaces an earlier one of the same name. Files and dot folders are ignored. Raises StartupError
    for a folder that can't be read, an invalid name or an invalid template.
    """
    found = dict([default])
    for folder in folders:
        try:
            found |= {one.name: one for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != "."}
        except OSError as error:
            raise StartupError(f"The folder of templates {folder} can't be read: {error.strerror}.") from error
    for name, folder in found.items():
        if not is_dns_label(name):
            raise StartupError(
                f"The template {folder} has an invalid name: use at most 63 lower-case letters, digits and `-`."
            )
    return {name: load_template(folder) for name, folder in found.items()}


def suffix_of(extra: KubeObject) -> str:
    """Return the suffix of an extra object's name, which is unique within its kind and template."""
    match = _EXTRA_NAME.fullmatch(extra["metadata"]["name"])
    assert match is not None  # noqa: S101 - load_template rejects other names
    return match["suffix"]


def load_template(folder: Path) -> Template:
    """Read `pod.yaml`, `service.yaml` and every other `*.yaml` of `folder`.

    Raises StartupError for a file that can't be read or lacks the required structure.
    """
    pod = _read(folder / "pod.yaml", "Pod", _Pod)
    service = _read(folder / "service.yaml", "Service", _Service)
    if not any(container["name"] == kube.CONTAINER for container in pod["spec"]["containers"]):
        raise StartupError(f"The template {folder / 'pod.yaml'} has no container named `{kube.CONTAINER}`.")
    marks = kube.get_annotations({"metadata": {}, **pod})
    restricted = marks.get(kube.POD_SECURITY_ANNOTATION)
    if restricted not in (None, RESTRICTED):
        raise StartupError(
            f"The template {folder / 'pod.yaml'} has `{kube.POD_SECURITY_ANNOTATION}: {restricted}`; it may be "
            f"`{RESTRICTED}`."
        )
    if restricted and any("hostPath" in volume for volume in pod["spec"].get("volumes") or []):
        raise StartupError(f"The template {folder / 'pod.yaml'} is restricted, and has a hostPath volume.")
    return Template(
        pod,
        service,
        extras=tuple(_extras(folder)),
        description=marks.get(kube.DESCRIPTION_ANNOTATION, ""),
        is_restricted=restricted is not None,
        file=str(folder / "pod.yaml"),
    )


def _extras(folder: Path) -> Iterator[KubeObject]:
    """Yield all objects of the folder but the Pod and the Service; raises StartupError."""
    seen: Counter[tuple[str, str]] = Counter()
    for path in sorted(folder.iterdir()):
        if path.suffix in _OTHER_ENDINGS:  # kubectl would read it
            raise StartupError(f"The template {path} would be ignored: rename it to end in .yaml.")
        if path.suffix != ".yaml" or path.name in ("pod.yaml", "service.yaml"):
            continue
        for document in read_documents(path):
            if document is None:  # only comments
                continue
            extra = _checked_extra(path, document)
            seen[extra["kind"], extra["metadata"]["name"]] += 1
            if seen.most_common(1)[0][1] > 1:
                raise StartupError(f"The template {path} has a second {extra['kind']} of the same name.")
            yield extra


def _checked_extra(path: Path, extra: object) -> KubeObject:
    """Return the object if a template may contain its kind and name; raises StartupError otherwise."""
    kind = (extra.get("apiVersion"), extra.get("kind")) if isinstance(extra, dict) else None
    if not isinstance(extra, dict) or kind not in kube.EXTRA_KINDS:
        allowed = ", ".join(f"{name} ({version})" for version, name in sorted(kube.EXTRA_KINDS, key=lambda one: one[1]))
        raise StartupError(f"The template {path} may hold only objects of these kinds: {allowed}.")
    _check_shape(path, extra, _Extra if kind == ("v1", "ConfigMap") else _ExtraWithSpec)
    name = extra["metadata"]["name"]
    if not _EXTRA_NAME.fullmatch(name):
        raise StartupError(
            f"The template {path} names an object {name}: it must be `sandbox-example-` followed by lower-case letters "
            "or digits, without a dash."
        )
    if kube.KEEP_LABEL in kube.get_labels(extra) and extra["kind"] != "PersistentVolumeClaim":
        raise StartupError(
            f"The template {path} has a {extra['kind']} with the label {kube.KEEP_LABEL}: only a "
            "PersistentVolumeClaim may have it."
        )
    return extra


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


class _Container(_Named):
    env: list[_Named] = []
    resources: _Resources = _Resources()
    ports: list[dict[str, Any]] = []
    volumeMounts: list[_Mount] = []  # noqa: N815
    startupProbe: _Probe = _Probe()  # noqa: N815
    readinessProbe: _Probe = _Probe()  # noqa: N815
    livenessProbe: _Probe = _Probe()  # noqa: N815


class _Volume(_Named):
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


class _Pod(_Shape):
    metadata: _Metadata = _Metadata()
    spec: _PodSpec


class _ExtraMetadata(_Metadata):
    name: str


class _Extra(_Shape):
    metadata: _ExtraMetadata


class _ExtraWithSpec(_Extra):
    spec: dict[str, Any]


class _ServiceSpec(_Shape):
    ports: list[dict[str, Any]] = []


class _Service(_Shape):
    metadata: _Metadata = _Metadata()
    spec: _ServiceSpec


class _Loader(yaml.SafeLoader):
    """Loads YAML as Kubernetes does: dates stay strings."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(path: Path, kind: str, shape: type[BaseModel]) -> KubeObject:
    documents = read_documents(path)
    loaded = documents[0] if len(documents) == 1 else None
    if not isinstance(loaded, dict) or loaded.get("kind") != kind:
        raise StartupError(f"The template {path} must hold exactly one {kind}.")
    _check_shape(path, loaded, shape)
    return loaded


def read_documents(path: Path) -> list[object]:
    """Read all documents of a YAML file as Kubernetes does, dropping null fields; raises StartupError."""
    try:
        loaded: Iterable[object] = yaml.load_all(path.read_text(encoding="utf-8"), _Loader)
        return [_without_nulls(one) for one in loaded]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StartupError(f"The template {path} can't be read: {error}") from error


def _check_shape(path: Path, loaded: object, shape: type[BaseModel]) -> None:
    try:
        shape.model_validate(loaded)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise StartupError(f"The template {path} is wrong at {where}: {first['msg']}.") from error


def _without_nulls(value: object) -> object:
    """Return the value without null fields, which Kubernetes treats as absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value
