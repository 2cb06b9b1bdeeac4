"""Admission of valid creates: checks the namespace and the service account, sets Pod defaults.

These are the default admission plugins of kubeadm, as far as the record shows them. Reads the store, writes nothing.
"""

from devcluster import claims, pods
from devcluster.errors import forbidden, not_found
from devcluster.objects import Json, is_terminating, metadata, name_of, namespace_of
from devcluster.resources import CLAIMS, NAMESPACES, PODS, RUNTIME_CLASSES, SERVICE_ACCOUNTS, STORAGE_CLASSES, Resource
from devcluster.store import Store

_TOLERATED_SECONDS = 300
_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


class Admission:
    """Checks and completes new objects."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def admit(self, resource: Resource, obj: Json) -> None:
        """Complete a new object in place. Raises NotFound or Forbidden."""
        if resource.namespaced:
            self._check_namespace(resource, obj)
        if resource is PODS:
            self._admit_pod(obj)
        elif resource is CLAIMS:
            claims.protect(obj)
            self._choose_storage_class(obj)

    def _check_namespace(self, resource: Resource, obj: Json) -> None:
        """Refuse a namespace that does not exist (`apply-missing-namespace`) or is terminating."""
        namespace = namespace_of(obj)
        found = self._store.get(NAMESPACES, "", namespace)
        if found is None:
            raise not_found(NAMESPACES, namespace)
        if is_terminating(found.obj):  # `apply-namespace-terminating`
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden(resource, name_of(obj), why, causes=[cause])

    def _admit_pod(self, pod: Json) -> None:
        """Set the Pod's service account (`apply-right-after-namespace`), token, tolerations and priority."""
        spec = pod["spec"]
        namespace = namespace_of(pod)
        account = spec.setdefault("serviceAccountName", "default")
        spec["serviceAccount"] = account
        found = self._store.get(SERVICE_ACCOUNTS, namespace, account)
        if found is None:
            missing = f'serviceaccount "{account}" not found'
            why = f"error looking up service account {namespace}/{account}: {missing}"
            raise forbidden(PODS, name_of(pod), why)
        if spec.get("automountServiceAccountToken", found.obj.get("automountServiceAccountToken", True)):
            pods.add_token(pod)
        tolerations = spec.setdefault("tolerations", [])
        for taint in _TAINTS:
            if all(toleration.get("key") not in (taint, None) for toleration in tolerations):
                tolerations.append(
                    {
                        "key": taint,
                        "operator": "Exists",
                        "effect": "NoExecute",
                        "tolerationSeconds": _TOLERATED_SECONDS,
                    }
                )
        runtime_class = spec.get("runtimeClassName")
        if runtime_class is not None and self._store.get(RUNTIME_CLASSES, "", runtime_class) is None:
            raise forbidden(PODS, name_of(pod), f'pod rejected: RuntimeClass "{runtime_class}" not found')
        spec.setdefault("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")

    def _choose_storage_class(self, claim: Json) -> None:
        """Set the default StorageClass, if there is one, on a claim without a class."""
        for record in self._store.find(STORAGE_CLASSES):
            marks = metadata(record.obj).get("annotations") or {}
            if marks.get("storageclass.kubernetes.io/is-default-class") == "true":
                claim["spec"].setdefault("storageClassName", name_of(record.obj))
