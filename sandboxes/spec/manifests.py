"""(sandbox, template) → the objects to apply. Pure.

A template is a folder of real YAML that `kubectl apply` takes as it stands. What is the service's own is set in it
by structure, never by text; whatever else an operator wrote there is kept. Nothing here knows kubectl or HTTP.
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
from sandboxes.spec.templates import suffix_of
from sandboxes.spec.volumes import volumes_of

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.options import CreateOptions, Sandbox
    from sandboxes.spec.templates import Template


# What a template says to the service, and not of its Pods.
_SAID_OF_TEMPLATES = (kube.DESCRIPTION_ANNOTATION, kube.POD_SECURITY_ANNOTATION)


def build(sandbox: Sandbox, template: Template, settings: Settings, *, applied_at: str) -> list[KubeObject]:
    """Return the Pod and the Service of `sandbox`, in the order in which they are applied.

    `applied_at` is an RFC 3339 time that no other apply has: it makes each apply a new version of the object, so
    that a delete with preconditions can't hit what was applied after it looked.
    """
    pod = _build_pod(sandbox, template, settings, datetime.fromisoformat(applied_at))
    service = _build_service(sandbox, template.service, settings)
    for obj in (pod, service):
        obj["metadata"]["annotations"][kube.APPLIED_AT_ANNOTATION] = applied_at
        obj["metadata"]["labels"] = {**dict(sandbox.asks.labels), **obj["metadata"]["labels"]}
    # On the Pod only: a Service's annotations are orders to load balancers and DNS.
    pod["metadata"]["annotations"] = {**dict(sandbox.asks.annotations), **pod["metadata"]["annotations"]}
    return [pod, service]


def build_extras(sandbox: Sandbox, template: Template, settings: Settings, *, applied_at: str) -> list[KubeObject]:
    """Return what the template brings for `sandbox` besides Pod and Service, in the order of the template."""
    return [_build_extra(sandbox, extra, settings, applied_at) for extra in template.extras]


def revision_of(pod: KubeObject) -> str | None:
    """Return the revision that a Pod was made with, or None if it has none."""
    for variable in kube.sandbox_container(pod).get("env") or []:
        if variable.get("name") == kube.REVISION_VARIABLE:
            value = variable.get("value")
            return value if isinstance(value, str) else None
    return None


def user_data_source(pod: KubeObject) -> KubeObject:
    """Return where a Pod's user data live: the volume's source, and the `subPath` of its mount.

    Two Pods with the same answer show the same data; an empty dict means that there is no such volume.
    """
    for volume in pod["spec"].get("volumes") or []:
        if volume["name"] == kube.USER_DATA_VOLUME:
            source = {key: value for key, value in volume.items() if key != "name"}
            mounts = kube.sandbox_container(pod).get("volumeMounts") or []
            sub_paths = [one.get("subPath", "") for one in mounts if one["name"] == kube.USER_DATA_VOLUME]
            return {"source": source, "subPaths": sub_paths}
    return {}


def without_news(obj: KubeObject, asks: CreateOptions, pod: KubeObject) -> KubeObject:
    """Return the object without the labels and annotations that were asked for and `pod` does not have already.

    For what is applied beside, or onto, a Pod that is there: that one is not changed by another request.
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
    # On the Pod only: when two owners apply at once, the Pod's revision refuses one of them, but kubectl goes on to
    # apply that one's Service. So a Service says nothing that the other owner would not say, too; but for labels that
    # were asked for, and these wait for the Pod (see service/create.py).
    owner = {kube.THREAD_ANNOTATION: sandbox.thread_id, kube.USER_ANNOTATION: sandbox.user_id}
    for said in _SAID_OF_TEMPLATES:
        pod["metadata"]["annotations"].pop(said, None)
    pod["metadata"]["annotations"].update(owner)
    pod["metadata"]["annotations"][kube.TEMPLATE_ANNOTATION] = sandbox.asks.template
    ttl = settings.sandbox_ttl if sandbox.ttl_seconds is None else sandbox.ttl_seconds
    idle = settings.sandbox_idle_timeout if sandbox.idle_timeout_seconds is None else sandbox.idle_timeout_seconds
    pod["metadata"]["annotations"].update(expiry.marks_of(ttl, idle, made_at))
    spec = pod["spec"]
    container = kube.sandbox_container(pod)
    container["image"] = sandbox.asks.image or settings.sandbox_image
    _set_port(container, settings.sandbox_container_port)
    seccomp = "RuntimeDefault" if template.is_restricted else settings.sandbox_seccomp
    spec.setdefault("securityContext", {})["seccompProfile"] = {"type": seccomp}
    container.get("startupProbe", {})["failureThreshold"] = settings.sandbox_startup_failure_threshold
    for volume, mount in volumes_of(sandbox, settings):
        if _is_own_claim(volume["name"], spec, claims) or (template.is_restricted and "hostPath" in volume):
            continue
        _replace(spec, "volumes", volume, "name")
        _narrow_mounts(spec, mount)
        _mount(container, mount)
    _set_asked(container, sandbox.asks)
    add_lark(spec, container, sandbox, settings)
    revision = _revision(pod, [ttl, idle, sandbox.asks.labels, sandbox.asks.annotations])
    _replace(container, "env", {"name": kube.REVISION_VARIABLE, "value": revision}, "name")
    return pod


