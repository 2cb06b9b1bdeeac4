"""The delete verb: preconditions, grace periods and answers. Knows objects and options, but no HTTP."""

from dataclasses import dataclass
from typing import Self

from devcluster.api import Api
from devcluster.errors import conflict
from devcluster.objects import Json, is_terminating, metadata, name_of, timestamp
from devcluster.resources import NAMESPACES, PODS, Resource
from devcluster.store import Record

_PURGING = (
    "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will "
    "automatically be purged by the system."
)
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """Options from the body or the query of a delete."""

    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    @classmethod
    def read(cls, body: Json, *, dry_run: bool) -> Self:
        """Read the options from the body."""
        preconditions = body.get("preconditions") or {}
        return cls(
            body.get("gracePeriodSeconds"),
            preconditions.get("uid", ""),
            preconditions.get("resourceVersion", ""),
            dry_run or "All" in (body.get("dryRun") or ()),
        )


class Deletion:
    """Deletes objects."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._store = api.store

    def delete(self, resource: Resource, namespace: str, name: str, options: DeleteOptions) -> Json:
        """Delete an object, or start to. Return the answer. Raises NotFound and Conflict."""
        record = self._api.get(resource, namespace, name)
        _check(resource, record, options)
        if resource is PODS:
            return self._delete_pod(record, options)
        if resource is NAMESPACES:
            return self._delete_namespace(record, options)
        if options.dry_run:
            return record.obj
        if metadata(record.obj).get("finalizers"):
            return self._store.put(resource, self._mark(record, 0)).obj
        removed = self.remove(resource, record.obj)
        if resource.answers_deleted_object:
            return removed.obj
        details = {"name": name, "kind": resource.plural, "uid": metadata(record.obj)["uid"]}
        if resource.group:
            details["group"] = resource.group
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}

    def remove(self, resource: Resource, obj: Json) -> Record:
        """Remove an object, and release its IPs and ports."""
        return self._api.remove(resource, obj)

    def _delete_pod(self, record: Record, options: DeleteOptions) -> Json:
        """Start the Pod's grace period. Without a node or running containers, remove the Pod at once.

        Return the terminating Pod, even if it is already removed (`delete-stdin`).
        """
        pod = record.obj
        grace = self._grace(pod, options)
        held = metadata(pod).get("deletionGracePeriodSeconds", 0)
        if is_terminating(pod) and (grace >= held > 0 or held == 0):
            return pod
        going = self._mark(record, grace)
        if options.dry_run:
            return going
        stored = self._store.put(PODS, going)
        if grace == 0 and not metadata(going).get("finalizers"):
            self.remove(PODS, stored.obj)
        return stored.obj

    def _grace(self, pod: Json, options: DeleteOptions) -> int:
        if not pod["spec"].get("nodeName") or pod["status"].get("phase") in _FINISHED:
            return 0
        if options.grace_seconds is not None:
            return max(0, options.grace_seconds)
        held = metadata(pod).get("deletionGracePeriodSeconds")
        return int(pod["spec"]["terminationGracePeriodSeconds"] if held is None else held)

    def _mark(self, record: Record, grace: int) -> Json:
        meta = dict(metadata(record.obj))
        if "deletionTimestamp" not in meta and "generation" in meta:
            meta["generation"] += 1
        meta["deletionTimestamp"] = timestamp(grace)
        meta["deletionGracePeriodSeconds"] = grace
        return {**record.obj, "metadata": meta}

    def finish_pod(self, record: Record) -> None:
        """Remove a Pod whose containers have ended: the kubelet's own delete, with grace 0."""
        meta = {**metadata(record.obj), "deletionTimestamp": timestamp(), "deletionGracePeriodSeconds": 0}
        stored = self._store.put(PODS, {**record.obj, "metadata": meta})
        if not meta.get("finalizers"):
            self.remove(PODS, stored.obj)

    def _delete_namespace(self, record: Record, options: DeleteOptions) -> Json:
        """Mark a namespace as terminating; the namespace controller does the rest (`delete-namespace`)."""
        namespace = record.obj
        if is_terminating(namespace):
            raise conflict(NAMESPACES, name_of(namespace), _PURGING)
        meta = {**metadata(namespace), "deletionTimestamp": timestamp()}
        going = {**namespace, "metadata": meta, "status": {"phase": "Terminating"}}
        if options.dry_run:
            return going
        return self._store.put(NAMESPACES, going).obj


def _check(resource: Resource, record: Record, options: DeleteOptions) -> None:
    """Check the preconditions (`delete-precondition-other-uid`, `delete-precondition-stale`)."""
    meta = metadata(record.obj)
    if options.uid and options.uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise conflict(resource, name_of(record.obj), why, by_kind=True)
    if options.resource_version and options.resource_version != meta["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion "
            f"in record ({meta['resourceVersion']}). The object might have been modified"
        )
        raise conflict(resource, name_of(record.obj), why, by_kind=True)
