"""Deletes lost Pods by force: those whose node does not confirm that their processes have ended."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.errors import SandboxConflict
from sandboxes.status.reasons import is_on_lost_node, status_of

if TYPE_CHECKING:
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)


def is_lost(pod: KubeObject, clocks_differ: float) -> bool:
    """Whether the Pod may be deleted by force: it is `Unknown`, or its deletion should have ended.

    `clocks_differ`: seconds by which this machine's clock may be ahead of the API server's.
    """
    if not kube.is_being_deleted(pod):
        return status_of(pod) == "Unknown"
    # The deletionTimestamp includes the grace period.
    deadline = datetime.fromisoformat(pod["metadata"]["deletionTimestamp"])
    return deadline + timedelta(seconds=clocks_differ) <= expiry.present()


def why_not_gone(pod: KubeObject, *, force_allowed: bool) -> str:
    """Return the sentence for a caller who has waited in vain for the Pod's deletion."""
    sentence = "The sandbox of the same id is still being deleted"
    if not is_on_lost_node(pod):
        return sentence
    hint = "; `force` deletes it without an answer" if force_allowed else ""
    return f"{sentence}: its node does not answer{hint}"


async def delete_by_force(cluster: Cluster, pod: KubeObject) -> None:
    """Delete the lost Pod. Raises SandboxConflict, and changes nothing, if it is not lost.

    Raises PreconditionFailed if it was replaced in the meantime.
    """
    sandbox_id = kube.sandbox_id_of(pod)
    if not is_lost(pod, cluster.deadlines.clocks_differ):
        raise SandboxConflict(
            f"Sandbox '{sandbox_id}' is not lost, so it can't be deleted by force: "
            "its Pod is neither Unknown nor past the end of its deletion"
        )
    await cluster.delete_exactly(pod, force=True)
    logger.warning("sandbox %s: its lost Pod %s is deleted by force", sandbox_id, pod["metadata"]["uid"])