def _build_service(sandbox: Sandbox, template: KubeObject, settings: Settings) -> KubeObject:
    service = copy.deepcopy(template)
    _name(service, kube.service_name(sandbox.sandbox_id), sandbox, settings)
    spec = service["spec"]
    spec["type"] = settings.sandbox_service_type
    spec["selector"] = {kube.ID_LABEL: sandbox.sandbox_id}
    port = {
        "name": kube.PORT_NAME,
        "port": settings.sandbox_container_port,
        "targetPort": settings.sandbox_container_port,
        "protocol": "TCP",
    }
    _replace(spec, "ports", port, "name")
    return service


def _name(obj: KubeObject, name: str, sandbox: Sandbox, settings: Settings) -> None:
    metadata = obj.setdefault("metadata", {})
    metadata["name"] = name
    metadata["namespace"] = settings.k8s_namespace
    metadata["labels"] = {**(metadata.get("labels") or {}), **kube.labels_of(sandbox.sandbox_id)}
    metadata["annotations"] = dict(metadata.get("annotations") or {})


def _set_asked(container: KubeObject, asks: CreateOptions) -> None:
    for name, value in asks.env:
        # Kubernetes replaces $(NAME) in a value by another variable's, and $$ by $. With every $ doubled, the value
        # arrives as it was sent.
        _replace(container, "env", {"name": name, "value": value.replace("$", "$$")}, "name")
    for kind, amounts in (("requests", asks.requests), ("limits", asks.limits)):
        if amounts:
            container.setdefault("resources", {}).setdefault(kind, {}).update(amounts)


def _renamed(value: Any, names: dict[str, str]) -> Any:  # noqa: ANN401 - any JSON
    """Return a copy in which each text that is exactly one of `names` is the new one."""
    if isinstance(value, dict):
        return {key: _renamed(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


def _is_own_claim(volume: str, spec: KubeObject, claims: set[str]) -> bool:
    """Whether the template has this volume on a claim that it brings: then that is what the operator wants.

    A claim that it only names is none of its own: the one of that name may be another owner's.
    """
    return any(
        one["name"] == volume and (one.get("persistentVolumeClaim") or {}).get("claimName") in claims
        for one in spec.get("volumes") or []
    )


def _set_port(container: KubeObject, port: int) -> None:
    _replace(container, "ports", {"name": kube.PORT_NAME, "containerPort": port, "protocol": "TCP"}, "name")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if "httpGet" in container.get(probe, {}):
            container[probe]["httpGet"]["port"] = port


def _replace(parent: KubeObject, field: str, entry: KubeObject, key: str) -> None:
    """Put `entry` into the list `field`, in the place of the one with the same `key`, else at its end."""
    entries = parent.setdefault(field, [])
    for index, existing in enumerate(entries):
        if existing.get(key) == entry[key]:
            entries[index] = entry
            return
    entries.append(entry)


def _narrow_mounts(spec: KubeObject, ours: KubeObject) -> None:
    """Give every mount of our volume, in every container, no more than our own mount of it gives.

    A template may mount the volume elsewhere, too, or in a sidecar or an init container. Each such mount stays below
    our `subPath`, which is all that parts the sandboxes on a claim that they share, and is read-only where ours is.
    """
    for container in (*spec["containers"], *(spec.get("initContainers") or [])):
        for mount in container.get("volumeMounts") or []:
            if mount.get("name") == ours["name"]:
                _narrow(mount, ours)


def _narrow(mount: KubeObject, ours: KubeObject) -> None:
    if ours.get("readOnly"):
        mount["readOnly"] = True
    if root := ours.get("subPath"):
        expression = mount.pop("subPathExpr", None)
        if expression:
            # The kubelet replaces $(NAME) in an expression, and $$ by $; it refuses what then leaves the folder.
            mount["subPathExpr"] = f"{root.replace('$', '$$')}/{expression}"
        if mount.get("subPath") or not expression:
            mount["subPath"] = posixpath.join(root, mount.get("subPath") or "").rstrip("/")


def _mount(container: KubeObject, ours: KubeObject) -> None:
    """Put our mount in the place of what the template has at its path, unless that is a mount of the same volume."""
    mounts = container.setdefault("volumeMounts", [])
    for index, mount in enumerate(mounts):
        # POSIX leaves the meaning of exactly two leading slashes open, and normpath keeps them: here they are one.
        if "/" + posixpath.normpath(mount["mountPath"]).lstrip("/") == ours["mountPath"]:
            if mount.get("name") != ours["name"]:
                mounts[index] = ours
            return
    mounts.append(ours)


def _revision(pod: KubeObject, asked: list[object]) -> str:
    """Return a hash of owner, rendered spec, and what else was asked for.

    Of two creates at once that ask for other lives or labels, the second is refused, and finds the first one's Pod. It
    becomes an env entry, which is immutable: another owner's apply, or another image's, is `Invalid` and never
    a silent change of the living container (kubectl.md 6: an image alone would be swapped without a word).
    """
    owner = [kube.get_annotations(pod)[key] for key in (kube.THREAD_ANNOTATION, kube.USER_ANNOTATION)]
    text = json.dumps([owner, pod["spec"], asked], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]
