"""Watches whether a new Pod finds a node."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.service.attempt import is_returned
from sandboxes.status.reasons import has_ended, trouble_of

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject


async def finds_no_node(cluster: Cluster, sandbox_id: str, uid: str, *, moment: float, most: float) -> bool:
    """Whether the scheduler says for `moment` seconds on end that no node can take the Pod; False after `most`.

    False as soon as a node is chosen, the Pod is gone, or a create has returned it that did not make it. Also if the
    scheduler has said nothing for `moment` seconds. Raises the cluster's error if it can't be read.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    since: float | None = None
    pauses = cluster.deadlines.unscheduled_pauses
    for pause in itertools.chain(pauses, itertools.repeat(pauses[-1])):
        is_cached = cluster.is_certain(sandbox_id)
        pod = await _pod(cluster, sandbox_id, is_cached=is_cached)
        now = loop.time()
        if pod is None or pod["metadata"]["uid"] != uid or _is_settled(pod):
            return False
        if not is_unschedulable(pod):
            since = None
        elif since is None:
            since = now
        if since is not None and now - since >= moment:
            return True
        if now - began >= (moment if since is None else most):
            return False
        await asyncio.sleep(pause if is_cached else cluster.deadlines.look)
    raise AssertionError  # the pauses do not end


def is_unschedulable(pod: KubeObject) -> bool:
    """Whether the scheduler says that no node can take the Pod (record: pod-unschedulable), and makes no room for it.

    It makes room by ending Pods of lower priority, and names the node then.
    https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/#user-exposed-information
    """
    trouble = trouble_of(pod)
    is_promised = bool((pod.get("status") or {}).get("nominatedNodeName"))
    return trouble is not None and trouble.reason == "Unschedulable" and not is_promised


def _is_settled(pod: KubeObject) -> bool:
    return pod["spec"].get("nodeName") is not None or kube.is_terminating(pod) or has_ended(pod) or is_returned(pod)


async def _pod(cluster: Cluster, sandbox_id: str, *, is_cached: bool) -> KubeObject | None:
    if is_cached:
        return cluster.seen(sandbox_id)[0]
    async with within(cluster.deadlines.read):
        return (await cluster.look(sandbox_id))[0]
