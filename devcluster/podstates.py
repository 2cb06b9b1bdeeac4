"""Puts Pods into states for tests: recorded ones by name, others by description.

A Pod reaches a recorded state by the steps of the recorded kubelet (`watch-pods.ndjson`). Each step is a report that
watches see, with its Events. Steps that the Pod has already taken are skipped.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

from devcluster.kubelet import Kubelet
from devcluster.node import failed_mount
from devcluster.podstatus import IMAGE_TROUBLE, KILLED, ContainerState
from devcluster.recorder import Recorder
from devcluster.store import Key

if TYPE_CHECKING:
    from devcluster.objects import Json

FINISHED = ("Failed", "Succeeded")
NEVER_STARTED = ("ContainerCreating", "InvalidImageName", "CreateContainerConfigError", *IMAGE_TROUBLE)
CRASH_CODE, FAILURE_CODE = 3, 7
"""The exit codes of the recorded Pods."""

_UNREACHABLE = "proxyconnect tcp: dial tcp 127.0.0.1:9: connect: connection refused"


class _Course:
    """Moves one Pod into a state."""

    def __init__(self, kubelet: Kubelet, key: Key) -> None:
        found = kubelet.state_of(key)
        if found is None:
            raise KeyError(f"no Pod {key[1]} in {key[0]} on the node")
        self.kubelet = kubelet
        self.key = key
        self.state = found
        self.pod: Json = kubelet.pod_of(key)
        kubelet.freeze(key)

    @property
    def container(self) -> ContainerState:
        """The first container, to which the states apply."""
        return self.state.containers[0]

    @property
    def recorder(self) -> Recorder:
        return self.kubelet.recorder

    def said(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an Event about the container."""
        self.recorder.kubelet(self.pod, reason, message, self.container.name, warning=warning)

    def begun(self) -> None:
        """Start the containers unless they run."""
        self.network()
        if not self.container.container_id:
            self.kubelet.begin(self.key)
        elif not self.container.running:
            self.kubelet.restart(self.key)

    def network(self) -> None:
        """Set up the Pod's network, which precedes its containers."""
        if not self.state.sandbox_ready:
            self.kubelet.prepare(self.key)

    def creating(self) -> None:
        """Stay without running containers."""
        self.kubelet.publish(self.key)

    def ready(self) -> None:
        """Run and be ready."""
        self.begun()
        for container in self.state.containers:
            container.started = container.ready = True
        self.kubelet.publish(self.key, serving=True)

    def running_unready(self) -> None:
        """Run with a server that does not answer."""
        self.begun()
        for container in self.state.containers:
            container.started, container.ready = True, False
        self.kubelet.publish(self.key, serving=False)

    def err_image_pull(self) -> None:
        """Fail to pull the image."""
        self.network()
        image = self.pod["spec"]["containers"][0]["image"]
        trouble = _pull_trouble(image)
        self.said("Pulling", f'Pulling image "{image}"')
        self.said("Failed", f'Failed to pull image "{image}": {trouble}', warning=True)
        self.said("Failed", "Error: ErrImagePull", warning=True)
        self.kubelet.address(self.key)
        self.container.back_off("ErrImagePull", trouble)
        self.kubelet.publish(self.key)

    def image_pull_backoff(self) -> None:
        """Back off from pulling the image."""
        if self.container.waiting != "ErrImagePull":
            self.err_image_pull()
        image = self.pod["spec"]["containers"][0]["image"]
        backing_off = f'Back-off pulling image "{image}"'
        self.said("BackOff", backing_off)
        self.said("Failed", "Error: ImagePullBackOff", warning=True)
        self.container.back_off("ImagePullBackOff", f"{backing_off}: ErrImagePull: {self.container.message}")
        self.kubelet.publish(self.key)

    def crashed(self) -> None:
        """Let the container crash, without a restart yet."""
        self._ended(CRASH_CODE, "Error")

    def out_of_memory(self) -> None:
        """Let the container run out of memory, without a restart yet."""
        self._ended(KILLED, "OOMKilled")

    def _ended(self, exit_code: int, reason: str) -> None:
        self.begun()
        self.container.end(exit_code, reason)
        self.kubelet.publish(self.key, serving=False)

    def oom_killed(self) -> None:
        """Let the container run out of memory, and restart it."""
        self.out_of_memory()
        self.kubelet.restart(self.key)

    def crash_loop(self) -> None:
        """Repeat the container's last failure, and back off."""
        if self.container.terminated is None:
            self.crashed()
        if self.container.restarts == 0:
            ended = self.container.terminated or {}
            self._ended(ended["exitCode"], ended["reason"])
        self.kubelet.back_off(self.key, self.container)

    def failed_mount(self) -> None:
        """Fail to mount a volume, once more with each call (`events-failed-mount`)."""
        volumes: list[Json] = self.pod["spec"].get("volumes") or []
        volume: Json = next((volume for volume in volumes if "hostPath" in volume), volumes[0])
        where = (volume.get("hostPath") or {}).get("path", volume["name"])
        message = failed_mount(str(volume["name"]), str(where))
        self.recorder.kubelet(self.pod, "FailedMount", message, warning=True)
        self.kubelet.publish(self.key)

    def succeeded(self) -> None:
        """Finish with success."""
        self._finished(0, "Succeeded")

    def failed(self) -> None:
        """Finish with a failure."""
        self._finished(FAILURE_CODE, "Failed")

    def _finished(self, exit_code: int, outcome: str) -> None:
        self.begun()
        for container in self.state.containers:
            container.end(exit_code, "Error" if exit_code else "Completed")
        self.state.outcome = outcome
        self.kubelet.publish(self.key, serving=False)
        self.state.phase, self.state.sandbox_ready = outcome, False
        self.kubelet.publish(self.key)

    def evicted(self) -> None:
        """Be evicted by a node that is low on memory.

        Not in the record: the format is the kubelet's own (pkg/kubelet/eviction/helpers.go).
        """
        self.begun()
        said = (
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 64Mi. "
            f"Container {self.container.name} was using 512Mi, request is 256Mi, has larger consumption of memory. "
        )
        self.recorder.kubelet(self.pod, "Evicted", said, warning=True)
        self.state.evicted = said
        for container in self.state.containers:
            container.end(KILLED, "Error")
        self.state.phase = self.state.outcome = "Failed"
        self.state.sandbox_ready = False
        self.kubelet.publish(self.key, serving=False)

    def terminating(self) -> None:
        """Terminate, ignoring SIGTERM for the whole grace period."""
        self.begun()
        self.kubelet.delete_heedless(self.key)

    def unschedulable(self) -> None:
        """Become unschedulable."""
        self.kubelet.turn_away(self.key)


