"""An informer without a watch, for tests that set its content."""

from __future__ import annotations

import copy
from pathlib import Path

from sandboxes import objects as kube
from sandboxes.cluster.informer import Informer
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.runner import KubectlRunner
from tests.record import recorded_pods


class StillView(Informer):
    """An informer without a watch: it holds the objects that a test puts into it."""

    def __init__(self) -> None:
        runner = KubectlRunner(Path("/never/started"), (), {})
        kubectl = Kubectl(runner, max_processes=1, max_waiting=1)
        super().__init__(kubectl, runner, "rec", max_age=60)
        self.fresh = True
        self._versions = 1_000_000

    @property
    def is_fresh(self) -> bool:
        return self.fresh

    def put(
        self, sandbox_id: str, *, pod: str = "pod-creating", uid: str = "u1", expires_at: str = "", node: str = "n"
    ) -> None:
        """Store a Service and a Pod like the recorded one for a sandbox."""
        self._versions += 1
        labels = kube.labels_of(sandbox_id)
        one = copy.deepcopy(recorded_pods()[pod])
        one["metadata"] |= {
            "name": kube.pod_name(sandbox_id), "labels": labels, "uid": uid, "resourceVersion": str(self._versions),
        }  # fmt: skip
        one["spec"]["nodeName"] = node
        if expires_at:
            one["metadata"].setdefault("annotations", {})[kube.EXPIRES_ANNOTATION] = expires_at
        service = {
            "kind": "Service",
            "metadata": {
                "name": kube.service_name(sandbox_id), "labels": labels, "uid": f"{uid}-svc",
                "resourceVersion": str(self._versions),
            },
            "spec": {"ports": [{"name": "http", "nodePort": 30000}]},
        }  # fmt: skip
        self.note([one, service])

    def drop(self, sandbox_id: str) -> None:
        """Remove the objects of a sandbox."""
        self.note_deleted(obj for obj in self.sandbox(sandbox_id) if obj is not None)
