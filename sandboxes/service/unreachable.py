"""Warns of sandboxes that were made for the gateway, in a process that has none: they have no URL here."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.deadlines import within
from sandboxes.errors import ProvisionerError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from sandboxes.access.accesses import Accesses
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def warning_of_unreachable(cluster: Cluster, accesses: Accesses) -> AsyncIterator[None]:
    """Log one warning as soon as the cluster's sandboxes are known, if some have no URL; until the block ends."""
    if accesses.has_gateway:
        yield
        return
    task = asyncio.create_task(_warn(cluster))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _warn(cluster: Cluster) -> None:
    try:
        if cluster.has_informer:
            await cluster.becomes_fresh()
            objects: Iterable[KubeObject] = await cluster.all_objects()
        else:
            async with within(cluster.deadlines.read):
                objects = await cluster.list_live()
    except ProvisionerError as error:
        logger.debug("sandboxes without a URL could not be counted: %s", error)
        return
    count = unreachable(objects)
    if count:
        logger.warning(
            "%d %s made for the gateway, which this service does not have, and can't be found until the same create is "
            "repeated. To serve them, set SANDBOX_GATEWAY_URL, and SANDBOX_GATEWAY_KEYS_FILE with the keys that signed "
            "their URLs.",
            count,
            "sandbox was" if count == 1 else "sandboxes were",
        )


def unreachable(objects: Iterable[KubeObject]) -> int:
    """Return how many Pods of sandboxes among `objects` were made for the gateway and have no Service."""
    by_key = {kube.key_of(obj): obj for obj in objects}
    return sum(
        kube.sandbox_id_of(pod) is not None
        and kube.is_behind_gateway(pod)
        and not kube.is_terminating(pod)
        and ("Service", kube.service_name_beside(name)) not in by_key
        for (kind, name), pod in by_key.items()
        if kind == "Pod"
    )
