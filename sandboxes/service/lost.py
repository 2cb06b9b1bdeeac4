"""Deletes lost Pods by force: those whose node does not confirm that their processes have ended."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.errors import SandboxConflict
from sandboxes.service.attempt import now
from sandboxes.spec.manifests import build
from sandboxes.spec.options import DEFAULT_TEMPLATE, Sandbox
from sandboxes.status.reasons import is_on_lost_node, status_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

logger = logging.getLogger(__name__)


async def is_lost(cluster: Cluster, pod: KubeObject, absent: KubeObject) -> bool:
    """Whether the Pod may be deleted by force: it is `Unknown`, or its deletion should have ended.

    `absent`: see Cluster.measure_clock. The end of the deletion is a time of the API server's clock.
    """
    if not kube.is_being_deleted(pod):
        return status_of(pod) == "Unknown"
    # The deletionTimestamp includes the grace period.
    deadline = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])
    return await cluster.has_reached(deadline + timedelta(seconds=cluster.deadlines.overdue), absent)


def absent_object(templates: Mapping[str, Template], settings: Settings) -> KubeObject:
    """Return an object of a sandbox that no caller makes, for a dry run that measures the API server's clock.

    It is the Service; the Pod where sandboxes have none, since the right to create Services may be missing then.
    """
    name = "the-clock-of-the-cluster"
    return build(Sandbox(name, name, name), templates[DEFAULT_TEMPLATE], settings, applied_at=now())[-1]


def why_not_gone(pod: KubeObject, *, force_allowed: bool) -> str:
    """Return the sentence for a caller who has waited in vain for the Pod's deletion."""
    sentence = "The sandbox of the same id is still being deleted"
    if not is_on_lost_node(pod):
        return sentence
    hint = "; `force` deletes it without an answer" if force_allowed else ""
    return f"{sentence}: its node does not answer{hint}"


async def delete_by_force(cluster: Cluster, pod: KubeObject, absent: KubeObject) -> None:
    """Delete the lost Pod. Raises SandboxConflict, and changes nothing, if it is not lost. `absent`: see `is_lost`.

    Raises PreconditionFailed if it was replaced in the meantime.
    """
    sandbox_id = kube.sandbox_id_of(pod)
    if not await is_lost(cluster, pod, absent):
        raise SandboxConflict(
            f"Sandbox '{sandbox_id}' is not lost, so it can't be deleted by force: "
            "its Pod is neither Unknown nor past the end of its deletion"
        )
    await cluster.delete_exactly(pod, force=True)
    logger.warning("sandbox %s: its lost Pod %s is deleted by force", sandbox_id, pod["metadata"]["uid"])
