"""Reads the templates of sandboxes from their folders, and checks that they have the shape that the service fills in.

Only the shape: what a field may hold is the cluster's to say, by a dry run at the start (`preflight.py`).
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

# Without a dash, so that `sandbox-{id}-{suffix}` can be read in one way only.
_EXTRA_NAME = re.compile(r"sandbox-example-(?P<suffix>[a-z0-9]{1,63})")

# The volumes that the service adds for a request's mounts, skills and Lark CLI.
ADDED_VOLUME = re.compile(r"extra-[0-9]+|skills-(public|custom|legacy)|lark-cli-runtime")

_OTHER_ENDINGS = frozenset({".yml", ".json"})


@dataclass(frozen=True)
class Template:
    """A sandbox's objects as the operator wrote them. Read-only: whoever changes one copies it first.

    `extras`: what there is besides Pod and Service, by suffix of the name in the order of files and documents.
    """

    pod: KubeObject
    service: KubeObject
    extras: tuple[KubeObject, ...] = ()
    description: str = ""
    # Nothing that settings or a request put in may break Pod security's standard `restricted`: no host paths, and
    # the seccomp profile RuntimeDefault (kubernetes.io/docs/concepts/security/pod-security-standards).
    is_restricted: bool = False


def load_templates(default: tuple[str, Path], *folders: Path) -> dict[str, Template]:
    """Read the default template, by name and folder, and the templates in each of `folders`, a folder each.

    Of two of the same name the later wins. What begins with a dot, and files, are passed over. Raises StartupError
    with one sentence when there is no such folder, a name can't be one, or a template can't be used.
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
                f"The template {folder} has a name that can't be one: lower-case letters, digits and `-`, at most 63."
            )
    return {name: load_template(folder) for name, folder in found.items()}


def suffix_of(extra: KubeObject) -> str:
    """Return what tells an extra object of a template from the others of its kind."""
    match = _EXTRA_NAME.fullmatch(extra["metadata"]["name"])
    assert match is not None  # noqa: S101 - load_template lets no other name in
    return match["suffix"]


def load_template(folder: Path) -> Template:
    """Read `pod.yaml`, `service.yaml` and every other `*.yaml` of `folder`.

    Raises StartupError with one sentence when a file can't be read or has not the shape that it must have.
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
    )


def _extras(folder: Path) -> Iterator[KubeObject]:
    """Yield what there is besides Pod and Service; raises StartupError."""
    seen: Counter[tuple[str, str]] = Counter()
    for path in sorted(folder.iterdir()):
        if path.suffix in _OTHER_ENDINGS:  # kubectl would take it
            raise StartupError(f"The template {path} would not be read: a file of a template ends in .yaml.")
        if path.suffix != ".yaml" or path.name in ("pod.yaml", "service.yaml"):
            continue
        for document in read_documents(path):
            if document is None:  # nothing but comments
                continue
            extra = _checked_extra(path, document)
            seen[extra["kind"], extra["metadata"]["name"]] += 1
            if seen.most_common(1)[0][1] > 1:
                raise StartupError(f"The template {path} has a second {extra['kind']} of the same name.")
            yield extra


def _checked_extra(path: Path, extra: object) -> KubeObject:
    """Return the object if a template may bring it, under a name that it may have; else raise StartupError."""
    kind = (extra.get("apiVersion"), extra.get("kind")) if isinstance(extra, dict) else None
    if not isinstance(extra, dict) or kind not in kube.EXTRA_KINDS:
        allowed = ", ".join(f"{name} ({version})" for version, name in sorted(kube.EXTRA_KINDS, key=lambda one: one[1]))
        raise StartupError(f"The template {path} may hold only objects of these kinds: {allowed}.")
    _check_shape(path, extra, _Extra if kind == ("v1", "ConfigMap") else _ExtraWithSpec)
    name = extra["metadata"]["name"]
    if not _EXTRA_NAME.fullmatch(name):
        raise StartupError(
            f"The template {path} names an object {name}: it must be `sandbox-example-` and lower-case letters or "
            "digits, without a dash."
        )
    if kube.KEEP_LABEL in kube.get_labels(extra) and extra["kind"] != "PersistentVolumeClaim":
        raise StartupError(f"The template {path} has a {extra['kind']} that is to stay: only a claim may.")
    return extra


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
        # A mount of the template's would show what a caller asks for.
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
    """YAML as Kubernetes reads it: a date is text."""


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
    """Read a YAML file as Kubernetes does, without what is null; raises StartupError with one sentence."""
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
    """Return the value without fields that are null, which Kubernetes takes as left out."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_without_nulls(one) for one in value]
    return value
