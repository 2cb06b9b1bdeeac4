"""The scheduler and the kubelet of the only node: schedules, starts and ends Pods.

No container runs. A Pod's server is only a time from which its node port may answer. Timers of cluster time drive
all changes; nothing polls.
"""

import math
from collections.abc import Callable, Iterator

from devcluster.allocators import pod_addresses
from devcluster.api import Api
from devcluster.clock import Clock
from devcluster.deletion import DeleteOptions, Deletion
from devcluster.node import Folders, mount_retries
from devcluster.objects import Json, is_terminating, metadata, name_of, namespace_of
from devcluster.placed import Key, PlacedPod
from devcluster.podstatus import (
    KILLED,
    NODE,
    UNSCHEDULABLE,
    ContainerState,
    PodState,
    scheduled,
    state_of_new,
    status_of,
    unschedulable,
)
from devcluster.recorder import Recorder
from devcluster.resources import PODS
from devcluster.store import Change, Record
from devcluster.timing import Timing, first_success

NODE_LABELS = {"kubernetes.io/arch": "amd64", "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}
OBSERVES_AFTER = 1.0
"""Seconds after which the status shows that a Pod terminates; not at once (`pod-terminating`)."""

BACK_OFF_FIRST, BACK_OFF_MOST = 10, 300


class Kubelet:
    """Runs the life cycle of Pods."""

    def __init__(self, api: Api, deletion: Deletion, clock: Clock, timing: Timing, folders: Folders) -> None:
        self.timing = timing
        self._folders = folders
        self._api = api
        self._deletion = deletion
        self._clock = clock
        self.recorder = Recorder(api.store)
        self._pods: dict[Key, PlacedPod] = {}
        self._listeners: list[Callable[[Key], None]] = []
        self._addresses = pod_addresses()
        api.store.subscribe(self._on_change)

    def on_serving(self, listener: Callable[[Key], None]) -> None:
        """Call `listener` with the key of each Pod whose server starts or stops to answer."""
        self._listeners.append(listener)

    def is_serving(self, key: Key) -> bool:
        """Return whether the Pod's server answers."""
        pod = self._pods.get(key)
        return pod is not None and pod.serving

    def state_of(self, key: Key) -> PodState | None:
        """Return the state of a Pod on the node, or None. Call `publish` after changing it."""
        pod = self._pods.get(key)
        return pod.state if pod else None

    def freeze(self, key: Key) -> None:
        """Stop all further changes of the Pod, except its deletion."""
        pod = self._pods[key]
        pod.frozen = True
        self._cancel(pod)

    def publish(self, key: Key, *, serving: bool | None = None) -> None:
        """Report the Pod's state. `serving`: start or stop its server."""
        pod = self._pods[key]
        self._report(pod)
        if serving is not None:
            self._set_serving(pod, serving=serving)

    def pod_of(self, key: Key) -> Json:
        """Return the stored Pod. Raises NotFound."""
        return self._api.get(PODS, *key).obj

    def prepare(self, key: Key) -> None:
        """Set up the Pod's network."""
        self._sandbox_ready(self._pods[key])

    def address(self, key: Key) -> None:
        """Assign an address to the Pod; the next report includes it."""
        state = self._pods[key].state
        if not state.address:
            state.address = next(self._addresses)

    def begin(self, key: Key) -> None:
        """Start the containers for the first time."""
        self._start(self._pods[key])

    def restart(self, key: Key) -> None:
        """Restart the ended containers."""
        self._restart(self._pods[key])

    def back_off(self, key: Key, container: ContainerState) -> int:
        """Put a container into back-off, and return the seconds (`pod-crash-loop`)."""
        pod = self._pods[key]
        record = self._api.get(PODS, *key)
        delay: int = min(BACK_OFF_FIRST << (container.restarts - 1), BACK_OFF_MOST)
        where = f"pod={key[1]}_{key[0]}({pod.uid})"
        said = f"Back-off restarting failed container {container.name} in pod {where.removeprefix('pod=')}"
        self.recorder.kubelet(record.obj, "BackOff", said, container.name, warning=True)
        container.back_off(
            "CrashLoopBackOff", f"back-off {delay}s restarting failed container={container.name} {where}"
        )
        self._report(pod)
        return delay

    def delete_heedless(self, key: Key) -> None:
        """Delete a Pod whose containers ignore SIGTERM."""
        self._pods[key].heedless = True
        self._deletion.delete(PODS, *key, DeleteOptions())

    def turn_away(self, key: Key) -> None:
        """Take a Pod off the node, as if no node had ever matched it (`pod-unschedulable`)."""
        record = self._api.get(PODS, *key)
        pod = self._pods.pop(key)
        self._cancel(pod)
        self._set_serving(pod, serving=False)
        spec = {name: value for name, value in record.obj["spec"].items() if name != "nodeName"}
        status = {"phase": "Pending", "qosClass": record.obj["status"]["qosClass"]}
        self._refuse(self._api.store.put(PODS, {**record.obj, "spec": spec, "status": status}))

    def _on_change(self, change: Change) -> None:
        if change.resource is not PODS:
            return
        key = (namespace_of(change.obj), name_of(change.obj))
        if change.type == "DELETED":
            self._forget(key, metadata(change.obj)["uid"])
        elif change.type == "ADDED":
            self._schedule(change.record)
        elif is_terminating(change.obj):
            self._end(key, change.record)

    def _current(self, pod: PlacedPod) -> Record | None:
        record = self._api.store.get(PODS, *pod.key)
        return record if record is not None and metadata(record.obj)["uid"] == pod.uid else None

    def _schedule(self, added: Record) -> None:
        """Bind a new Pod to the node, or report why not (`pod-unschedulable`)."""
        record = self._api.store.get(PODS, namespace_of(added.obj), name_of(added.obj))
        if record is None or metadata(record.obj)["uid"] != metadata(added.obj)["uid"] or is_terminating(record.obj):
            return
        pod = record.obj
        selector = pod["spec"].get("nodeSelector") or {}
        if any(NODE_LABELS.get(name) != value for name, value in selector.items()):
            self._refuse(record)
            return
        bound = {
            **pod,
            "metadata": dict(metadata(pod)),
            "spec": {**pod["spec"], "nodeName": NODE},
            "status": {**pod["status"], "conditions": scheduled()},
        }
        self._api.store.put(PODS, bound)
        message = f"Successfully assigned {namespace_of(pod)}/{name_of(pod)} to {NODE}"
        self.recorder.scheduler(bound, "Scheduled", message, "Binding")
        self._adopt(bound)

    def _refuse(self, record: Record) -> None:
        """Report that no node matches a Pod."""
        pod = record.obj
        conditions = unschedulable(metadata(pod)["generation"])
        self._api.write_status(PODS, record, {**pod["status"], "conditions": conditions}, "kube-scheduler")
        self.recorder.scheduler(pod, "FailedScheduling", UNSCHEDULABLE, "Scheduling")

    def _adopt(self, pod: Json) -> None:
        """Start to run a Pod that was bound to the node."""
        key = (namespace_of(pod), name_of(pod))
        adopted = PlacedPod(key, metadata(pod)["uid"], state_of_new(pod["spec"]))
        self._pods[key] = adopted
        self._report(adopted)
        retries = mount_retries()
        self._after(adopted, self.timing.start_after / 2, lambda p: self._mount(p, retries))

    def _after(self, pod: PlacedPod, seconds: float, action: Callable[[PlacedPod], None]) -> None:
        if not pod.frozen:
            pod.timers.append(self._clock.after(seconds, action, pod))

    def _cancel(self, pod: PlacedPod) -> None:
        for timer in pod.timers:
            timer.cancel()
        pod.timers.clear()

    def _report(self, pod: PlacedPod) -> None:
        record = self._current(pod)
        if record is not None:
            self._api.write_status(PODS, record, status_of(record.obj, pod.state), "kubelet")

    def _mount(self, pod: PlacedPod, retries: Iterator[float]) -> None:
        """Mount the Pod's volumes, before all else, until it succeeds (`events-failed-mount`)."""
        record = self._current(pod)
        if record is None:
            return
        failure = self._folders.failed_mount(record.obj)
        if failure:
            self.recorder.kubelet(record.obj, "FailedMount", failure, warning=True)
            self._after(pod, next(retries), lambda p: self._mount(p, retries))
            return
        self._sandbox_ready(pod)
        self._after(pod, self.timing.start_after / 2, self._start)

    def _sandbox_ready(self, pod: PlacedPod) -> None:
        pod.state.sandbox_ready = True
        self._report(pod)

    def _start(self, pod: PlacedPod) -> None:
        """Start the containers. Without probes they are ready at once (`watch-pods.ndjson`, sandbox-slow)."""
        record = self._current(pod)
        if record is None:
            return
        self.address(pod.key)
        obj = record.obj
        failed = pod.state.initialize(lambda container: self._launch(obj, container))
        if failed is not None:
            self._initialize_again(pod, obj, failed)
            return
        pod.state.phase = "Running"
        for container in pod.state.containers:
            container.start()
            self._launch(obj, container)
        self._run(pod, obj)

    def _initialize_again(self, pod: PlacedPod, obj: Json, failed: ContainerState) -> None:
        """Run an init container again that could not start, from the second time on with back-off; else fail."""
        if obj["spec"]["restartPolicy"] == "Never":
            pod.state.phase = pod.state.outcome = "Failed"
            pod.state.sandbox_ready = False
        self._report(pod)
        if not pod.state.outcome:
            self._after(pod, self.back_off(pod.key, failed) if failed.restarts else 0, self._start)

    def _launch(self, pod: Json, container: ContainerState) -> None:
        """Record what becomes of a container that was started, which its mounts may end (`pod-nested-mount-*`)."""
        specs = [*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]]
        spec = next(spec for spec in specs if spec["name"] == container.name)
        pulled = f'Container image "{spec["image"]}" already present on machine and can be accessed by the pod'
        self.recorder.kubelet(pod, "Pulled", pulled, container.name)
        self.recorder.kubelet(pod, "Created", "Container created", container.name)
        error = self._folders.start_error(pod, spec, container.name)
        if error:
            self.recorder.kubelet(pod, "Failed", f"Error: {error}", container.name, warning=True)
            container.fail_to_start(self._folders.start_error(pod, spec, container.ident))
        else:
            self.recorder.kubelet(pod, "Started", "Container started", container.name)

    def _run(self, pod: PlacedPod, obj: Json) -> None:
        """Set timers for the servers and probes of running containers, and to start the others again."""
        specs, containers = obj["spec"]["containers"], pod.state.containers
        for spec, container in zip(specs, containers, strict=True):
            if not container.running:
                continue
            container.started = "startupProbe" not in spec
            container.ready = container.started and "readinessProbe" not in spec
            self._plan(pod, spec, container)
        self._report(pod)
        failed = [container for container in containers if not container.running]
        if not failed:
            delay = max(self.timing.server_delay(spec["image"]) for spec in specs)
            self._after(pod, delay, lambda p: self._set_serving(p, serving=True))
        elif obj["spec"]["restartPolicy"] != "Never":
            self._start_again(pod, failed)
        elif len(failed) == len(containers):
            pod.state.phase = pod.state.outcome = "Failed"
            pod.state.sandbox_ready = False
            self._report(pod)

    def _start_again(self, pod: PlacedPod, failed: list[ContainerState]) -> None:
        """Restart containers that could not start; from the second time on with back-off."""
        delays = [self.back_off(pod.key, container) for container in failed if container.restarts]
        self._after(pod, max(delays, default=0), self._restart)

    def _plan(self, pod: PlacedPod, spec: Json, container: ContainerState) -> None:
        """Compute when a container's probes succeed or fail, and set timers for that."""
        answers = max(self.timing.server_delay(spec["image"]), self.timing.ready_after)
        startup, readiness = spec.get("startupProbe"), spec.get("readinessProbe")
        started = 0.0
        if startup is not None:
            started = first_success(startup, answers, 0.0)
            limit = startup.get("initialDelaySeconds", 0) + startup["failureThreshold"] * startup["periodSeconds"]
            if started >= limit:
                self._after(pod, limit, lambda p: self._kill(p, container, "startup"))
                return
            self._after(pod, started, lambda p: self._set_started(p, container, ready=readiness is None))
        if readiness is not None:
            succeeds = first_success(readiness, answers, started)
            self._after(pod, succeeds, lambda p: self._set_ready(p, container))

    def _set_started(self, pod: PlacedPod, container: ContainerState, *, ready: bool) -> None:
        container.started, container.ready = True, ready
        self._report(pod)

    def _set_ready(self, pod: PlacedPod, container: ContainerState) -> None:
        container.ready = True
        self._report(pod)

    def _set_serving(self, pod: PlacedPod, *, serving: bool) -> None:
        if pod.serving is not serving:
            pod.serving = serving
            for listener in self._listeners:
                listener(pod.key)

    def _kill(self, pod: PlacedPod, container: ContainerState, probe: str) -> None:
        """Restart a container whose probe failed; from the second time on with back-off (`pod-crash-loop`)."""
        record = self._current(pod)
        if record is None:
            return
        self._cancel(pod)
        self._set_serving(pod, serving=False)
        message = f"Container {container.name} failed {probe} probe, will be restarted"
        self.recorder.kubelet(record.obj, "Killing", message, container.name)
        container.end(KILLED, "Error")
        self._report(pod)
        if container.restarts == 0:
            self._restart(pod)
            return
        self._after(pod, self.back_off(pod.key, container), self._restart)

    def _restart(self, pod: PlacedPod) -> None:
        record = self._current(pod)
        if record is None:
            return
        for container in pod.state.containers:
            if not container.running:
                container.restart()
                self._launch(record.obj, container)
        self._run(pod, record.obj)

    def _end(self, key: Key, record: Record) -> None:
        """Schedule the end of a terminating Pod: when its containers end, at the latest after its grace period."""
        pod = self._pods.get(key)
        if pod is None or pod.uid != metadata(record.obj)["uid"]:
            return
        grace = metadata(record.obj)["deletionGracePeriodSeconds"]
        takes = math.inf if pod.heedless else self.timing.stop_takes
        ends_at = self._clock.now() + min(grace, takes)
        if pod.ends_at is None:
            for container in pod.state.containers:
                self.recorder.kubelet(record.obj, "Killing", f"Stopping container {container.name}", container.name)
        elif pod.ends_at <= ends_at:  # only a delete with a shorter grace period changes this
            return
        pod.ends_at, pod.frozen = ends_at, False
        self._cancel(pod)
        self._after(pod, OBSERVES_AFTER, self._report)
        self._after(pod, min(grace, takes), lambda p: self._ended(p, KILLED if takes > grace else 0))

    def _ended(self, pod: PlacedPod, exit_code: int) -> None:
        """Report the end of the containers, then remove the Pod (`watch-pods.ndjson`, sandbox-slow)."""
        self._cancel(pod)
        self._set_serving(pod, serving=False)
        for container in (*pod.state.inits, *pod.state.containers):
            if container.running:
                container.end(exit_code, "Error" if exit_code else "Completed")
        pod.state.sandbox_ready = False
        pod.state.phase = pod.state.outcome = "Failed" if exit_code else "Succeeded"
        self._report(pod)
        record = self._current(pod)
        if record is not None:
            self._deletion.finish_pod(record)

    def _forget(self, key: Key, uid: str) -> None:
        pod = self._pods.get(key)
        if pod is not None and pod.uid == uid:
            self._cancel(pod)
            del self._pods[key]
            self._set_serving(pod, serving=False)
