"""Checks the cluster once, at startup.

A template that breaks the schema stops the startup, since no sandbox could be created. Problems that may be temporary
(cluster down, quota full, namespace missing and not creatable) are only logged.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from typing import TYPE_CHECKING

from sandboxes import objects as kube
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
from sandboxes.kubectl.attribution import refusals_by_name
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

# Dry runs at the same time; templates in one.
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
            return await _outcome(kubectl, trial_of(name, template, settings), deadlines)

    async def outcomes(some: Mapping[str, Template]) -> list[ProvisionerError | None]:
        async with at_once:
            refused = await _refused_together(kubectl, some, settings, deadlines)
        alone = {name: template for name, template in some.items() if name in refused}
        errors = dict(zip(alone, await asyncio.gather(*(outcome(*one) for one in alone.items())), strict=True))
        return [errors.get(name) for name in some]

    items = list(templates.items())
    parts = [dict(items[first : first + AT_ONCE]) for first in range(0, len(items), AT_ONCE)]
    found = await asyncio.gather(*map(outcomes, parts))
    _report(dict(zip(templates, itertools.chain(*found), strict=True)))


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


def trial_of(name: str, template: Template, settings: Settings, *, number: int = 0) -> list[KubeObject]:
    """Return the objects of an example sandbox, for a dry run of the template. `number`: tells those in one run apart.

    It is in the names only.
    """
    sandbox_id = f"template-check-{number}" if number else "template-check"
    sandbox = Sandbox(sandbox_id, "template-check", "template-check", asks=CreateOptions(template=name))
    parts = (build_extras, build)
    return [obj for part in parts for obj in part(sandbox, template, settings, applied_at="1970-01-01T00:00:00Z")]


async def _refused_together(
    kubectl: Kubectl, templates: Mapping[str, Template], settings: Settings, deadlines: Deadlines
) -> set[str]:
    """Return the templates that a dry run of each alone is to tell about: those that the cluster may refuse.

    One dry run of all costs little more than one of each. All are returned if it takes half as long as one template
    may, or if it does not say about which objects each of its messages is.
    """
    if len(templates) < 2:  # noqa: PLR2004 - one is tried alone
        return set(templates)
    objects: dict[str, list[KubeObject]] = {
        name: trial_of(name, template, settings, number=number)
        for number, (name, template) in enumerate(templates.items())
    }
    sent = [obj for of_it in objects.values() for obj in of_it]
    try:
        async with asyncio.timeout(deadlines.preflight / 2):
            await kubectl.dry_run(sent)
    except TimeoutError:
        return set(templates)
    except ProvisionerError as error:
        logger.debug("templates are tried one by one: %s", error)
        told = refusals_by_name(sent, error.each)
        if not error.each or len(told) != len(error.each):
            return set(templates)
        return {name for name, of_it in objects.items() if any(kube.identity_of(obj) in told for obj in of_it)}
    return set()


async def _outcome(kubectl: Kubectl, objects: list[KubeObject], deadlines: Deadlines) -> ProvisionerError | None:
    """Return the error with which the cluster refuses the objects of a template; None if it accepts it."""
    try:
        async with asyncio.timeout(deadlines.preflight):
            await persist(lambda: kubectl.dry_run(objects))
    except TimeoutError:
        return _late(kubectl)
    except ProvisionerError as error:
        return error
    return None
