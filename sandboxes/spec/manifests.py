"""Builds the Pod, Service and extra objects of one sandbox from its template. Pure; knows neither kubectl nor HTTP.

A template is a folder of YAML manifests that `kubectl apply` accepts unchanged. The service sets its own fields in the
parsed objects, never in the text, and keeps every other field.
"""

from __future__ import annotations

import copy
import hashlib
import json
import posixpath
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.spec.lark import add_lark
from sandboxes.spec.ports import set_container_port, set_service_port
from sandboxes.spec.seccomp import set_seccomp
from sandboxes.spec.templates import suffix_of
from sandboxes.spec.volumes import volumes_of

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.options import CreateOptions, Sandbox
    from sandboxes.spec.templates import Template


# Annotations about the template itself, not copied to its Pods.
_TEMPLATE_ONLY_ANNOTATIONS = (kube.DESCRIPTION_ANNOTATION, kube.POD_SECURITY_ANNOTATION)
# Annotations that only the service sets.
_OWN_ANNOTATIONS = (kube.ACCESS_ANNOTATION, kube.URL_GENERATION_ANNOTATION)


def build(sandbox: Sandbox, template: Template, settings: Settings, *, applied_at: str) -> list[KubeObject]:
    """Return the objects of a new `sandbox`, in the order to apply them: its Pod, and the Service if it needs one."""
    pod, service = build_pair(sandbox, template, settings, applied_at=applied_at)
    return [pod] if kube.is_behind_gateway(pod) else [pod, service]


def build_pair(sandbox: Sandbox, template: Template, settings: Settings, *, applied_at: str) -> list[KubeObject]:
    """Return the Pod of a new `sandbox`, and the Service that it has, or that an existing Pod without one gets.

    `applied_at` is an RFC 3339 time, unique to this apply. It gives the objects a new resourceVersion on every apply,
    so a delete with preconditions fails if another apply came in between.
    """
    pod = _build_pod(sandbox, template, settings, datetime.fromisoformat(applied_at))
    service = _build_service(sandbox, template.service, settings)
    for obj in (pod, service):
        obj["metadata"]["annotations"][kube.APPLIED_AT_ANNOTATION] = applied_at
        obj["metadata"]["labels"] = {**dict(sandbox.asks.labels), **obj["metadata"]["labels"]}
    # On the Pod only: load balancer and DNS controllers act on a Service's annotations.
    pod["metadata"]["annotations"] = {**dict(sandbox.asks.annotations), **pod["metadata"]["annotations"]}
    return [pod, service]


def build_extras(sandbox: Sandbox, template: Template, settings: Settings, *, applied_at: str) -> list[KubeObject]:
    """Return the template's extra objects (all but Pod and Service) for `sandbox`, in the template's order."""
    return [_build_extra(sandbox, extra, settings, applied_at) for extra in template.extras]


def user_data_source(pod: KubeObject) -> KubeObject:
    """Return the source of the Pod's user-data volume and its mounts' `subPath`s; an empty dict without the volume.

    Two Pods with equal results share their user data.
    """
    for volume in pod["spec"].get("volumes") or []:
        if volume["name"] == kube.USER_DATA_VOLUME:
            source = {key: value for key, value in volume.items() if key != "name"}
            mounts = kube.sandbox_container(pod).get("volumeMounts") or []
            sub_paths = [one.get("subPath", "") for one in mounts if one["name"] == kube.USER_DATA_VOLUME]
            return {"source": source, "subPaths": sub_paths}
    return {}


def without_news(obj: KubeObject, asks: CreateOptions, pod: KubeObject) -> KubeObject:
    """Return `obj` without the requested labels and annotations that the existing `pod` does not have.

    A later request must not change an existing sandbox.
    """
    metadata = dict(obj["metadata"])
    for part, asked, had in (
        ("labels", dict(asks.labels), kube.get_labels(pod)),
        ("annotations", dict(asks.annotations), kube.get_annotations(pod)),
    ):
        metadata[part] = {
            key: value for key, value in metadata[part].items() if key not in asked or had.get(key) == value
        }
    return {**obj, "metadata": metadata}


