"""Names, labels and annotations of the sandboxes' Kubernetes objects, and accessors for their fields. Pure.

An object is a plain dict: the JSON that kubectl reads and prints.
"""

from __future__ import annotations

from typing import Any, TypeAlias

# A Kubernetes object; its schema depends on its kind.
KubeObject: TypeAlias = dict[str, Any]
# (kind, name).
Key: TypeAlias = tuple[str, str]
# (kind, namespace, name); see `identity_of`.
Identity: TypeAlias = tuple[str, str, str]

APP_LABEL = "app"
APP = "deer-flow-sandbox"
ID_LABEL = "sandbox-id"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "sandbox-provisioner"

# Name of the Pod's template.
TEMPLATE_ANNOTATION = "provisioner/template"
# When the sandbox expires: an RFC 3339 time, or `never`.
EXPIRES_ANNOTATION = "provisioner/expires-at"
# When it was last used, an RFC 3339 time; and its idle timeout in seconds.
USED_ANNOTATION = "provisioner/used-at"
IDLE_ANNOTATION = "provisioner/idle-timeout-seconds"

THREAD_ANNOTATION = "provisioner/thread-id"
USER_ANNOTATION = "provisioner/user-id"
APPLIED_AT_ANNOTATION = "provisioner/applied-at"
# When a create last returned a Pod that existed already.
CONFIRMED_ANNOTATION = "provisioner/confirmed-at"
# On a Pod of several clusters: the cluster for which a create of the service has made it.
PLACED_ANNOTATION = "provisioner/placed-on"
# The same Pod's `applied-at`, since the create that made it is about to return it.
RETURNED_ANNOTATION = "provisioner/returned-at"
# When a create gave a Pod of several clusters the Service that it lacked. Says nothing of an answer to a caller.
COMPLETED_ANNOTATION = "provisioner/completed-at"
# On a Pod that was made without a Service: how it is reached, ACCESS_GATEWAY.
ACCESS_ANNOTATION = "provisioner/access"
ACCESS_GATEWAY = "gateway"
# On a Pod whose URLs were made invalid: another value makes them invalid again.
URL_GENERATION_ANNOTATION = "provisioner/url-generation"
# When the rollback of a failed create has decided to delete the object.
REFUSED_ANNOTATION = "provisioner/refused-at"

# In a template's pod.yaml: its description; and the Pod Security Standard that the service's additions must satisfy.
DESCRIPTION_ANNOTATION = "provisioner/description"
POD_SECURITY_ANNOTATION = "provisioner/pod-security"
# On a template's PersistentVolumeClaim: it outlives its sandbox.
KEEP_LABEL = "provisioner/keep"

# Kind → resource, as kubectl prints it.
RESOURCES = {
    "Pod": "pods",
    "Service": "services",
    "Namespace": "namespaces",
    "PersistentVolumeClaim": "persistentvolumeclaims",
    "ConfigMap": "configmaps",
    "NetworkPolicy": "networkpolicies.networking.k8s.io",
}

# (apiVersion, kind) that a template may contain besides Pod and Service.
EXTRA_KINDS = frozenset(
    {("v1", "PersistentVolumeClaim"), ("v1", "ConfigMap"), ("networking.k8s.io/v1", "NetworkPolicy")}
)

CONTAINER = "sandbox"
USER_DATA_VOLUME = "user-data"
SKILLS_VOLUME = "skills"
PORT_NAME = "http"
REVISION_VARIABLE = "SANDBOX_REVISION"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def pod_name(sandbox_id: str) -> str:
    """Return the name of a sandbox's Pod."""
    return f"sandbox-{sandbox_id}"


def service_name(sandbox_id: str) -> str:
    """Return the name of a sandbox's Service."""
    return service_name_beside(pod_name(sandbox_id))


def service_name_beside(pod_name: str) -> str:
    """Return the name of the Service of the Pod with this name."""
    return f"{pod_name}-svc"


def id_in_name(kind: str, name: str) -> str:
    """Return the id in the name of a sandbox's Pod or Service; for other objects the result is not a sandbox id."""
    if kind == "Service":
        name = name.removesuffix("-svc")
    return name.removeprefix("sandbox-")


