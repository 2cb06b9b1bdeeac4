"""Checks the cluster once, at startup.

A template that breaks the schema stops the startup, since no sandbox could be created. Problems that may be temporary
(cluster down, quota full, namespace missing and not creatable) are only logged.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sandboxes.cluster.retry import persist
from sandboxes.errors import (
    ClusterRefused,
    ClusterTimeout,
    ClusterUnavailable,
    LimitReached,
    ProvisionerError,
    StartupError,
    TemplateRefused,
)
from sandboxes.spec.manifests import build, build_extras
from sandboxes.spec.options import CreateOptions, Sandbox

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.client import Kubectl
    from sandboxes.objects import KubeObject
    from sandboxes.service.network_policy import Protection
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

logger = logging.getLogger(__name__)

# Dry runs at the same time.
AT_ONCE = 4


async def check_cluster(
    kubectl: Kubectl, templates: Mapping[str, Template], settings: Settings, deadlines: Deadlines
) -> None:
    """Create the namespace if it is missing, and check each template by a server-side dry run.

    Raises StartupError, which names all of them, if templates break the schema.
    """
    try:
        async with asyncio.timeout(deadlines.preflight):
            await _check_namespace(kubectl, settings.k8s_namespace)
    except TimeoutError:
        _warn_unavailable(_late(kubectl))
        return
    except (ClusterUnavailable, ClusterTimeout) as error:
        _warn_unavailable(error)
        return
    at_once = asyncio.Semaphore(AT_ONCE)

    async def outcome(name: str, template: Template) -> ProvisionerError | None:
        async with at_once:
            return await _outcome(kubectl, name, template, settings, deadlines)

    outcomes = dict(zip(templates, await asyncio.gather(*(outcome(*one) for one in templates.items())), strict=True))
    _report(outcomes)


def _report(outcomes: Mapping[str, ProvisionerError | None]) -> None:
    """Log what came of each template's check. Raises StartupError if templates break the schema."""
    broken = []
    unavailable: dict[str, ProvisionerError] = {}
    for name, error in outcomes.items():
        if error is None:
            logger.info("the cluster accepts the template %s", name)
        elif isinstance(error, TemplateRefused):
            broken.append(f"The sandbox template can't be used. {error}. Its name is {name}.\n{error.detail}")
        elif isinstance(error, (ClusterRefused, LimitReached)):
            logger.warning("The cluster refuses the template %s at the moment: %s\n%s", name, error, error.detail)
        else:
            unavailable[str(error)] = error
    for failure in unavailable.values():  # mostly one cause for all templates
        _warn_unavailable(failure)
    if broken:
        raise StartupError("\n".join(broken))


def _late(kubectl: Kubectl) -> ProvisionerError:
    """Return the error for a call that took longer than the startup waits."""
    return kubectl.explained(ClusterTimeout("The cluster does not answer"))


def _warn_unavailable(error: ProvisionerError) -> None:
    if isinstance(error, ClusterTimeout):
        logger.warning("%s. Serving anyway: requests get %d until it does.\n%s", error, error.status, error.detail)
    else:
        logger.warning("%s. Serving anyway: requests get %d until it can.\n%s", error, error.status, error.detail)


async def protect(protection: Protection, deadlines: Deadlines) -> None:
    """Apply the namespace's policies, if any. If that fails, log it; creates are refused until it succeeds."""
    try:
        async with asyncio.timeout(deadlines.preflight):
            await protection.ensure()
    except TimeoutError:
        logger.warning(
            "The NetworkPolicy could not be applied: the cluster does not answer. Creates are refused until then."
        )
    except ProvisionerError as error:
        logger.warning(
            "The NetworkPolicy could not be applied: %s. Creates are refused until it is.\n%s", error, error.detail
        )


async def _check_namespace(kubectl: Kubectl, namespace: str) -> None:
    try:
        if not await kubectl.namespace_exists(namespace):
            await kubectl.ensure_namespace(namespace)
            logger.info("namespace %s created", namespace)
    except ClusterRefused as error:
        # A Role need not allow reading the namespace itself; the first create shows whether it exists.
        logger.warning("Namespace %s could not be checked: %s\n%s", namespace, error, error.detail)


def trial_of(name: str, template: Template, settings: Settings) -> list[KubeObject]:
    """Return the objects of an example sandbox, for a dry run of the template."""
    sandbox = Sandbox("template-check", "template-check", "template-check", asks=CreateOptions(template=name))
    parts = (build_extras, build)
    return [obj for part in parts for obj in part(sandbox, template, settings, applied_at="1970-01-01T00:00:00Z")]


async def _outcome(
    kubectl: Kubectl, name: str, template: Template, settings: Settings, deadlines: Deadlines
) -> ProvisionerError | None:
    """Return the error with which the cluster refuses the template; None if it accepts it."""
    try:
        objects = trial_of(name, template, settings)
        async with asyncio.timeout(deadlines.preflight):
            await persist(lambda: kubectl.dry_run(objects))
    except TimeoutError:
        return _late(kubectl)
    except ProvisionerError as error:
        return error
    return None