def _build_extra(sandbox: Sandbox, template: KubeObject, settings: Settings, applied_at: str) -> KubeObject:
    extra = copy.deepcopy(template)
    _name(extra, kube.extra_name(sandbox.sandbox_id, suffix_of(template)), sandbox, settings)
    extra["metadata"]["annotations"] |= {
        kube.THREAD_ANNOTATION: sandbox.thread_id,
        kube.USER_ANNOTATION: sandbox.user_id,
        kube.TEMPLATE_ANNOTATION: sandbox.asks.template,
        kube.APPLIED_AT_ANNOTATION: applied_at,
    }
    if extra["kind"] == "NetworkPolicy":
        extra["spec"]["podSelector"] = {"matchLabels": {kube.ID_LABEL: sandbox.sandbox_id}}
    return extra


def _build_pod(sandbox: Sandbox, template: Template, settings: Settings, made_at: datetime) -> KubeObject:
    pod = copy.deepcopy(template.pod)
    names = {
        extra["metadata"]["name"]: kube.extra_name(sandbox.sandbox_id, suffix_of(extra)) for extra in template.extras
    }
    claims = {names[one["metadata"]["name"]] for one in template.extras if one["kind"] == "PersistentVolumeClaim"}
    pod["spec"] = _renamed(pod["spec"], names)
    _name(pod, kube.pod_name(sandbox.sandbox_id), sandbox, settings)
    # On the Pod only. When two owners apply at once, the revision makes one Pod's apply fail, but kubectl still applies
    # that owner's Service. So a Service must not depend on its owner. The exception is requested labels: with them, the
    # Service is applied after the Pod (see service/create.py).
    owner = {kube.THREAD_ANNOTATION: sandbox.thread_id, kube.USER_ANNOTATION: sandbox.user_id}
    for annotation in (*_TEMPLATE_ONLY_ANNOTATIONS, *_OWN_ANNOTATIONS):
        pod["metadata"]["annotations"].pop(annotation, None)
    pod["metadata"]["annotations"].update(owner)
    pod["metadata"]["annotations"][kube.TEMPLATE_ANNOTATION] = sandbox.asks.template
    ttl = settings.sandbox_ttl if sandbox.ttl_seconds is None else sandbox.ttl_seconds
    idle = settings.sandbox_idle_timeout if sandbox.idle_timeout_seconds is None else sandbox.idle_timeout_seconds
    pod["metadata"]["annotations"].update(expiry.marks_of(ttl, idle, made_at))
    spec = pod["spec"]
    container = kube.sandbox_container(pod)
    container["image"] = sandbox.asks.image or settings.sandbox_image
    set_container_port(container, settings.sandbox_container_port)
    set_seccomp(spec, template, container["image"], settings)
    container.get("startupProbe", {})["failureThreshold"] = settings.sandbox_startup_failure_threshold
    for volume, mount in volumes_of(sandbox, settings):
        if _is_own_claim(volume["name"], spec, claims) or (template.is_restricted and "hostPath" in volume):
            continue
        _set_volume(spec, volume)
        _narrow_mounts(spec, mount)
        _mount(container, mount)
    _set_asked(container, sandbox.asks)
    add_lark(spec, container, sandbox, settings)
    asked: list[object] = [ttl, idle, sandbox.asks.labels, sandbox.asks.annotations]
    if settings.access == "gateway":
        # Part of the revision, so that services with different settings can't merge their objects. Other Pods keep the
        # revision that they had before there was a gateway.
        pod["metadata"]["annotations"][kube.ACCESS_ANNOTATION] = kube.ACCESS_GATEWAY
        asked.append(kube.ACCESS_GATEWAY)
    revision = _revision(pod, asked)
    _replace(container, "env", {"name": kube.REVISION_VARIABLE, "value": revision}, "name")
    return pod


def _build_service(sandbox: Sandbox, template: KubeObject, settings: Settings) -> KubeObject:
    service = copy.deepcopy(template)
    _name(service, kube.service_name(sandbox.sandbox_id), sandbox, settings)
    spec = service["spec"]
    spec["type"] = settings.service_type
    spec["selector"] = {kube.ID_LABEL: sandbox.sandbox_id}
    set_service_port(spec, settings.sandbox_container_port)
    return service


def _name(obj: KubeObject, name: str, sandbox: Sandbox, settings: Settings) -> None:
    metadata = obj.setdefault("metadata", {})
    metadata["name"] = name
    metadata["namespace"] = settings.k8s_namespace
    metadata["labels"] = {**(metadata.get("labels") or {}), **kube.labels_of(sandbox.sandbox_id)}
    metadata["annotations"] = dict(metadata.get("annotations") or {})


