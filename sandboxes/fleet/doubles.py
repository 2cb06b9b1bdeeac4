"""Finds sandboxes that several clusters have, as if made by hand: nothing but a caller's DELETE removes one of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandboxes.fleet.protocol import Pod

logger = logging.getLogger(__name__)


def find_doubles(pods: Mapping[str, Mapping[str, Pod]]) -> dict[str, list[str]]:
    """Return the names of the clusters of each id that several have, sorted. `pods`: by cluster and id.

    A Pod that another one is known to replace does not count: the reaper deletes it, by its uid. One that is replaced
    without its uid being known counts.
    """
    on: dict[str, dict[str, Pod]] = {}
    for name, of_it in pods.items():
        for sandbox_id, pod in of_it.items():
            on.setdefault(sandbox_id, {})[name] = pod
    doubles = {}
    for sandbox_id, by_name in sorted(on.items()):
        if len(by_name) > 1:
            replaced = {pod.replaces for pod in by_name.values()}
            names = sorted(name for name, pod in by_name.items() if f"{name}/{pod.uid}" not in replaced)
            if len(names) > 1:
                doubles[sandbox_id] = names
    return doubles


class DoublesLog:
    """Names each such sandbox in the log once, and again if its clusters change."""

    def __init__(self) -> None:
        self._said: dict[str, list[str]] = {}

    def say(self, sandbox_id: str, names: Iterable[str]) -> None:
        """Log that these clusters have the sandbox, unless it was logged before."""
        clusters = sorted(names)
        if self._said.get(sandbox_id) != clusters:
            self._said[sandbox_id] = clusters
            logger.warning("sandbox %s is on several clusters: %s", sandbox_id, ", ".join(clusters))

    def say_all(self, doubles: Mapping[str, list[str]]) -> None:
        """Log those that were not logged before, and forget those that are over."""
        self._said = {sandbox_id: names for sandbox_id, names in self._said.items() if sandbox_id in doubles}
        for sandbox_id, names in doubles.items():
            self.say(sandbox_id, names)
