"""Records Events of the scheduler and the kubelet, in the format of the `events-*` cases."""

import time
from collections import deque

from devcluster.objects import Json, metadata, micro_timestamp, name_of, namespace_of, new_uid, timestamp
from devcluster.podstatus import NODE
from devcluster.resources import EVENTS
from devcluster.store import Key, Store

KEPT_EVENTS = 2000
"""Past it, the oldest are removed; a real server keeps them for an hour."""

_SCHEDULER = "default-scheduler"
_SCHEDULER_WRITES = (
    *("action", "eventTime", "note", "reason", "regarding"),
    *("reportingController", "reportingInstance", "type"),
)
"""Fields that it owns, by the names of the newer API that it uses (`events`, in the HTTP record)."""

_Said = tuple[str, str, str]
"""The Pod's uid, the reason and the message."""


class Recorder:
    """Writes events into the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: deque[_Said] = deque()
        self._known: dict[_Said, Key] = {}
        self._last = 0

    def scheduler(self, pod: Json, reason: str, message: str, action: str) -> None:
        """Record an Event of the scheduler (`events-unschedulable`)."""
        event = self._event(pod, reason, message, warning=reason != "Scheduled")
        event["metadata"]["managedFields"] = [
            {
                "manager": "kube-scheduler",
                "operation": "Update",
                "apiVersion": "events.k8s.io/v1",
                "time": timestamp(),
                "fieldsType": "FieldsV1",
                "fieldsV1": {f"f:{name}": {} for name in _SCHEDULER_WRITES},
            }
        ]
        event |= {
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "eventTime": micro_timestamp(),
            "action": action,
            "reportingComponent": _SCHEDULER,
            "reportingInstance": f"{_SCHEDULER}-devcluster",
        }
        self._put(event)

    def kubelet(self, pod: Json, reason: str, message: str, container: str = "", *, warning: bool = False) -> None:
        """Record an Event of the kubelet; a repetition increments the existing one's count (`events-image-pull`)."""
        key = self._known.get((metadata(pod)["uid"], reason, message))
        known = self._store.get(EVENTS, *key) if key else None
        if known is not None:
            self._store.put(
                EVENTS,
                {
                    **known.obj,
                    "metadata": dict(metadata(known.obj)),
                    "count": known.obj["count"] + 1,
                    "lastTimestamp": timestamp(),
                },
            )
            return
        event = self._event(pod, reason, message, warning=warning)
        if container:
            event["involvedObject"]["fieldPath"] = f"spec.containers{{{container}}}"
        event |= {
            "source": {"component": "kubelet", "host": NODE},
            "firstTimestamp": timestamp(),
            "lastTimestamp": timestamp(),
            "count": 1,
            "eventTime": None,
            "reportingComponent": "kubelet",
            "reportingInstance": NODE,
        }
        self._put(event)

    def _event(self, pod: Json, reason: str, message: str, *, warning: bool) -> Json:
        meta = metadata(pod)
        return {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {
                "name": f"{name_of(pod)}.{self._moment():016x}",
                "namespace": namespace_of(pod),
                "uid": new_uid(),
                "resourceVersion": "",
                "creationTimestamp": timestamp(),
            },
            "involvedObject": {
                "kind": "Pod",
                "namespace": namespace_of(pod),
                "name": name_of(pod),
                "uid": meta["uid"],
                "apiVersion": "v1",
                "resourceVersion": meta["resourceVersion"],
            },
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
        }

    def _moment(self) -> int:
        """Return unique nanoseconds since the epoch, which keep Events in order."""
        self._last = max(time.time_ns(), self._last + 1)
        return self._last

    def _put(self, event: Json) -> None:
        self._store.put(EVENTS, event)
        said = (event["involvedObject"]["uid"], event["reason"], event["message"])
        self._known[said] = (namespace_of(event), name_of(event))
        self._written.append(said)
        while len(self._written) > KEPT_EVENTS:
            oldest = self._store.get(EVENTS, *self._known.pop(self._written.popleft()))
            if oldest is not None:
                self._store.remove(EVENTS, oldest.obj)
