"""Answers `kubectl logs`, with text that a test has set, since no container runs."""

from collections.abc import Mapping

from devcluster.errors import bad_request, not_found
from devcluster.kubelet import Kubelet
from devcluster.podstatus import IMAGE_TROUBLE, ContainerState
from devcluster.resources import PODS
from devcluster.store import Key, Store


class Logs:
    """The logs of all containers."""

    def __init__(self, store: Store, kubelet: Kubelet) -> None:
        self._store = store
        self._kubelet = kubelet

    def read(self, key: Key, query: Mapping[str, str]) -> str:
        """Return a container's log. Raises NotFound, and BadRequest if the container has not started."""
        if self._store.get(PODS, *key) is None:
            raise not_found(PODS, key[1])
        state = self._kubelet.state_of(key)
        if state is None:
            return ""  # without a node there is no kubelet
        named = query.get("container", "") or state.containers[0].name
        container = next((container for container in state.containers if container.name == named), None)
        if container is None:
            raise bad_request(f"container {named} is not valid for pod {key[1]}")
        if query.get("previous") in ("true", "1"):
            return _bounded(_previous(container, key), query)
        if not container.container_id:  # `logs-waiting`
            why = "trying and failing to pull image" if container.waiting in IMAGE_TROUBLE else container.waiting
            raise bad_request(f'container "{named}" in pod "{key[1]}" is waiting to start: {why}')
        return _bounded(container.log, query)


def _previous(container: ContainerState, key: Key) -> str:
    if container.last_terminated is None:
        raise bad_request(f'previous terminated container "{container.name}" in pod "{key[1]}" not found')
    return container.log


def _bounded(text: str, query: Mapping[str, str]) -> str:
    """Return the first `limitBytes` of the last `tailLines`, as a kubelet does."""
    lines, most = query.get("tailLines", ""), query.get("limitBytes", "")
    if lines.isdigit():
        text = "".join(text.splitlines(keepends=True)[-int(lines) :]) if int(lines) else ""
    return text.encode()[: int(most)].decode(errors="ignore") if most.isdigit() else text
