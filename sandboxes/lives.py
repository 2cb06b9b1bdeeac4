"""Renewing and prolonging the lives of sandboxes: the annotations of `lifetimes.py`, written.

Each annotation has a field manager of its own (kubectl.md 20), and is written onto the very Pod that was read
(kubectl.md 16): so a renewal revives nothing, and a Pod that was renewed is no longer the version that a reaper read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject


async def renew(cluster: Cluster, pod: KubeObject, ttl_seconds: int) -> KubeObject:
    """Have the sandbox end `ttl_seconds` from now, sooner or later than before, or never (0); return its Pod.

    Raises ObjectsChanged if it is no longer that Pod.
    """
    end = expiry.after(ttl_seconds, expiry.present())
    return await cluster.annotate(pod, {kube.EXPIRES_ANNOTATION: expiry.text_of(end)}, manager="expiry")


async def prolong(
    cluster: Cluster, pod: KubeObject, ttl_seconds: int | None, idle_timeout_seconds: int | None
) -> KubeObject:
    """Let the sandbox live as long as is asked for, if that is longer than it does; return its Pod.

    0 is for ever, None asks for nothing. Raises ObjectsChanged if it is no longer that Pod.
    """
    if ttl_seconds is not None:
        end = expiry.after(ttl_seconds, expiry.present())
        if end > expiry.ttl_ends_at(pod):
            pod = await renew(cluster, pod, ttl_seconds)
    idle = expiry.idle_timeout(pod)
    if idle_timeout_seconds is None or idle is None or 0 < idle_timeout_seconds <= idle.total_seconds():
        return pod
    return await cluster.annotate(pod, {kube.IDLE_ANNOTATION: str(idle_timeout_seconds)}, manager="idle")