def extra_name(sandbox_id: str, suffix: str) -> str:
    """Return the name of an extra object of a sandbox; names are unique, since a suffix has no dash."""
    return f"{pod_name(sandbox_id)}-{suffix}"


def labels_of(sandbox_id: str) -> dict[str, str]:
    """Return the labels that all objects of a sandbox have."""
    return {
        APP_LABEL: APP,
        ID_LABEL: sandbox_id,
        "app.kubernetes.io/name": "deer-flow",
        "app.kubernetes.io/component": "sandbox",
        MANAGED_BY_LABEL: MANAGED_BY,
    }


def key_of(obj: KubeObject) -> Key:
    """Return (kind, name), which identifies an object in its namespace."""
    return obj["kind"], obj["metadata"]["name"]


def get_labels(obj: KubeObject) -> dict[str, str]:
    """Return the labels of an object; empty if it has none."""
    return obj["metadata"].get("labels") or {}


def get_annotations(obj: KubeObject) -> dict[str, str]:
    """Return the annotations of an object; empty if it has none."""
    return obj["metadata"].get("annotations") or {}


def owner_of(obj: KubeObject) -> tuple[str | None, str | None]:
    """Return (thread id, user id) of an object; each is None if it is not annotated."""
    annotations = get_annotations(obj)
    return annotations.get(THREAD_ANNOTATION), annotations.get(USER_ANNOTATION)


def is_managed(obj: KubeObject) -> bool:
    """Whether this service created or adopted the object."""
    return get_labels(obj).get(MANAGED_BY_LABEL) == MANAGED_BY


def is_behind_gateway(pod: KubeObject) -> bool:
    """Whether the Pod was made to be reached by the gateway: it is a whole sandbox without a Service."""
    return get_annotations(pod).get(ACCESS_ANNOTATION) == ACCESS_GATEWAY


def is_terminating(obj: KubeObject) -> bool:
    """Whether the object is being deleted, or about to be by a rollback; its containers may still run."""
    return is_being_deleted(obj) or is_refused(obj)


def is_being_deleted(obj: KubeObject) -> bool:
    """Whether the API server is deleting the object."""
    return "deletionTimestamp" in obj["metadata"]


def is_refused(obj: KubeObject) -> bool:
    """Whether the rollback of a failed create has marked the object, and deletes it at once."""
    return REFUSED_ANNOTATION in get_annotations(obj)


def sandbox_id_of(obj: KubeObject) -> str | None:
    """Return the sandbox id of a Pod or Service, or None if it does not belong to a sandbox.

    Label and name must match, so that a list and a get by name agree.
    """
    marks = get_labels(obj)
    sandbox_id = marks.get(ID_LABEL)
    if marks.get(APP_LABEL) != APP or not sandbox_id:
        return None
    name = service_name(sandbox_id) if obj["kind"] == "Service" else pod_name(sandbox_id)
    return sandbox_id if obj["metadata"]["name"] == name else None


def sandbox_container(pod: KubeObject) -> KubeObject:
    """Return the container named `sandbox`; an empty dict if the Pod has none (it is not a sandbox's)."""
    found: KubeObject = next((one for one in pod["spec"]["containers"] if one["name"] == CONTAINER), {})
    return found


def is_tcp(port: KubeObject) -> bool:
    """Whether a port of a container or a Service is a TCP port, which is the default."""
    return bool(port.get("protocol", "TCP") == "TCP")


def server_port(pod: KubeObject) -> int | None:
    """Return the port on which a sandbox's server listens, or None if its Pod does not say.

    In this order: the port that a probe asks, the container's TCP port named `http`, its only TCP port.
    """
    container = sandbox_container(pod)
    for probe in PROBES:
        port = target_of(pod, ((container.get(probe) or {}).get("httpGet") or {}).get("port"))
        if port is not None:
            return port
    ports = [one for one in container.get("ports") or [] if is_tcp(one)]
    named = [one for one in ports if one.get("name") == PORT_NAME]
    for found in (named, ports):
        if len(found) == 1:
            number: int | None = found[0].get("containerPort")
            return number
    return None


