"""The states that a test puts a Pod into: those of the record by their names, and finer ones by words.

A recorded state is reached on the way that the recorded kubelet took (`watch-pods.ndjson`): each step is a report that
watches see, with its events. Where the Pod is on that way already, the steps behind it are left out.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypedDict

from devcluster.kubelet import Kubelet
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
    """One Pod on its way into a state."""

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
        """Give the container that the state is about: the first."""
        return self.state.containers[0]

    @property
    def recorder(self) -> Recorder:
        return self.kubelet.recorder

    def said(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Write an event about the container."""
        self.recorder.kubelet(self.pod, reason, message, self.container.name, warning=warning)

    def begun(self) -> None:
        """Let the containers run, if they don't."""
        self.network()
        if not self.container.container_id:
            self.kubelet.begin(self.key)
        elif not self.container.running:
            self.kubelet.restart(self.key)

    def network(self) -> None:
        """Let the Pod have its network, which comes before its containers."""
        if not self.state.sandbox_ready:
            self.kubelet.prepare(self.key)

    def creating(self) -> None:
        """Stay without containers."""
        self.kubelet.publish(self.key)

    def ready(self) -> None:
        """Run, and be ready."""
        self.begun()
        for container in self.state.containers:
            container.started = container.ready = True
        self.kubelet.publish(self.key, serving=True)

    def running_unready(self) -> None:
        """Run, with a server that does not answer."""
        self.begun()
        for container in self.state.containers:
            container.started, container.ready = True, False
        self.kubelet.publish(self.key, serving=False)

    def err_image_pull(self) -> None:
        """Have tried just now to pull an image that can't be pulled."""
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
        """Wait before the image is tried again."""
        if self.container.waiting != "ErrImagePull":
            self.err_image_pull()
        image = self.pod["spec"]["containers"][0]["image"]
        backing_off = f'Back-off pulling image "{image}"'
        self.said("BackOff", backing_off)
        self.said("Failed", "Error: ImagePullBackOff", warning=True)
        self.container.back_off("ImagePullBackOff", f"{backing_off}: ErrImagePull: {self.container.message}")
        self.kubelet.publish(self.key)

    def crashed(self) -> None:
        """Have a container that has ended by itself and is not restarted yet."""
        self._ended(CRASH_CODE, "Error")

    def out_of_memory(self) -> None:
        """Have a container that has used up its memory and is not restarted yet."""
        self._ended(KILLED, "OOMKilled")

    def _ended(self, exit_code: int, reason: str) -> None:
        self.begun()
        self.container.end(exit_code, reason)
        self.kubelet.publish(self.key, serving=False)

    def oom_killed(self) -> None:
        """Have a container that has used up its memory and runs again."""
        self.out_of_memory()
        self.kubelet.restart(self.key)

    def crash_loop(self) -> None:
        """Have a container that goes on ending as it did last, and is not restarted for a while."""
        if self.container.terminated is None:
            self.crashed()
        if self.container.restarts == 0:
            ended = self.container.terminated or {}
            self._ended(ended["exitCode"], ended["reason"])
        self.kubelet.back_off(self.key, self.container)

    def failed_mount(self) -> None:
        """Wait for a volume that can't be mounted, as of now once more (`events-failed-mount`)."""
        volumes: list[Json] = self.pod["spec"].get("volumes") or []
        volume: Json = next((volume for volume in volumes if "hostPath" in volume), volumes[0])
        where = (volume.get("hostPath") or {}).get("path", volume["name"])
        why = f"hostPath type check failed: {where} is not a directory"
        message = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {why}'
        self.recorder.kubelet(self.pod, "FailedMount", message, warning=True)
        self.kubelet.publish(self.key)

    def succeeded(self) -> None:
        """Have ended well, for good."""
        self._finished(0, "Succeeded")

    def failed(self) -> None:
        """Have ended badly, for good."""
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
        """Have been ended for good by a node that ran short of memory.

        Not in the record: the shape is the kubelet's own (pkg/kubelet/eviction/helpers.go).
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
        """Be told to end, and take no heed of it for the whole of the grace."""
        self.begun()
        self.kubelet.delete_heedless(self.key)

    def unschedulable(self) -> None:
        """Have no node that is right for it."""
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
"""`pod-NAME` in the record, and the moments between them that its watch shows; and `evicted`, which it has not."""


def put_into(kubelet: Kubelet, key: Key, name: str) -> None:
    """Take a Pod into a recorded state, in which it stays until it is put into another or deleted.

    Raises KeyError for a Pod that is not on the node, and for no such state.
    """
    STATES[name](_Course(kubelet, key))


def _pull_trouble(image: str) -> str:
    """Say why an image can't be pulled, of a registry that can't be reached."""
    host, _, rest = image.partition("/")
    path, _, tag = rest.partition(":")
    asked = f'failed to do request: Head "https://{host}/v2/{path}/manifests/{tag or "latest"}": {_UNREACHABLE}'
    return f'failed to pull and unpack image "{image}": failed to resolve image: {asked}'


class Words(TypedDict, total=False):
    """What can be said of a Pod. `ready`: it runs, and is ready or not.

    `waiting` with `message`: a container that waits (`ImagePullBackOff`, `CrashLoopBackOff`). `exit_code` with
    `reason`: a container that has ended (`OOMKilled`), which is how it is now with a finished `phase`, else how it was
    before it was started again. `restarts`: how often that was.
    """

    phase: str
    ready: bool
    waiting: str
    message: str
    exit_code: int
    reason: str
    restarts: int


def put_in_words(kubelet: Kubelet, key: Key, words: Words) -> None:
    """Put a Pod that has the node into a state, in one report; it stays in it until it is deleted.

    Raises KeyError for a Pod that is not on the node.
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
