"""The namespace controller: creates service accounts in new namespaces, and empties and removes terminating ones."""

from devcluster.api import Api, WriteOptions
from devcluster.clock import Clock
from devcluster.deletion import DeleteOptions, Deletion
from devcluster.objects import Json, is_terminating, metadata, name_of, namespace_of
from devcluster.resources import CONFIG_MAPS, EVENTS, NAMESPACES, RESOURCES, SERVICE_ACCOUNTS
from devcluster.store import Change

_CONTROLLER = WriteOptions("kube-controller-manager")


class NamespaceController:
    """Controls namespaces."""

    def __init__(self, api: Api, deletion: Deletion, clock: Clock, service_account_after: float) -> None:
        self._api = api
        self._deletion = deletion
        self._clock = clock
        self._delay = service_account_after
        api.store.subscribe(self._on_change)

    def furnish(self, namespace: str) -> None:
        """Create the default objects of a namespace: the service account `default`, the cluster's CA certificate."""
        record = self._api.store.get(NAMESPACES, "", namespace)
        if record is None or is_terminating(record.obj):
            return
        if self._api.store.get(CONFIG_MAPS, namespace, "kube-root-ca.crt") is None:
            config_map: Json = {"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ""}}
            self._api.create(CONFIG_MAPS, namespace, config_map, _CONTROLLER)
        if self._api.store.get(SERVICE_ACCOUNTS, namespace, "default") is None:
            self._api.create(SERVICE_ACCOUNTS, namespace, {"metadata": {"name": "default"}}, _CONTROLLER)

    def _on_change(self, change: Change) -> None:
        if change.resource is NAMESPACES and change.type == "ADDED":
            self._clock.after(self._delay, self.furnish, name_of(change.obj))
        elif change.resource is NAMESPACES and change.type == "MODIFIED" and is_terminating(change.obj):
            self._empty(name_of(change.obj))
        elif change.type == "DELETED" and change.resource.namespaced:
            self._finish(namespace_of(change.obj))

    def _empty(self, namespace: str) -> None:
        """Delete all objects in a namespace (`delete-namespace`); Pods with their grace period."""
        for resource in RESOURCES:
            if resource.stored and resource.namespaced:
                for record in self._api.store.find(resource, namespace):
                    self._deletion.delete(resource, namespace, name_of(record.obj), DeleteOptions())
        self._finish(namespace)

    def _finish(self, namespace: str) -> None:
        """Remove a terminating namespace that is empty, except for Events."""
        record = self._api.store.get(NAMESPACES, "", namespace)
        if record is None or not is_terminating(record.obj):
            return
        left = [
            found
            for resource in RESOURCES
            if resource.stored and resource.namespaced
            for found in self._api.store.find(resource, namespace)
        ]
        events_only = all(found.obj["kind"] == "Event" for found in left)
        if events_only:
            for found in left:
                self._deletion.delete(EVENTS, namespace, name_of(found.obj), DeleteOptions())
            self._deletion.remove(NAMESPACES, {**record.obj, "metadata": dict(metadata(record.obj))})
