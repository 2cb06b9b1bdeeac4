"""The recorded states of Pods, and how to put devcluster's Pods into each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from devcluster.tests.replay import Replay, namespace_rec, sandbox_a
from tests.record import case

UNCHANGING: dict[str, Any] = {"start_after": 10_000}
"""Options of a cluster whose Pods do not change until a test puts them into a state."""


async def put_into(replay: Replay, name: str, *states: str) -> None:
    """Apply the sandbox `name` as recorded, and put it into the states in turn."""
    await namespace_rec(replay)
    await replay.apply_case(f"apply-real-{name}")
    replay.cluster.put_pod_into("rec", f"sandbox-{name}", *states)


# By recorded case: its sandbox, and the states that the sandbox went through.
POD_STATES: dict[str, tuple[str, ...]] = {
    "pod-creating": ("ready", "creating"),
    "pod-ready": ("ready", "running-unready", "ready"),
    "pod-running-unready": ("unready", "running-unready"),
    "pod-image-pull-backoff": ("nopull", "image-pull-backoff"),
    "pod-crash-loop": ("crash", "crash-loop"),
    "pod-oom-killed": ("oom", "oom-killed"),
    "pod-succeeded": ("done", "succeeded"),
    "pod-failed": ("fail", "failed"),
    "pod-failed-mount": ("mount", "failed-mount"),
    "events-failed-mount": ("mount", *["failed-mount"] * 4),
    "events-image-pull": ("nopull", "image-pull-backoff", "err-image-pull"),
    "logs-waiting": ("nopull", "err-image-pull"),
}


async def ready_with_log(replay: Replay) -> None:
    await put_into(replay, "ready", "ready")
    replay.cluster.set_log("rec", "sandbox-ready", case("logs").stdout)


async def crashed_with_log(replay: Replay) -> None:
    await put_into(replay, "crash", "creating")
    replay.cluster.set_log("rec", "sandbox-crash", case("logs-previous").stdout)
    replay.cluster.put_pod_into("rec", "sandbox-crash", "crashed", "ready")


async def slow_terminating(replay: Replay) -> None:
    await put_into(replay, "slow", "ready", "terminating")


async def all_states(replay: Replay) -> None:
    """Make sandboxes in all states, two Services without a Pod, and two unschedulable Pods."""
    await sandbox_a(replay)
    await put_into(replay, "crash", "crash-loop", "crashed")
    await put_into(replay, "done", "succeeded")
    await put_into(replay, "fail", "failed")
    await put_into(replay, "mount", "failed-mount")
    await put_into(replay, "nopull", "image-pull-backoff", "err-image-pull")
    await put_into(replay, "oom", "out-of-memory", "crash-loop", "out-of-memory")
    await put_into(replay, "ready", "ready")
    await put_into(replay, "unready", "running-unready")
    annotated = await replay.run(case("annotate"))
    assert annotated.rc == 0, annotated.stderr
    others = [case("apply-pod-security-warning").stdin["items"][0]]
    others += [case(name).stdin["items"][1] for name in ("apply-quota-exceeded", "apply-real-slow")]
    assert (await replay.kubectl.apply(*others)).rc == 0


PREPARED: dict[str, Callable[[Replay], Awaitable[None]]] = {
    "logs": ready_with_log,
    "logs-previous": crashed_with_log,
    "pod-terminating": slow_terminating,
    "list-mixed": all_states,
}
