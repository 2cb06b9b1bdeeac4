"""Builds the status of a Pod as the kubelet reports it, from the state of its containers. Pure.

The formats are those of the recorded stream (`watch-pods.ndjson`) and of the `pod-*` cases.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from devcluster.objects import Json, metadata, random_hex, timestamp

IMAGE_TROUBLE = ("ErrImagePull", "ImagePullBackOff")
STAND_IN_LOG = "devcluster, a stand-in for development: no container runs here\n"
NODE, NODE_IP = "node1", "10.99.0.1"
KILLED = 137
NEVER_RAN = 128
_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
UNSCHEDULABLE = (
    "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. no new claims to deallocate, "
    "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
)


@dataclass(slots=True)
class ContainerState:
    """The state of one container, and of its last termination."""

    name: str
    waiting: str = "ContainerCreating"
    """Reason for waiting; empty if it runs or has ended."""

    message: str = ""
    container_id: str = ""
    started_at: str = ""
    terminated: Json | None = None
    last_terminated: Json | None = None
    restarts: int = 0
    started: bool = False
    ready: bool = False
    log: str = STAND_IN_LOG
    """The log of each run."""

    is_sidecar: bool = False
    """Whether it is an init container that keeps running."""

    @property
    def running(self) -> bool:
        """Whether the container runs."""
        return not self.waiting and self.terminated is None

    def start(self) -> None:
        """Start the container under a new id."""
        self.waiting, self.message, self.terminated = "", "", None
        self.container_id = f"containerd://{random_hex(64)}"
        self.started_at = timestamp()

    def initialize(self) -> None:
        """Complete a running init container; a sidecar starts and keeps running."""
        if self.is_sidecar:
            self.started = True
        else:
            self.end(0, "Completed")
        self.ready = True

    def end(self, exit_code: int, reason: str) -> None:
        """Terminate the container."""
        self.started = self.ready = False
        self.terminated = {
            "exitCode": exit_code,
            "reason": reason,
            "startedAt": self.started_at or None,
            "finishedAt": timestamp(),
            "containerID": self.container_id,
        }

    @property
    def ident(self) -> str:
        """The container's id, as its runtime knows it."""
        return self.container_id.removeprefix("containerd://")

    def fail_to_start(self, message: str) -> None:
        """End the container before its first process ran (`pod-nested-mount-read-only`)."""
        self.started_at = "1970-01-01T00:00:00Z"
        self.end(NEVER_RAN, "StartError")
        self.terminated = {**(self.terminated or {}), "message": message}

    def restart(self) -> None:
        """Restart the ended container."""
        self.last_terminated = self.terminated or self.last_terminated
        self.restarts += 1
        self.start()

    def back_off(self, reason: str, message: str) -> None:
        """Let the container wait, after it has ended or because it can't start."""
        self.last_terminated = self.terminated or self.last_terminated
        self.terminated = None
        self.started = self.ready = False
        self.waiting, self.message = reason, message


@dataclass(slots=True)
class PodState:
    """The state of a Pod on the node."""

    containers: list[ContainerState]
    inits: list[ContainerState] = field(default_factory=list)
    phase: str = "Pending"
    outcome: str = ""
    """The final phase, set when all containers have ended for good (`watch-pods.ndjson`)."""

    sandbox_ready: bool = False
    """Whether the network is set up, so that containers can start."""

    address: str = ""
    started_at: str = field(default_factory=timestamp)
    evicted: str = ""
    """The node's reason for evicting the Pod; empty if it was not evicted."""

    @property
    def ready(self) -> bool:
        """Whether all containers are ready."""
        return not self.unready

    @property
    def unready(self) -> list[str]:
        """Names of the sidecars and containers that are not ready (`pod-native-sidecar-not-started`)."""
        sidecars = [container for container in self.inits if container.is_sidecar]
        return [container.name for container in (*sidecars, *self.containers) if not container.ready]

    def initialize(self, launch: Callable[[ContainerState], None]) -> ContainerState | None:
        """Run the init containers one after another; return one that can't start, or None. They end at once.

        `launch`: ends a container that was started, if it can't start.
        """
        for container in self.inits:
            if container.ready:
                continue
            if container.container_id:
                container.restart()
            else:
                container.start()
            launch(container)
            if not container.running:
                return container
            container.initialize()
        return None


def state_of_new(spec: Json) -> PodState:
    """Return the state of a Pod that was just bound to the node (`pod-native-sidecar-not-started`)."""
    inits = [
        ContainerState(one["name"], "PodInitializing", is_sidecar=one.get("restartPolicy") == "Always")
        for one in spec.get("initContainers") or ()
    ]
    waiting = "PodInitializing" if inits else "ContainerCreating"
    return PodState([ContainerState(one["name"], waiting) for one in spec["containers"]], inits)


def scheduled() -> list[Json]:
    """Return the conditions of a Pod that was just scheduled; as recorded, without a generation."""
    return [{"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": timestamp()}]


def unschedulable(generation: int) -> list[Json]:
    """Return the conditions of an unschedulable Pod (`pod-unschedulable`)."""
    return [
        {
            "type": "PodScheduled",
            "observedGeneration": generation,
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": timestamp(),
            "reason": "Unschedulable",
            "message": UNSCHEDULABLE,
        }
    ]


