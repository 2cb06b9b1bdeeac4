"""Finds the fields of a template that the service replaces or leaves out, so that the start can name them. Pure.

It compares the template with what is built from it: a field is named here unless it is in the objects as written. So
no change of `manifests.py` can drop a field without a word.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build, build_extras
from sandboxes.spec.options import CreateOptions, Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sandboxes.spec.templates import Template

# The sandbox whose names and labels templates have.
_EXAMPLE = "example"
_OWN = r"spec\.containers\[sandbox\]"

# Field → the setting that replaces it. If the operator has set that, the replacement is what they asked for.
_SETTINGS = {
    rf"{_OWN}\.image": "sandbox_image",
    rf"{_OWN}\.startupProbe\.failureThreshold": "sandbox_startup_failure_threshold",
    r"spec\.type": "sandbox_service_type",
    r"spec\.securityContext\.seccompProfile\..*": "sandbox_seccomp",
}
_PORTS = re.compile(rf"{_OWN}\.(ports\[.*\]\.containerPort|\w+\.httpGet\.port)|spec\.ports\[.*\]\.(targetPort|port)")
_MOUNTED_PATH = re.compile(r".*\.volumeMounts\[.*\]\.subPath(Expr)?")
# About the template itself.
_NOT_COPIED = (kube.DESCRIPTION_ANNOTATION, kube.POD_SECURITY_ANNOTATION)


def replaced_fields(name: str, template: Template, settings: Settings) -> list[str]:
    """Return the paths of the template's fields that its sandboxes do not have as written, without their values.

    Left out are values of the shipped template, which are there for use by hand, and values that a setting replaces
    that the operator has set.
    """
    sandbox = Sandbox(_EXAMPLE, _EXAMPLE, "default", asks=CreateOptions(template=name))
    applied_at = "1970-01-01T00:00:00Z"
    made = [
        *build(sandbox, template, settings, applied_at=applied_at),
        *build_extras(sandbox, template, settings, applied_at=applied_at),
    ]
    is_with_service = any(obj["kind"] == "Service" for obj in made)
    written = [template.pod, *([template.service] if is_with_service else []), *template.extras]
    return [
        f"{before['kind']} {path}"
        for before, after in zip(written, made, strict=True)
        for path, one, other in _differences(before, after, "")
        if not _is_expected(path, (one, other), template, settings)
    ]


def _differences(before: object, after: object, path: str) -> Iterator[tuple[str, object, object]]:
    """Yield path, value and new value of each field of `before` that `after` does not have as it is.

    Entries of lists keep their places, and new ones follow.
    """
    if isinstance(before, dict) and isinstance(after, dict) and before:
        for key, value in before.items():
            yield from _differences(value, after.get(key), f"{path}.{key}" if path else key)
    elif isinstance(before, list) and isinstance(after, list):
        for index, value in enumerate(before):
            name = value.get("name", index) if isinstance(value, dict) else index
            yield from _differences(value, after[index] if index < len(after) else None, f"{path}[{name}]")
    elif before != after:
        yield path, before, after


def _is_expected(path: str, values: tuple[object, object], template: Template, settings: Settings) -> bool:
    before, after = values
    if path in [f"metadata.annotations.{key}" for key in _NOT_COPIED]:
        return True
    if path == f"spec.volumes[{kube.USER_DATA_VOLUME}].emptyDir":
        return before == {}
    if _PORTS.fullmatch(path) and isinstance(before, int | str):
        number = kube.target_of(template.pod, before)
        return number in (after, Settings.model_fields["sandbox_container_port"].default)
    if _MOUNTED_PATH.fullmatch(path):  # below the sandbox's own folder
        return isinstance(before, str) and isinstance(after, str) and after.endswith(f"/{before}")
    setting = next((setting for pattern, setting in _SETTINGS.items() if re.fullmatch(pattern, path)), None)
    is_type_set = setting == "sandbox_service_type" and settings.is_set("sandbox_access")
    return setting is not None and (
        is_type_set or settings.is_set(setting) or before == Settings.model_fields[setting].default
    )


def sentence(name: str, fields: list[str]) -> str:
    """Return the line for the operator's log."""
    return f"The service replaces or leaves out these fields of the template {name}: {', '.join(fields)}."
