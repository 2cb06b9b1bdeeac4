"""Kubernetes objects as they are on the wire, and the marks that make one a sandbox's. Pure.

An object is the JSON that kubectl reads and prints: a plain dict. The names here are the one place where they are
spelled.
"""

from __future__ import annotations

from typing import Any, TypeAlias

# The JSON of a Kubernetes object has the shape that its kind says; nothing here knows all of it.
KubeObject: TypeAlias = dict[str, Any]
# The kind and the name of an object.
Key: TypeAlias = tuple[str, str]

APP_LABEL = "app"
APP = "deer-flow-sandbox"
ID_LABEL = "sandbox-id"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "sandbox-provisioner"

# The name of the template that a Pod was made from.
TEMPLATE_ANNOTATION = "provisioner/template"
# When a sandbox ends: an RFC 3339 time, or `never`.
EXPIRES_ANNOTATION = "provisioner/expires-at"
# When it was last used, an RFC 3339 time, and for how many seconds it may stay unused.
USED_ANNOTATION = "provisioner/used-at"
IDLE_ANNOTATION = "provisioner/idle-timeout-seconds"

THREAD_ANNOTATION = "provisioner/thread-id"
USER_ANNOTATION = "provisioner/user-id"
APPLIED_AT_ANNOTATION = "provisioner/applied-at"
# When a Pod was returned to a caller whose create had not made it.
CONFIRMED_ANNOTATION = "provisioner/confirmed-at"

# On a template's pod.yaml: what it is for, in a sentence; and which Pod security standard nothing of the service's own
# may break.
DESCRIPTION_ANNOTATION = "provisioner/description"
POD_SECURITY_ANNOTATION = "provisioner/pod-security"
# On a PersistentVolumeClaim of a template: it stays when its sandbox goes.
KEEP_LABEL = "provisioner/keep"

# What kubectl calls the objects of a kind.
RESOURCES = {
    "Pod": "pods",
    "Service": "services",
    "Namespace": "namespaces",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "ConfigMap": "configmaps",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
}

# What a template may bring besides Pod and Service: apiVersion and kind.
EXTRA_KINDS = frozenset(
    {("v1", "PersistentVolumeClaim"), ("v1", "ConfigMap"), ("networking.k8s.io/v1", "NetworkPolicy")}
)

CONTAINER = "sandbox"
USER_DATA_VOLUME = "user-data"
SKILLS_VOLUME = "skills"
PORT_NAME = "http"
REVISION_VARIABLE = "SANDBOX_REVISION"


def pod_name(sandbox_id: str) -> str:
    """Return the name of a sandbox's Pod."""
    return f"sandbox-{sandbox_id}"


def service_name(sandbox_id: str) -> str:
    """Return the name of a sandbox's Service."""
    return service_name_beside(pod_name(sandbox_id))


def service_name_beside(pod_name: str) -> str:
    """Return the name of the Service that belongs to the Pod of this name."""
    return f"{pod_name}-svc"


def id_in_name(kind: str, name: str) -> str:
    """Return the id in the name of a sandbox's Pod or Service; of another object, a text that is no sandbox's."""
    if kind == "Service":
        name = name.removesuffix("-svc")
    return name.removeprefix("sandbox-")


def extra_name(sandbox_id: str, suffix: str) -> str:
    """Return the name of an extra object of a sandbox; a suffix has no dash, so no two sandboxes share a name."""
    return f"{pod_name(sandbox_id)}-{suffix}"


def labels_of(sandbox_id: str) -> dict[str, str]:
    """Return the labels that every object of a sandbox carries."""
    return {
        APP_LABEL: APP,
        ID_LABEL: sandbox_id,
        "app.kubernetes.io/name": "deer-flow",
        "app.kubernetes.io/component": "sandbox",
        MANAGED_BY_LABEL: MANAGED_BY,
    }


def key_of(obj: KubeObject) -> Key:
    """Return kind and name, which tell an object from all others of its namespace."""
    return obj["kind"], obj["metadata"]["name"]