STATES: dict[str, Callable[[_Course], None]] = {
    "creating": _Course.creating,
    "ready": _Course.ready,
    "running-unready": _Course.running_unready,
    "err-image-pull": _Course.err_image_pull,
    "image-pull-backoff": _Course.image_pull_backoff,
    "crashed": _Course.crashed,
    "crash-loop": _Course.crash_loop,
    "out-of-memory": _Course.out_of_memory,
    "oom-killed": _Course.oom_killed,
    "failed-mount": _Course.failed_mount,
    "succeeded": _Course.succeeded,
    "failed": _Course.failed,
    "evicted": _Course.evicted,
    "terminating": _Course.terminating,
    "unschedulable": _Course.unschedulable,
}
"""`pod-NAME` in the record, intermediate states from its watch, and `evicted`, which is not in the record."""


def put_into(kubelet: Kubelet, key: Key, name: str) -> None:
    """Put a Pod into a recorded state, in which it stays until it is put into another or deleted.

    Raises KeyError if the Pod is not on the node, or the state is unknown.
    """
    STATES[name](_Course(kubelet, key))


def _pull_trouble(image: str) -> str:
    """Return the kubelet's error for an unreachable registry."""
    host, _, rest = image.partition("/")
    path, _, tag = rest.partition(":")
    asked = f'failed to do request: Head "https://{host}/v2/{path}/manifests/{tag or "latest"}": {_UNREACHABLE}'
    return f'failed to pull and unpack image "{image}": failed to resolve image: {asked}'


class Words(TypedDict, total=False):
    """The description of a Pod's state. `ready`: it runs, and is ready or not.

    `waiting` with `message`: a container that waits (`ImagePullBackOff`, `CrashLoopBackOff`). `exit_code` with
    `reason`: a container that has ended (`OOMKilled`); its current state if `phase` is a finished one, else the state
    before its last restart. `restarts`: the number of restarts.
    """

    phase: str
    ready: bool
    waiting: str
    message: str
    exit_code: int
    reason: str
    restarts: int


def put_in_words(kubelet: Kubelet, key: Key, words: Words) -> None:
    """Put a Pod into a described state, in one report; it stays in it until it is deleted.

    Raises KeyError if the Pod is not on the node.
    """
    course = _Course(kubelet, key)
    state = course.state
    for container in state.containers:
        _change(container, words)
    waiting = words.get("waiting", "")
    phase = words.get("phase", "")
    began = any(container.container_id for container in state.containers)
    state.outcome = phase if phase in FINISHED else ""
    state.sandbox_ready = not state.outcome
    state.phase = phase or ("Pending" if waiting and not began else "Running")
    kubelet.publish(key, serving=words.get("ready", False))


def _change(container: ContainerState, words: Words) -> None:
    waiting = words.get("waiting", "")
    if not container.container_id and waiting not in NEVER_STARTED:
        container.start()
    if "exit_code" in words:
        container.end(words["exit_code"], words.get("reason", "Error" if words["exit_code"] else "Completed"))
        if words.get("phase") not in FINISHED:
            container.restart()
            container.started = container.ready = True
    if waiting:
        container.back_off(waiting, words.get("message", ""))
    if "ready" in words:
        container.started, container.ready = True, words["ready"]
    container.restarts = words.get("restarts", container.restarts)