def status_of(pod: Json, state: PodState) -> Json:
    """Return the status of a Pod in a state."""
    generation = metadata(pod).get("generation", 1)
    status: Json = {
        "observedGeneration": generation,
        "phase": state.phase,
        "conditions": _conditions(pod, state, generation),
        "hostIP": NODE_IP,
        "hostIPs": [{"ip": NODE_IP}],
    }
    if state.evicted:
        status |= {"reason": "Evicted", "message": state.evicted}
    if state.address:
        status |= {"podIP": state.address, "podIPs": [{"ip": state.address}]}
    status["startTime"] = state.started_at
    specs = pod["spec"]["containers"]
    pairs = zip(specs, state.containers, strict=True)
    inits = zip(pod["spec"].get("initContainers") or (), state.inits, strict=True)
    if state.inits:
        status["initContainerStatuses"] = [_container_status(spec, container) for spec, container in inits]
    status["containerStatuses"] = [_container_status(spec, container) for spec, container in pairs]
    status["qosClass"] = pod["status"]["qosClass"]
    resources, allocated = _pod_resources(specs)
    if allocated:
        status["allocatedResources"] = allocated
    status["resources"] = resources
    return status


def _conditions(pod: Json, state: PodState, generation: int) -> list[Json]:
    before = {condition["type"]: condition for condition in pod["status"].get("conditions") or ()}
    ready = _readiness(state)
    wanted: dict[str, Json] = {
        "PodReadyToStartContainers": {"status": "True" if state.sandbox_ready else "False"},
        "Initialized": _initialized(state),
        "Ready": ready,
        "ContainersReady": ready,
        "PodScheduled": {"status": "True"},
    }
    if state.outcome == "Succeeded":
        wanted["Initialized"] = {"status": "True", "reason": "PodCompleted"}
    written = []
    for name in _CONDITIONS:
        old = before.get(name)
        same = old is not None and old["status"] == wanted[name]["status"]
        written.append(
            {
                "type": name,
                "observedGeneration": generation,
                "status": wanted[name]["status"],
                "lastProbeTime": None,
                "lastTransitionTime": old["lastTransitionTime"] if old and same else timestamp(),
                **wanted[name],
            }
        )
    if state.evicted:
        disruption = {"reason": "TerminationByKubelet", "message": state.evicted}
        at = {"lastProbeTime": None, "lastTransitionTime": timestamp()}
        written.append(
            {"type": "DisruptionTarget", "observedGeneration": generation, "status": "True", **at, **disruption}
        )
    return written


def _readiness(state: PodState) -> Json:
    """Return why a Pod is not ready: it has ended, or the names of its unready containers."""
    if state.outcome == "Succeeded":
        return {"status": "False", "reason": "PodCompleted"}
    if state.outcome == "Failed":
        return {"status": "False", "reason": "PodFailed"}
    if state.ready:
        return {"status": "True"}
    message = f"containers with unready status: [{' '.join(state.unready)}]"
    return {"status": "False", "reason": "ContainersNotReady", "message": message}


def _initialized(state: PodState) -> Json:
    """Return which init containers are still to run (`pod-native-sidecar-not-started`)."""
    names = [container.name for container in state.inits if not container.ready]
    if not names:
        return {"status": "True"}
    message = f"containers with incomplete status: [{' '.join(names)}]"
    return {"status": "False", "reason": "ContainersNotInitialized", "message": message}


def _container_status(spec: Json, container: ContainerState) -> Json:
    image = spec["image"]
    status: Json = {
        "name": container.name,
        "state": _current(container),
        "lastState": {"terminated": container.last_terminated} if container.last_terminated else {},
        "ready": container.ready,
        "restartCount": container.restarts,
        "image": image,
        "imageID": f"sha256:{_digest(image)}" if container.container_id else "",
    }
    if container.container_id:
        status["containerID"] = container.container_id
    status["started"] = container.started
    if container.container_id:
        resources = _container_resources(spec)
        if resources.get("requests"):
            status["allocatedResources"] = resources["requests"]
        status["resources"] = resources
    status["volumeMounts"] = [_mount(mount) for mount in spec.get("volumeMounts") or ()]
    if container.container_id:
        status["user"] = {"linux": {"uid": 0, "gid": 0, "supplementalGroups": [0]}}
    return status


def _current(container: ContainerState) -> Json:
    if container.waiting:
        waiting = {"reason": container.waiting}
        return {"waiting": {**waiting, "message": container.message} if container.message else waiting}
    if container.terminated is not None:
        return {"terminated": container.terminated}
    return {"running": {"startedAt": container.started_at}}


def _digest(image: str) -> str:
    """Return a digest that is fixed for each image name, since nothing is pulled."""
    return hashlib.sha256(image.encode()).hexdigest()


def _mount(mount: Json) -> Json:
    shown = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        shown |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
    return shown


def _container_resources(spec: Json) -> Json:
    resources = spec.get("resources") or {}
    return {name: resources[name] for name in ("limits", "requests") if resources.get(name)}


def _pod_resources(specs: list[Json]) -> tuple[Json, Json]:
    """Return the resources of the whole Pod, which are the container's, since our Pods have only one."""
    resources = _container_resources(specs[0])
    only = {
        group: {name: amount for name, amount in amounts.items() if name in ("cpu", "memory")}
        for group, amounts in resources.items()
    }
    return {group: amounts for group, amounts in only.items() if amounts}, only.get("requests", {})
