"""The words by which a test puts a Pod into a state. A thin layer over `kubelet` and `podstatus`."""

from typing import TypedDict

from devcluster.kubelet import Kubelet
from devcluster.podstatus import ContainerState, PodState

Key = tuple[str, str]
FINISHED = ("Failed", "Succeeded")
NEVER_STARTED = (
    "ContainerCreating",
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
)


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


def put_into_state(kubelet: Kubelet, key: Key, words: Words) -> None:
    """Put a Pod that has the node into a state, in which it stays until it is deleted.

    Raises KeyError for a Pod that is not on the node.
    """
    state = kubelet.state_of(key)
    if state is None:
        raise KeyError(f"no Pod {key[1]} in {key[0]} on the node")
    kubelet.freeze(key)
    for container in state.containers:
        _change(container, words)
    waiting = words.get("waiting", "")
    _set_phase(state, words.get("phase", ""), waiting=bool(waiting))
    kubelet.publish(key, serving=words.get("ready", False))


def _change(container: ContainerState, words: Words) -> None:
    waiting = words.get("waiting", "")
    if not container.container_id and waiting not in NEVER_STARTED:
        container.start()
    if "exit_code" in words:
        reason = words.get("reason", "Error" if words["exit_code"] else "Completed")
        _end(container, words["exit_code"], reason, again=words.get("phase") not in FINISHED)
    if waiting:
        container.back_off(waiting, words.get("message", ""))
    if "ready" in words:
        container.started, container.ready = True, words["ready"]
    container.restarts = words.get("restarts", container.restarts)


def _end(container: ContainerState, exit_code: int, reason: str, *, again: bool) -> None:
    container.end(exit_code, reason)
    if again:
        container.restart()
        container.started = container.ready = True


def _set_phase(state: PodState, phase: str, *, waiting: bool) -> None:
    began = any(container.container_id for container in state.containers)
    state.sandbox_ready = phase not in FINISHED
    state.phase = phase or ("Pending" if waiting and not began else "Running")
