"""The table of served resources, as discovery describes them. Knows no objects."""

from dataclasses import dataclass

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
NAMESPACE_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the API: its group, names and verbs."""

    group: str
    version: str
    plural: str
    kind: str
    singular: str
    namespaced: bool = True
    verbs: tuple[str, ...] = ALL_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    has_status: bool = False
    definition: str = ""
    """The name of the kind's definition in the schema; empty for reviews, which are not stored."""

    counts_generations: bool = False
    """Whether objects have `metadata.generation`, as Pods do (`apply-create`) and Services don't."""

    answers_deleted_object: bool = True
    """Whether a delete returns the object (`delete-stdin`) or a `Status`."""

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name in messages: `pods`, `networkpolicies.networking.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def stored(self) -> bool:
        """Whether objects of this kind are stored."""
        return bool(self.definition)


def _core(plural: str, kind: str, short: str, **rest: object) -> Resource:
    options = {
        "definition": f"io.k8s.api.core.v1.{kind}",
        "short_names": (short,),
        "singular": kind.lower(),
        **rest,
    }
    return Resource("", "v1", plural, kind, **options)  # type: ignore[arg-type]  # the keywords are Resource's own


CONFIG_MAPS = _core("configmaps", "ConfigMap", "cm", answers_deleted_object=False)
EVENTS = _core("events", "Event", "ev", answers_deleted_object=False)
NAMESPACES = _core("namespaces", "Namespace", "ns", namespaced=False, verbs=NAMESPACE_VERBS, has_status=True)
CLAIMS = _core("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", has_status=True)
PODS = _core("pods", "Pod", "po", categories=("all",), has_status=True, counts_generations=True)
QUOTAS = _core("resourcequotas", "ResourceQuota", "quota", verbs=READ_VERBS, has_status=True)
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount", "sa")
SERVICES = _core("services", "Service", "svc", categories=("all",), has_status=True)
NETWORK_POLICIES = Resource(
    "networking.k8s.io",
    "v1",
    "networkpolicies",
    "NetworkPolicy",
    "networkpolicy",
    short_names=("netpol",),
    definition="io.k8s.api.networking.v1.NetworkPolicy",
    counts_generations=True,
    answers_deleted_object=False,
)
RUNTIME_CLASSES = Resource(
    "node.k8s.io",
    "v1",
    "runtimeclasses",
    "RuntimeClass",
    "runtimeclass",
    namespaced=False,
    definition="io.k8s.api.node.v1.RuntimeClass",
    answers_deleted_object=False,
)
STORAGE_CLASSES = Resource(
    "storage.k8s.io",
    "v1",
    "storageclasses",
    "StorageClass",
    "storageclass",
    namespaced=False,
    short_names=("sc",),
    definition="io.k8s.api.storage.v1.StorageClass",
)
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    "selfsubjectaccessreview",
    namespaced=False,
    verbs=("create",),
)
RULES_REVIEWS = Resource(
    "authorization.k8s.io",
    "v1",
    "selfsubjectrulesreviews",
    "SelfSubjectRulesReview",
    "selfsubjectrulesreview",
    namespaced=False,
    verbs=("create",),
)

RESOURCES = (
    CONFIG_MAPS,
    EVENTS,
    NAMESPACES,
    CLAIMS,
    PODS,
    QUOTAS,
    SERVICE_ACCOUNTS,
    SERVICES,
    ACCESS_REVIEWS,
    RULES_REVIEWS,
    NETWORK_POLICIES,
    STORAGE_CLASSES,
    RUNTIME_CLASSES,
)
BY_PATH = {(resource.group, resource.version, resource.plural): resource for resource in RESOURCES}
BY_KIND = {resource.kind: resource for resource in RESOURCES}
GROUPS = tuple(dict.fromkeys((resource.group, resource.version) for resource in RESOURCES if resource.group))
