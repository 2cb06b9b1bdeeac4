"""The controllers of PersistentVolumeClaims: bind new claims, and release deleted ones. No volume exists."""

from devcluster.api import Api
from devcluster.claims import PROTECTION
from devcluster.clock import Clock
from devcluster.objects import clone, is_terminating, metadata, name_of, namespace_of
from devcluster.resources import CLAIMS, PODS
from devcluster.store import Change, Record

_CONTROLLER = "kube-controller-manager"
_ENDED = ("Succeeded", "Failed")


class ClaimController:
    """Binds each new claim after a delay, and releases deleted claims that no Pod uses."""

    def __init__(self, api: Api, clock: Clock, bound_after: float) -> None:
        self._api = api
        self._clock = clock
        self._delay = bound_after
        api.store.subscribe(self._on_change)

    def _on_change(self, change: Change) -> None:
        if change.resource is CLAIMS and change.type == "ADDED":
            self._clock.after(self._delay, self._bind, namespace_of(change.obj), name_of(change.obj))
        elif change.resource is CLAIMS and change.type == "MODIFIED":
            self._let_go(change.record)
        elif change.resource is PODS and change.type == "DELETED":
            for record in self._api.store.find(CLAIMS, namespace_of(change.obj)):
                self._let_go(record)

    def _bind(self, namespace: str, name: str) -> None:
        record = self._api.store.get(CLAIMS, namespace, name)
        if record is None or is_terminating(record.obj) or record.obj["status"].get("phase") == "Bound":
            return
        obj = {**record.obj, "metadata": dict(metadata(record.obj)), "spec": clone(record.obj["spec"])}
        obj["spec"].setdefault("volumeName", f"pvc-{metadata(obj)['uid']}")
        spec = obj["spec"]
        capacity = {"storage": spec["resources"]["requests"]["storage"]}
        status = {"phase": "Bound", "accessModes": spec["accessModes"], "capacity": capacity}
        self._api.write_status(CLAIMS, self._api.store.put(CLAIMS, obj), status, _CONTROLLER)

    def _let_go(self, record: Record) -> None:
        """Remove the finalizer of a deleted claim that no Pod uses, and the claim with its last finalizer."""
        key = (namespace_of(record.obj), name_of(record.obj))
        current = self._api.store.get(CLAIMS, *key)
        if current is None or not is_terminating(current.obj) or self._is_used(*key):
            return
        finalizers = [one for one in metadata(current.obj).get("finalizers") or [] if one != PROTECTION]
        if finalizers == metadata(current.obj).get("finalizers"):
            return
        meta = {**metadata(current.obj), "finalizers": finalizers}
        stored = self._api.store.put(CLAIMS, {**current.obj, "metadata": meta})
        if not finalizers:
            self._api.remove(CLAIMS, stored.obj)

    def _is_used(self, namespace: str, name: str) -> bool:
        return any(
            (volume.get("persistentVolumeClaim") or {}).get("claimName") == name
            for record in self._api.store.find(PODS, namespace)
            if (record.obj.get("status") or {}).get("phase") not in _ENDED
            for volume in record.obj["spec"].get("volumes") or ()
        )