def _set_asked(container: KubeObject, asks: CreateOptions) -> None:
    for name, value in asks.env:
        # Kubernetes expands $(NAME) and turns $$ into $. Doubling every $ passes the value through unchanged.
        _replace(container, "env", {"name": name, "value": value.replace("$", "$$")}, "name")
    for kind, amounts in (("requests", asks.requests), ("limits", asks.limits)):
        if amounts:
            container.setdefault("resources", {}).setdefault(kind, {}).update(amounts)


def _renamed(value: Any, names: dict[str, str]) -> Any:  # noqa: ANN401 - any JSON
    """Return a copy with every string that equals a key of `names` replaced by its value."""
    if isinstance(value, dict):
        return {key: _renamed(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


def _is_own_claim(volume: str, spec: KubeObject, claims: set[str]) -> bool:
    """Whether the template mounts this volume from a claim of its own; that takes precedence over the settings.

    A claim that it only refers to does not count: it may belong to another owner.
    """
    return any(
        one["name"] == volume and (one.get("persistentVolumeClaim") or {}).get("claimName") in claims
        for one in spec.get("volumes") or []
    )


def _replace(parent: KubeObject, field: str, entry: KubeObject, key: str) -> None:
    """Replace the entry of list `field` with the same `key`, or append `entry`."""
    entries = parent.setdefault(field, [])
    for index, existing in enumerate(entries):
        if existing.get(key) == entry[key]:
            entries[index] = entry
            return
    entries.append(entry)


def _set_volume(spec: KubeObject, volume: KubeObject) -> None:
    """Replace the volume of the same name, or append it. An `emptyDir` keeps the template's medium and size limit."""
    own: KubeObject = next((one for one in spec.get("volumes") or [] if one["name"] == volume["name"]), {})
    if "emptyDir" in volume and "emptyDir" in own:
        return
    _replace(spec, "volumes", volume, "name")


def _narrow_mounts(spec: KubeObject, service_mount: KubeObject) -> None:
    """Restrict every mount of the volume, in all containers, to the access of the service's own mount.

    A template may mount the volume at other paths, in a sidecar or in an init container. Each of these mounts is moved
    below the service's `subPath`, the only separation between sandboxes on a shared claim, and inherits `readOnly`.
    """
    for container in (*spec["containers"], *(spec.get("initContainers") or [])):
        for mount in container.get("volumeMounts") or []:
            if mount.get("name") == service_mount["name"]:
                _narrow(mount, service_mount)


def _narrow(mount: KubeObject, service_mount: KubeObject) -> None:
    if service_mount.get("readOnly"):
        mount["readOnly"] = True
    if root := service_mount.get("subPath"):
        expression = mount.pop("subPathExpr", None)
        if expression:
            # The kubelet expands $(NAME), turns $$ into $, and rejects a path that then leaves the folder.
            mount["subPathExpr"] = f"{root.replace('$', '$$')}/{expression}"
        if mount.get("subPath") or not expression:
            mount["subPath"] = posixpath.join(root, mount.get("subPath") or "").rstrip("/")


def _mount(container: KubeObject, service_mount: KubeObject) -> None:
    """Add the service's mount, replacing a mount of another volume at the same path; keep one of the same volume."""
    mounts = container.setdefault("volumeMounts", [])
    for index, mount in enumerate(mounts):
        # normpath keeps exactly two leading slashes, as POSIX allows; treat them as one.
        if "/" + posixpath.normpath(mount["mountPath"]).lstrip("/") == service_mount["mountPath"]:
            if mount.get("name") != service_mount["name"]:
                mounts[index] = service_mount
            return
    mounts.append(service_mount)


def _revision(pod: KubeObject, asked: list[object]) -> str:
    """Return a hash of owner, rendered spec and the other requested options, 32 hex digits.

    It is set as an env variable, which is immutable: an apply with another owner, image, lifetime or label fails as
    `Invalid`. Without it, an apply would silently swap the image of a running container (kubectl.md 6). Of two
    concurrent creates with different options the second fails, looks again, and finds the first one's Pod.
    """
    owner = [kube.get_annotations(pod)[key] for key in (kube.THREAD_ANNOTATION, kube.USER_ANNOTATION)]
    text = json.dumps([owner, pod["spec"], asked], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
