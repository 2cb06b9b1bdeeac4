"""Logs the cause when a sandbox's Pod or container ends without a request of ours.

Reads what the live view is told, and keeps of each Pod what was said of it, so that a new list says nothing twice.
Without an informer there is nothing to log.
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
from sandboxes.status.reasons import Trouble, has_ended, last_termination, of_pod_as_a_whole, shortened, trouble_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sandboxes.deadlines import Deadlines
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)

# What tells one run of a container from another, and its end by reason and exit code.
_Run: TypeAlias = "tuple[object, object] | None"
_Cause: TypeAlias = "tuple[str, int | None] | None"


@dataclass
class _Life:
    """What was said of one Pod, which `uid` identifies."""

    uid: str
    run: _Run
    has_ended: bool
    ours: bool = False
    cause: _Cause = None


class TerminationLog:
    """Logs each death once: `on_exchange` is connected to the informer, `expect` is told before each delete of ours.

    `now`: a clock that never goes back, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, deadlines: Deadlines = DEADLINES) -> None:
        self._deadlines = deadlines
        self._lives: dict[str, _Life] = {}
        # The Pods whose delete was asked for, by name, with their uid if it is known.
        self._expected: ExpiringDict[str, str | None] = ExpiringDict(deadlines.deletion_expected, now)

    def expect(self, uids: Mapping[str, str | None]) -> None:
        """Take in that Pods are about to be deleted by this process: name → uid, or None where that isn't known."""
        for name, uid in uids.items():
            self._expected.note(name, uid)

    def on_exchange(self, old: KubeObject | None, new: KubeObject | None) -> None:
        """Take in that the view has another version of an object (None: it has none); logs a death if it is one."""
        if old is not None and old["kind"] == "Pod" and (new is None or _uid(new) != _uid(old)):
            self._vanished(old)
        if new is not None and new["kind"] == "Pod":
            self._changed(new)

    def _changed(self, pod: KubeObject) -> None:
        name = pod["metadata"]["name"]
        life = self._lives.get(name)
        if life is None:
            # How it ended before it was seen was for others to say: this process may have just started.
            life = self._lives[name] = _Life(_uid(pod), _run(pod), has_ended(pod))
        if kube.is_terminating(pod):
            life.ours = life.ours or self._is_expected(pod)
            return  # it ends because it is being deleted; it is told of when it is gone
        # A node forgets old runs after a while: that is none of them.
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
        if life is None or life.has_ended or life.ours or self._is_expected(pod):
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
    """Return what identifies the last run of the sandbox container that has ended; None if none has."""
    ended = last_termination(pod)
    return None if ended is None else (ended.get("containerID"), ended.get("finishedAt"))


def _why(pod: KubeObject) -> Trouble:
    """Return why the Pod, or its sandbox container, has ended."""
    whole = of_pod_as_a_whole(pod)
    ended = last_termination(pod) or {}
    code = ended.get("exitCode")
    if whole is not None:
        return Trouble(whole.reason, whole.message, exit_code=code)
    if ended:
        return Trouble(ended.get("reason") or "Error", shortened(ended.get("message")), exit_code=code)
    return trouble_of(pod) or Trouble("Unknown", None)


def _restarts(pod: KubeObject) -> bool:
    """Whether the node starts the sandbox container again after an end like its last."""
    policy = pod["spec"].get("restartPolicy", "Always")
    code = (last_termination(pod) or {}).get("exitCode")
    return bool(policy == "Always" or (policy == "OnFailure" and code != 0))


def _seconds_run(pod: KubeObject) -> float:
    """Return for how long the last run of the sandbox container lasted."""
    ended = last_termination(pod) or {}
    begun, over = ended.get("startedAt"), ended.get("finishedAt")
    return (_time(over) - _time(begun)).total_seconds() if begun and over else 0.0


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _level(pod: KubeObject, trouble: Trouble) -> int:
    """Return INFO for a sandbox that has ended well for good, else WARNING."""
    is_well = pod["status"].get("phase") == "Succeeded" or (trouble.reason == "Completed" and not _restarts(pod))
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
    """Return a text that others have written so that it can't forge lines of the log; `-` for none."""
    return "".join(char if char.isprintable() else " " for char in text or "").strip() or "-"
