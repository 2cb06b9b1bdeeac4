"""Says which objects a create has to apply beside those that exist. Pure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.service.attempt import NOBODY, is_older, marks_only
from sandboxes.spec.manifests import without_news
from sandboxes.spec.ports import fitted, must_be_replaced, of_type

if TYPE_CHECKING:
    from sandboxes.access.accesses import Accesses
    from sandboxes.objects import KubeObject
    from sandboxes.service.attempt import Attempt

logger = logging.getLogger(__name__)


def needed_service(pod: KubeObject | None, service: KubeObject | None, accesses: Accesses) -> KubeObject | None:
    """Return the Service if the sandbox, or the one that is to be made, needs one; else it is left as it is."""
    access = accesses.new if pod is None else accesses.of(pod, service)
    return service if access.needs_service else None


def missing_objects(
    attempt: Attempt,
    pod: KubeObject | None,
    service: KubeObject | None,
    accesses: Accesses,
    *,
    is_contested: bool,
) -> list[KubeObject]:
    """Return the objects to apply. An existing Pod is not applied again, except for the marks of an adoption.

    `service`: see `needed_service`. `is_contested`: the maker of the Pod may lack the right to patch, and be about to
    replace the Service.
    """
    new_pod, new_service = attempt.objects
    service_type = accesses.service_type(service)
    into = None if service and must_be_replaced(service, service_type) else service
    new_service = fitted(of_type(new_service, service_type), pod, into, accesses.settings.sandbox_container_port)
    if pod is None:
        return [new_pod, new_service] if accesses.new.needs_service else [new_pod]
    new_pod, new_service = (without_news(obj, attempt.sandbox.asks, pod) for obj in (new_pod, new_service))
    missing = []
    if kube.owner_of(pod) == NOBODY:
        logger.info("sandbox %s is adopted", attempt.sandbox.sandbox_id)
        missing.append(marks_only(new_pod, pod))
    access = accesses.of(pod, service)
    if not access.needs_service:
        return missing
    if service is None or not kube.is_managed(service) or not access.is_whole(pod, service):
        return [*missing, new_service]
    # Where it is contested, an apply prevents the replacement.
    is_at_risk = is_contested and is_older(service, pod)
    replaces = attempt.may_replace(service, pod) if attempt.without_patch else is_at_risk
    return [*missing, new_service] if replaces else missing
