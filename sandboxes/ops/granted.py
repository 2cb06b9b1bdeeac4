"""Checks for `/readyz` whether the service still has the rights that every create needs, by few rules reviews.

A right that the review can't prove to be missing counts as granted: webhook authorizers list none of theirs.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sandboxes.errors import ProvisionerError
from sandboxes.ops.rights import REVIEW, read_review, review_request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.cluster.cluster import Cluster
    from sandboxes.ops.rights import RulesReview, Wanted

logger = logging.getLogger(__name__)


class Granted:
    """Remembers which rights of `wanted`, by resource, were missing at the last review."""

    def __init__(self, cluster: Cluster, wanted: Mapping[str, Wanted]) -> None:
        self._cluster = cluster
        self._wanted = wanted
        self._asked_at: float | None = None
        self._without: dict[str, str] = {}
        self.missing = ""

    async def look(self, seconds: float) -> None:
        """Update `missing`, which says in one sentence what a create lacks; empty if nothing is known to be missing.

        Asks at the first call, at each call while something is missing, and every `rights_believed` seconds. Keeps
        what is known if the cluster does not answer within `seconds`. Never raises for a failure of the cluster.
        """
        now = asyncio.get_running_loop().time()
        is_known = self._asked_at is not None and now - self._asked_at < self._cluster.deadlines.rights_believed
        if is_known and not self.missing:
            return
        self._asked_at = now
        request = review_request(self._cluster.namespace)
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                review = read_review(await self._cluster.kubectl.run(*REVIEW, stdin=request, is_probe=True))
        except TimeoutError:
            logger.debug("the rules review took too long")
        except ProvisionerError as error:
            logger.debug("rights can't be reviewed: %s\n%s", error, error.detail)
        else:
            self._note(review)

    def _note(self, review: RulesReview) -> None:
        needed: list[str] = []
        without: dict[str, str] = {}
        for resource, wanted in self._wanted.items() if review.is_complete else ():
            lacks = [verb for verb in wanted.verbs if not review.shows(verb, resource)]
            if verbs := ", ".join(verb for verb in lacks if verb in wanted.needed):
                needed.append(f"{verbs} on {resource}")
            elif lacks:
                without[f"{', '.join(lacks)} on {resource}"] = wanted.loss
        self.missing = f"The provisioner lacks rights that a create needs: {'; '.join(needed)}" if needed else ""
        if without and without != self._without:
            logger.info("without rights: %s", "; ".join(f"{right}, so {loss}" for right, loss in without.items()))
        self._without = without
