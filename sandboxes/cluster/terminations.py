"""Logs why a sandbox's Pod or container ended, unless the service deleted it.

Listens to the informer, and remembers what was logged about each Pod, so that a new list repeats nothing. Without an
informer it logs nothing.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeAlias

from sandboxes import objects as kube
from sandboxes.deadlines import DEADLINES
from sandboxes.expiring_dict import ExpiringDict
from sandboxes.status.reasons import (
    Trouble,
    has_ended,
    last_termination,
    of_pod_as_a_whole,
    outcome_of,
    shortened,
    trouble_of,
)
from sandboxes.status.restarts import is_restarted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandboxes.deadlines import Deadlines
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)

# (container id, end time) of a terminated run, and (reason, exit code) of its end.
_Run: TypeAlias = "tuple[object, object] | None"
_Cause: TypeAlias = "tuple[str, int | None] | None"


@dataclass
class _Life:
    """What was logged about one Pod. `expected`: the service is deleting it."""

    uid: str
    run: _Run
    has_ended: bool
    expected: bool = False
    cause: _Cause = None


class TerminationLog:
    """Logs each termination once.

    Connect `on_exchange` to the informer, and call `expect` before each delete. `now`: a monotonic clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, deadlines: Deadlines = DEADLINES) -> None:
        self._deadlines = deadlines
        self._lives: dict[str, _Life] = {}
        # Pods that the service is deleting: name → uid, None if unknown.
        self._expected: ExpiringDict[str, str | None] = ExpiringDict(deadlines.deletion_expected, now)

    def expect(self, uids: Mapping[str, str | None]) -> None:
        """Announce that this process will delete Pods: name → uid, None if unknown."""
        for name, uid in uids.items():
            self._expected.note(name, uid)

    def on_exchange(self, old: KubeObject | None, new: KubeObject | None) -> None:
        """Handle a change in the informer, and log it if it is a termination; None means no object."""
        if old is not None and old["kind"] == "Pod" and (new is None or _uid(new) != _uid(old)):
            self._vanished(old)
        if new is not None and new["kind"] == "Pod":
            self._changed(new)

    def _changed(self, pod: KubeObject) -> None:
        name = pod["metadata"]["name"]
        life = self._lives.get(name)
        if life is None:
            # Terminations before the first observation are not logged: this process may have just started.
            life = self._lives[name] = _Life(_uid(pod), _run(pod), has_ended(pod))
        if kube.is_terminating(pod):
            life.expected = life.expected or self._is_expected(pod)
            return  # logged when the Pod is gone
        # The kubelet drops the status of old runs after a while, which is not a new termination.
        run, ended = _run(pod) or life.run, has_ended(pod)
        if life.has_ended or (run == life.run and not ended):
            return
        trouble = _why(pod)
        cause = (trouble.reason, trouble.exit_code)
        is_again = cause == life.cause and (run == life.run or _seconds_run(pod) < self._deadlines.crash_loop_over)
        life.run, life.has_ended, life.cause = run, ended, cause
        if not is_again:
            what = "has ended" if ended or not _restarts(pod) else "has ended and is started again"
            _log(_level(pod, trouble), pod, trouble, what)

    def _vanished(self, pod: KubeObject) -> None:
        life = self._lives.pop(pod["metadata"]["name"], None)
        if life is None or life.has_ended or life.expected or self._is_expected(pod):
            return
        trouble = of_pod_as_a_whole(pod) or Trouble("Deleted", "its Pod was deleted, but not by this process")
        ended = last_termination(pod) or {}
        _log(logging.WARNING, pod, Trouble(trouble.reason, trouble.message, exit_code=ended.get("exitCode")), "is gone")

    def _is_expected(self, pod: KubeObject) -> bool:
        name = pod["metadata"]["name"]
        return name in self._expected and self._expected.get(name) in (None, _uid(pod))


def _uid(pod: KubeObject) -> str:
    uid: str = pod["metadata"]["uid"]
    return uid


def _run(pod: KubeObject) -> _Run:
    """Return (container id, end time) of the sandbox container's last terminated run, or None."""
    ended = last_termination(pod)
    return None if ended is None else (ended.get("containerID"), ended.get("finishedAt"))


def _why(pod: KubeObject) -> Trouble:
    """Return the reason why the Pod or its sandbox container ended, as far as the Pod itself says it.

    Events are not read here: an eviction whose Pod ends as `Succeeded`, without a reason, is logged as `Completed`,
    and only a diagnosis names it (record: pod-evicted-ephemeral-succeeded).
    """
    whole = of_pod_as_a_whole(pod)
    ended = last_termination(pod) or {}
    code = ended.get("exitCode")
    if whole is not None:
        return Trouble(whole.reason, whole.message, exit_code=code)
    if ended:
        return Trouble(ended.get("reason") or "Error", shortened(ended.get("message")), exit_code=code)
    return trouble_of(pod) or Trouble("Unknown", None)


def _restarts(pod: KubeObject) -> bool:
    """Whether the kubelet restarts the sandbox container after its last termination."""
    code = (last_termination(pod) or {}).get("exitCode")
    return is_restarted(pod, kube.CONTAINER, code)


def _seconds_run(pod: KubeObject) -> float:
    """Return the duration of the sandbox container's last terminated run, in seconds; 0 if unknown."""
    ended = last_termination(pod) or {}
    begun, over = ended.get("startedAt"), ended.get("finishedAt")
    return (_time(over) - _time(begun)).total_seconds() if begun and over else 0.0


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _level(pod: KubeObject, trouble: Trouble) -> int:
    """Return INFO if the sandbox completed successfully and is not restarted, else WARNING."""
    is_well = outcome_of(pod) == "Succeeded" or (trouble.reason == "Completed" and not _restarts(pod))
    return logging.INFO if is_well else logging.WARNING


def _log(level: int, pod: KubeObject, trouble: Trouble, what: str) -> None:
    logger.log(
        level,
        "sandbox %s %s: thread %s, reason %s, exit code %s, age %.0f s, message: %s",
        kube.sandbox_id_of(pod) or pod["metadata"]["name"],
        what,
        _one_line(kube.get_annotations(pod).get(kube.THREAD_ANNOTATION)),
        _one_line(trouble.reason),
        "-" if trouble.exit_code is None else trouble.exit_code,
        (datetime.now(UTC) - _time(pod["metadata"]["creationTimestamp"])).total_seconds(),
        _one_line(trouble.message),
    )


def _one_line(text: str | None) -> str:
    """Replace control characters, so that the text can't forge a log line; return `-` for an empty text."""
    return "".join(char if char.isprintable() else " " for char in text or "").strip() or "-"
