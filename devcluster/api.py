"""The verbs of the API on stored objects: create, apply, patch, update. Deleting is in `deletion`.

Knows objects and options, no HTTP. Every refusal is an ApiError.
"""

from dataclasses import dataclass, field
from http import HTTPStatus

from devcluster import declared, ownership
from devcluster.admission import Admission
from devcluster.errors import (
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
    required,
    untyped,
)
from devcluster.kinds import Strategy
from devcluster.merge import merge_patch
from devcluster.objects import (
    Json,
    clone,
    is_terminating,
    metadata,
    name_of,
    namespace_of,
    new_uid,
    random_suffix,
    timestamp,
    without_nulls,
)
from devcluster.quantities import QuantityError, canonicalize
from devcluster.resources import Resource
from devcluster.schema import Schema, Type
from devcluster.store import Record, Store

MERGE_PATCH = "application/merge-patch+json"
_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_ORDER = (
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
)


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Options from the query of a write."""

    manager: str
    force: bool = False
    dry_run: bool = False
    validation: str = "Warn"
    """How to handle undeclared fields: `Ignore`, `Warn` or `Strict`."""

    subresource: str = ""


@dataclass(slots=True)
class Answer:
    """The answer to a write."""

    obj: Json
    code: HTTPStatus = HTTPStatus.OK
    warnings: list[str] = field(default_factory=list)


class Api:
    """Performs writes: validates, completes and stores objects."""

    def __init__(self, store: Store, schema: Schema, strategies: dict[Resource, Strategy]) -> None:
        self.store = store
        self._schema = schema
        self._strategies = strategies
        self._admission = Admission(store)

    def typed(self, resource: Resource) -> Type:
        """Return the type of the resource's objects."""
        return self._schema.type_of(resource.definition)

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        """Return a stored object. Raises NotFound."""
        found = self.store.get(resource, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    def create(self, resource: Resource, namespace: str, sent: Json, options: WriteOptions) -> Answer:
        """Store a new object. Raises AlreadyExists, Invalid, BadRequest, NotFound and Forbidden."""
        obj = without_nulls(sent)
        self._identify(resource, obj, namespace, "")
        warnings = self._prune(resource, obj, options)
        if not metadata(obj).get("name") and metadata(obj).get("generateName"):
            metadata(obj)["name"] = metadata(obj)["generateName"] + random_suffix()
        if not metadata(obj).get("name"):
            cause = required("metadata.name", "name or generateName is required")
            raise invalid(resource, "", [cause])
        if self.store.get(resource, namespace, name_of(obj)):
            raise already_exists(resource, name_of(obj))
        if resource.has_status:
            obj.pop("status", None)
        self._canonicalize(resource, obj)
        self._strategies[resource].fill_in(obj)
        ownership.update(self.typed(resource), None, obj, options.manager)
        return self._insert(resource, obj, options, warnings)

    def apply(self, resource: Resource, namespace: str, name: str, applied: Json, options: WriteOptions) -> Answer:
        """Server-side apply: create a missing object, else merge into it (`apply-create`, `apply-unchanged`)."""
        if not options.manager:
            cause = required("fieldManager", "is required for apply patch")
            raise invalid(_PATCH_OPTIONS, "", [cause])
        applied = without_nulls(applied)
        self._identify(resource, applied, namespace, name)
        if "managedFields" in metadata(applied):  # `apply-exported-managed-fields`
            raise bad_request("metadata.managedFields must be nil")
        typed = self.typed(resource)
        complaints = declared.complaints(typed, applied)
        if complaints:
            what = f"({_path(applied)}; {_kind(resource)})"
            raise untyped(f"failed to create typed patch object {what}: {declared.joined(complaints)}")
        found = self.store.get(resource, namespace, name)
        if found is None:
            uid = metadata(applied).get("uid")
            if uid:  # `apply-annotation-only-uid-gone`
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise conflict(resource, name, why)
            empty: Json = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {"name": name}}
            obj = ownership.apply(typed, empty, applied, options.manager, force=options.force)
            for unset in ("uid", "creationTimestamp", "deletionTimestamp", "selfLink"):
                metadata(obj).pop(unset, None)
            return self._insert(resource, obj, options, [])
        self._check_version(resource, applied, found)
        obj = ownership.apply(typed, found.obj, applied, options.manager, force=options.force)
        return self._replace(resource, found, obj, options, [])

    def patch(self, resource: Resource, key: tuple[str, str], sent: Json, options: WriteOptions) -> Answer:
        """Change a stored object by a merge patch (`annotate`)."""
        return self.update(resource, key, merge_patch(self.get(resource, *key).obj, sent), options)

    def update(self, resource: Resource, key: tuple[str, str], sent: Json, options: WriteOptions) -> Answer:
        """Replace a stored object, or its status."""
        found = self.get(resource, *key)
        obj = {part: clone(value) if part == "status" else without_nulls(value) for part, value in sent.items()}
        self._identify(resource, obj, *key)
        self._check_version(resource, obj, found)
        warnings = self._prune(resource, obj, options)
        if options.subresource == "status":
            obj = {**clone(found.obj), "status": obj.get("status", {})}
        elif resource.has_status and "status" in found.obj:
            obj["status"] = clone(found.obj["status"])
        for kept in ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"):
            if kept in metadata(found.obj):
                metadata(obj).setdefault(kept, metadata(found.obj)[kept])
        self._canonicalize(resource, obj)
        self._strategies[resource].fill_in(obj)
        ownership.update(self.typed(resource), found.obj, obj, options.manager, options.subresource)
        return self._replace(resource, found, obj, options, warnings)

    def write_status(self, resource: Resource, record: Record, status: Json, manager: str) -> Record:
        """Store a new status, as a controller or the kubelet does. Return the same record if nothing changed."""
        if record.obj.get("status") == status:
            return record
        obj = {**record.obj, "metadata": dict(metadata(record.obj)), "status": status}
        ownership.update(self.typed(resource), record.obj, obj, manager, "status")
        return self.store.put(resource, obj)

    def remove(self, resource: Resource, obj: Json) -> Record:
        """Remove an object, and release its IPs and ports."""
        removed = self.store.remove(resource, obj)
        self._strategies[resource].release(obj)
        return removed

    def _identify(self, resource: Resource, obj: Json, namespace: str, name: str) -> None:
        """Check kind, name and namespace against the URL, and fill in missing ones."""
        if obj.get("kind", resource.kind) != resource.kind or obj.get("apiVersion", resource.api_version) != (
            resource.api_version
        ):
            sent = f"{obj.get('apiVersion')}, Kind={obj.get('kind')}"
            raise bad_request(f"the object provided is unrecognized as {_kind(resource)}: {sent}")
        obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
        meta = obj.setdefault("metadata", {})
        if not isinstance(meta, dict):
            raise bad_request("metadata: expected an object")
        if name and meta.setdefault("name", name) != name:
            raise bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
        if namespace and meta.setdefault("namespace", namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")

    def _prune(self, resource: Resource, obj: Json, options: WriteOptions) -> list[str]:
        """Drop undeclared fields. `Strict` refuses them, `Warn` returns a warning for each."""
        unknown = [f'unknown field "{path}"' for path in declared.prune(self.typed(resource), obj)]
        if unknown and options.validation == "Strict":
            what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise bad_request(f"{what}: strict decoding error: {', '.join(unknown)}")
        complaints = declared.complaints(self.typed(resource), obj, decoding=True)
        if complaints:
            what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise bad_request(f"{what}: {declared.joined(complaints)}")
        return unknown if options.validation == "Warn" else []

    def _canonicalize(self, resource: Resource, obj: Json) -> None:
        """Write quantities in canonical form (`apply-quantity-invalid` if one is malformed)."""
        try:
            canonicalize(self.typed(resource), obj)
        except QuantityError as error:
            what = f"({_path(obj)}; {_kind(resource)})"
            raise untyped(
                f"failed to convert new object {what} to proper version: "
                f"unable to convert unstructured object to {_kind(resource)}: {error}"
            ) from None

    def _check_version(self, resource: Resource, sent: Json, found: Record) -> None:
        version = metadata(sent).get("resourceVersion")
        if version and version != metadata(found.obj)["resourceVersion"]:
            raise conflict(resource, name_of(found.obj), _MODIFIED)

    def _insert(self, resource: Resource, obj: Json, options: WriteOptions, warnings: list[str]) -> Answer:
        strategy = self._strategies[resource]
        self._canonicalize(resource, obj)
        strategy.fill_in(obj)
        self._admission.admit(resource, obj)
        causes = strategy.causes(obj)
        if causes:
            raise invalid(resource, name_of(obj), causes)
        meta = metadata(obj)
        meta.update(uid=new_uid(), creationTimestamp=timestamp())
        meta.pop("resourceVersion", None)
        if resource.counts_generations:
            meta["generation"] = 1
        strategy.allocate(obj, None, dry_run=options.dry_run)
        _arrange(obj)
        if not options.dry_run:
            self.store.put(resource, obj)
        return Answer(obj, HTTPStatus.CREATED, [*warnings, *strategy.warnings(obj)])

    def _replace(
        self, resource: Resource, found: Record, obj: Json, options: WriteOptions, warnings: list[str]
    ) -> Answer:
        strategy = self._strategies[resource]
        self._canonicalize(resource, obj)
        strategy.fill_in(obj)
        strategy.prepare_update(obj, found.obj)
        causes = strategy.update_causes(obj, found.obj) + strategy.causes(obj)
        if causes:
            raise invalid(resource, name_of(obj), causes)
        if ownership.is_unchanged(found.obj, obj):
            return Answer(found.obj, warnings=warnings)
        metadata(obj)["resourceVersion"] = metadata(found.obj)["resourceVersion"]
        if resource.counts_generations and obj.get("spec") != found.obj.get("spec"):
            metadata(obj)["generation"] = metadata(found.obj)["generation"] + 1
        strategy.allocate(obj, found.obj, dry_run=options.dry_run)
        _arrange(obj)
        if not options.dry_run:
            self.store.put(resource, obj)
            meta = metadata(obj)
            if is_terminating(obj) and not meta.get("finalizers") and meta.get("deletionGracePeriodSeconds") == 0:
                self.remove(resource, obj)  # this update removed the last finalizer
        return Answer(obj, warnings=warnings)


_PATCH_OPTIONS = Resource("meta.k8s.io", "v1", "patchoptions", "PatchOptions", "patchoptions")


def _path(obj: Json) -> str:
    return f"{namespace_of(obj)}/{name_of(obj)}"


def _kind(resource: Resource) -> str:
    return f"{resource.group}/{resource.version}, Kind={resource.kind}"


def _arrange(obj: Json) -> None:
    """Sort the metadata's keys like the record, in the order of Go's struct."""
    meta = metadata(obj)
    ordered = {name: meta[name] for name in _ORDER if name in meta}
    obj["metadata"] = {**ordered, **{name: value for name, value in meta.items() if name not in ordered}}