def target_of(pod: KubeObject | None, target: int | str | None) -> int | None:
    """Return the number of a port that a probe or a Service names; None if the Pod's containers do not have it."""
    if not isinstance(target, str):
        return target
    containers = pod["spec"]["containers"] if pod else []
    ports = (port for container in containers for port in container.get("ports") or [])
    return next((port.get("containerPort") for port in ports if port.get("name") == target), None)


def sandbox_port(service: KubeObject, pod: KubeObject | None, default: int) -> KubeObject | None:
    """Return the port of a Service that leads to the sandbox's server, or None if it has no such port.

    Among its TCP ports: the one named `http`; else the only one; else the one whose target is the server's port; else
    the one that is the server's port itself. `default`: the server's port, where the Pod does not say it.
    """
    ports: list[KubeObject] = [one for one in service["spec"].get("ports") or [] if is_tcp(one)]
    number = (server_port(pod) if pod else None) or default
    for found in (
        [one for one in ports if one.get("name") == PORT_NAME],
        ports if len(ports) == 1 else [],
        [one for one in ports if target_of(pod, one.get("targetPort", one.get("port"))) == number],
        [one for one in ports if one.get("port") == number],
    ):
        if found:
            return found[0]
    return None


def leads_to(pod: KubeObject, port: KubeObject) -> bool:
    """Whether something in the Pod may listen where this port of its Service leads.

    False only if the Pod says where its server listens, and no container declares the port's target.
    """
    target = target_of(pod, port.get("targetPort", port.get("port")))
    declared = (
        one.get("containerPort") for container in pod["spec"]["containers"] for one in container.get("ports") or []
    )
    return server_port(pod) in (None, target) or target in declared


def is_headless(service: KubeObject) -> bool:
    """Whether the Service has no address of its own: its name resolves to the Pod's address."""
    return bool(service["spec"].get("clusterIP") == "None")


def resource_of(kind: str) -> str:
    """Return the resource of a kind in RESOURCES without its API group, as in a path."""
    return RESOURCES[kind].partition(".")[0]


def path_of(obj: KubeObject) -> str:
    """Return the API path of an object whose kind is in RESOURCES."""
    root = f"/apis/{obj['apiVersion']}" if "/" in obj["apiVersion"] else f"/api/{obj['apiVersion']}"
    resource = resource_of(obj["kind"])
    return f"{root}/namespaces/{obj['metadata']['namespace']}/{resource}/{obj['metadata']['name']}"


def condition_of(pod: KubeObject, kind: str) -> KubeObject:
    """Return the Pod condition of type `kind`; an empty dict if the Pod does not have it."""
    conditions: list[KubeObject] = (pod.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one.get("type") == kind), {})


def sandbox_container_status(pod: KubeObject) -> KubeObject:
    """Return the status of the container named `sandbox`; an empty dict before the kubelet has reported it."""
    statuses: list[KubeObject] = (pod.get("status") or {}).get("containerStatuses") or []
    return next((one for one in statuses if one.get("name") == CONTAINER), {})


def identity_of(obj: KubeObject) -> Identity:
    """Return (kind, namespace, name); the namespace is empty for cluster-scoped objects."""
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace", ""), metadata["name"]


def as_list(objects: list[KubeObject]) -> KubeObject:
    """Return one List. If its JSON is cut off, it is rejected whole; separate documents would be applied in part."""
    return {"apiVersion": "v1", "kind": "List", "items": objects}


def reference(obj: KubeObject) -> KubeObject:
    """Return a stub of the object that identifies it, for `get -f -` and `delete -f -`."""
    metadata = obj["metadata"]
    return {
        "apiVersion": obj["apiVersion"],
        "kind": obj["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace") if key in metadata or key == "name"},
    }


def references_of(sandbox_id: str, namespace: str) -> list[KubeObject]:
    """Return the references of a sandbox's Pod and Service; see `reference`."""
    return [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod_name(sandbox_id), "namespace": namespace}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": service_name(sandbox_id), "namespace": namespace}},
    ]


def of_kind(kind: str, objects: list[KubeObject]) -> KubeObject | None:
    """Return the first object of this kind, or None."""
    return next((obj for obj in objects if obj["kind"] == kind), None)
