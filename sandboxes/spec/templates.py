"""Loads sandbox templates from their folders and checks the fields that the service fills in.

It checks structure only; the cluster validates all values in a dry run at startup (`preflight.py`). Its messages name
file, field and line, and never quote values, which may be secrets.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sandboxes import objects as kube
from sandboxes.errors import StartupError
from sandboxes.grammar import is_dns_label
from sandboxes.spec.shapes import ConfigMapShape, ExtraShape, PodShape, ServiceShape
from sandboxes.spec.template_files import at, checked, read_file, read_one, shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sandboxes.objects import KubeObject
    from sandboxes.spec.yaml_documents import Document

_T = TypeVar("_T")

# The one value of the annotation `provisioner/pod-security`.
RESTRICTED = "restricted"

# No dash in the suffix, so that `sandbox-{id}-{suffix}` is unambiguous.
_EXTRA_NAME = re.compile(r"sandbox-example-(?P<suffix>[a-z0-9]{1,63})")

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
    # The Pod's file, for messages; and those of `extras`.
    file: str = "pod.yaml"
    extra_files: tuple[str, ...] = ()


def load_templates(default: tuple[str, Path], *folders: Path) -> dict[str, Template]:
    """Load the default template (name, folder) and every subfolder of `folders` as a template named after it.

    A later template replaces an earlier one of the same name. Files and dot folders are ignored. Raises StartupError
    with a line for each folder that can't be read, each invalid name and each file that can't be used.
    """
    problems: list[str] = []
    found = dict([default])
    for folder in folders:
        try:
            found |= {one.name: one for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != "."}
        except OSError as error:
            problems.append(f"The folder of templates {folder} can't be read: {error.strerror}.")
    loaded = {}
    for name, folder in found.items():
        if is_dns_label(name):
            loaded[name] = _attempt(problems, load_template, folder)
        else:
            problems.append(
                f"The template {shown(str(folder))} has an invalid name: use at most 63 lower-case letters, digits "
                "and `-`."
            )
    _raise_if_any(problems)
    return {name: template for name, template in loaded.items() if template is not None}


def suffix_of(extra: KubeObject) -> str:
    """Return the suffix of an extra object's name, which is unique within its kind and template."""
    match = _EXTRA_NAME.fullmatch(extra["metadata"]["name"])
    assert match is not None  # noqa: S101 - load_template rejects other names
    return match["suffix"]


def load_template(folder: Path) -> Template:
    """Read `pod.yaml`, `service.yaml` and every other `*.yaml` of `folder`.

    Raises StartupError with a line for each file that can't be read or lacks the required structure.
    """
    problems: list[str] = []
    pod = _attempt(problems, _load_pod, folder / "pod.yaml")
    service = _attempt(problems, _load_service, folder / "service.yaml")
    extras, extra_files = _load_extras(problems, folder)
    _raise_if_any(problems)
    assert pod is not None  # noqa: S101 - else there is a problem
    assert service is not None  # noqa: S101
    marks = kube.get_annotations({"metadata": {}, **pod})
    return Template(
        pod,
        service,
        extras=extras,
        description=marks.get(kube.DESCRIPTION_ANNOTATION, ""),
        is_restricted=kube.POD_SECURITY_ANNOTATION in marks,
        file=str(folder / "pod.yaml"),
        extra_files=extra_files,
    )


def _attempt(problems: list[str], load: Callable[[Path], _T], path: Path) -> _T | None:
    """Return what is loaded; add the message to `problems` if that fails, so that all of them are reported."""
    try:
        return load(path)
    except StartupError as error:
        problems.append(str(error))
        return None


def _raise_if_any(problems: list[str]) -> None:
    if problems:
        raise StartupError("\n".join(problems))


def _load_pod(path: Path) -> KubeObject:
    document = read_one(path, "Pod")
    pod = checked(path, document, PodShape)
    if not any(container["name"] == kube.CONTAINER for container in pod["spec"]["containers"]):
        raise StartupError(f"The template {path} has no container named `{kube.CONTAINER}`.")
    restricted = kube.get_annotations({"metadata": {}, **pod}).get(kube.POD_SECURITY_ANNOTATION)
    if restricted not in (None, RESTRICTED):
        raise StartupError(
            f"The template {path} has `{kube.POD_SECURITY_ANNOTATION}: {shown(restricted)}`; it may be `{RESTRICTED}`."
        )
    if restricted and any("hostPath" in volume for volume in pod["spec"].get("volumes") or []):
        raise StartupError(f"The template {path} is restricted, and has a hostPath volume.")
    return pod


def _load_service(path: Path) -> KubeObject:
    document = read_one(path, "Service")
    service = checked(path, document, ServiceShape)
    for field in ("clusterIP", "clusterIPs"):
        address = service["spec"].get(field)
        if address not in (None, "", "None", [], ["None"]):
            line = at(document, ("spec", field))
            raise StartupError(f"The template {path} has the field spec.{field}{line}: each sandbox needs its own.")
    return service


def _load_extras(problems: list[str], folder: Path) -> tuple[tuple[KubeObject, ...], tuple[str, ...]]:
    """Load all objects of the folder but the Pod and the Service; return them, and the file of each."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        problems.append(f"The template {folder} can't be read: {error.strerror}.")
        return (), ()
    extras: dict[tuple[str, str], tuple[KubeObject, str]] = {}
    for path in paths:
        if path.suffix in _OTHER_ENDINGS:  # kubectl would read it
            problems.append(f"The template {shown(str(path))} would be ignored: rename it to end in .yaml.")
        if path.suffix != ".yaml" or path.name in ("pod.yaml", "service.yaml"):
            continue
        for extra in _attempt(problems, _read_extras, path) or []:
            key = kube.key_of(extra)
            if key in extras:
                problems.append(f"The template {path} has a second {extra['kind']} of the same name.")
            extras[key] = extra, str(path)
    return tuple(extra for extra, _ in extras.values()), tuple(file for _, file in extras.values())


def _read_extras(path: Path) -> list[KubeObject]:
    return [_checked_extra(path, document) for document in read_file(path)]


def _checked_extra(path: Path, document: Document) -> KubeObject:
    """Return the object if a template may contain its kind and name; raises StartupError otherwise."""
    value = document.value
    kind = (value.get("apiVersion"), value.get("kind")) if isinstance(value, dict) else None
    if kind not in list(kube.EXTRA_KINDS):  # a file's kind may be a list, which can't be in a set
        allowed = ", ".join(f"{name} ({version})" for version, name in sorted(kube.EXTRA_KINDS, key=lambda one: one[1]))
        raise StartupError(f"The template {path} may hold only objects of these kinds: {allowed}.")
    extra = checked(path, document, ConfigMapShape if kind == ("v1", "ConfigMap") else ExtraShape)
    name = extra["metadata"]["name"]
    if not _EXTRA_NAME.fullmatch(name):
        raise StartupError(
            f"The template {path} names an object {shown(name)}: it must be `sandbox-example-` followed by lower-case "
            "letters or digits, without a dash."
        )
    if kube.KEEP_LABEL in kube.get_labels(extra) and extra["kind"] != "PersistentVolumeClaim":
        raise StartupError(
            f"The template {path} has a {extra['kind']} with the label {kube.KEEP_LABEL}: only a "
            "PersistentVolumeClaim may have it."
        )
    return extra
