"""The recorded states of Pods, and how devcluster's Pods are put into each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from devcluster.tests.stages import Stage, rec, sandbox_a
from tests.record import case

UNTOUCHED: dict[str, Any] = {"start_after": 10_000}
"""A cluster in which Pods stay as they are until a test puts them into a state."""


async def put(stage: Stage, name: str, *states: str) -> None:
    """Apply sandbox NAME as it was applied, and put it into states one after another."""
    await rec(stage)
    await stage.applied(f"apply-real-{name}")
    stage.cluster.put_pod_into("rec", f"sandbox-{name}", *states)


# The recorded case → the sandbox that it is about, and the states that this one has gone through.
SEEN: dict[str, tuple[str, ...]] = {
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


async def a_ready_server_that_spoke(stage: Stage) -> None:
    await put(stage, "ready", "ready")
    stage.cluster.set_log("rec", "sandbox-ready", case("logs").stdout)


async def a_crash_after_a_word(stage: Stage) -> None:
    await put(stage, "crash", "creating")
    stage.cluster.set_log("rec", "sandbox-crash", case("logs-previous").stdout)
    stage.cluster.put_pod_into("rec", "sandbox-crash", "crashed", "ready")


async def a_heedless_one(stage: Stage) -> None:
    await put(stage, "slow", "ready", "terminating")


async def all_of_them(stage: Stage) -> None:
    """Sandboxes in every state, two Services without a Pod, and two Pods that no node is right for."""
    await sandbox_a(stage)
    await put(stage, "crash", "crash-loop", "crashed")
    await put(stage, "done", "succeeded")
    await put(stage, "fail", "failed")
    await put(stage, "mount", "failed-mount")
    await put(stage, "nopull", "image-pull-backoff", "err-image-pull")
    await put(stage, "oom", "out-of-memory", "crash-loop", "out-of-memory")
    await put(stage, "ready", "ready")
    await put(stage, "unready", "running-unready")
    annotated = await stage.play(case("annotate"))
    assert annotated.rc == 0, annotated.stderr
    others = [case("apply-pod-security-warning").stdin["items"][0]]
    others += [case(name).stdin["items"][1] for name in ("apply-quota-exceeded", "apply-real-slow")]
    assert (await stage.kubectl.apply(*others)).rc == 0


ARRANGED: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "logs": a_ready_server_that_spoke,
    "logs-previous": a_crash_after_a_word,
    "pod-terminating": a_heedless_one,
    "list-mixed": all_of_them,
}