def get_labels(obj: KubeObject) -> dict[str, str]:
    """Return an object's labels, empty if it has none."""
    return obj["metadata"].get("labels") or {}


def get_annotations(obj: KubeObject) -> dict[str, str]:
    """Return an object's annotations, empty if it has none."""
    return obj["metadata"].get("annotations") or {}


def owner_of(obj: KubeObject) -> tuple[str | None, str | None]:
    """Return an object's thread and user, None for each that it does not name."""
    annotations = get_annotations(obj)
    return annotations.get(THREAD_ANNOTATION), annotations.get(USER_ANNOTATION)


def is_managed(obj: KubeObject) -> bool:
    """Whether the object was made, or adopted, by this service."""
    return get_labels(obj).get(MANAGED_BY_LABEL) == MANAGED_BY


def is_terminating(obj: KubeObject) -> bool:
    """Whether the object is being deleted: it may still run, but it will vanish."""
    return "deletionTimestamp" in obj["metadata"]


def sandbox_id_of(obj: KubeObject) -> str | None:
    """Return the id of the sandbox that this Pod or Service belongs to, or None if it is nobody's.

    Label and name must agree, so that a list and a look-up by name say the same.
    """
    marks = get_labels(obj)
    sandbox_id = marks.get(ID_LABEL)
    if marks.get(APP_LABEL) != APP or not sandbox_id:
        return None
    name = service_name(sandbox_id) if obj["kind"] == "Service" else pod_name(sandbox_id)
    return sandbox_id if obj["metadata"]["name"] == name else None


def sandbox_container(pod: KubeObject) -> KubeObject:
    """Return the container named `sandbox`; an empty dict for a Pod that has none (somebody else's)."""
    found: KubeObject = next((one for one in pod["spec"]["containers"] if one["name"] == CONTAINER), {})
    return found


def resource_of(kind: str) -> str:
    """Return the plural of one of RESOURCES as it stands in a path, without its group."""
    return RESOURCES[kind].partition(".")[0]


def path_of(obj: KubeObject) -> str:
    """Return the path of an object of one of RESOURCES at the API server."""
    root = f"/apis/{obj['apiVersion']}" if "/" in obj["apiVersion"] else f"/api/{obj['apiVersion']}"
    resource = resource_of(obj["kind"])
    return f"{root}/namespaces/{obj['metadata']['namespace']}/{resource}/{obj['metadata']['name']}"


def condition_of(pod: KubeObject, kind: str) -> KubeObject:
    """Return a Pod's condition of this type; an empty dict for one that it does not have (yet)."""
    conditions: list[KubeObject] = (pod.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), {})


def sandbox_container_status(pod: KubeObject) -> KubeObject:
    """Return what the node tells of the container named `sandbox`; an empty dict where it has told nothing (yet)."""
    statuses: list[KubeObject] = (pod.get("status") or {}).get("containerStatuses") or []
    return next((one for one in statuses if one.get("name") == CONTAINER), {})


def identity_of(obj: KubeObject) -> tuple[str, str, str]:
    """Return kind, namespace (empty where there is none) and name."""
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace", ""), metadata["name"]


def as_list(objects: list[KubeObject]) -> KubeObject:
    """Return one List: cut short, it is refused whole, where documents in a row would be applied by half."""
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def reference(obj: KubeObject) -> KubeObject:
    """Return as much of an object as names it, for `get -f -` and `delete -f -`."""
    metadata = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace") if key in metadata or key == "name"},
    }


def references_of(sandbox_id: str, namespace: str) -> list[KubeObject]:
    """Return what names a sandbox's Pod and Service."""
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod_name(sandbox_id), "namespace": namespace}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": service_name(sandbox_id), "namespace": namespace}},
    ]


def of_kind(kind: str, objects: list[KubeObject]) -> KubeObject | None:
    """Return the first of the objects that is of this kind."""
    return next((obj for obj in objects if obj["kind"] == kind), None)
