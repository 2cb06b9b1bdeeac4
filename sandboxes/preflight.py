"""What is checked of the cluster at the start, once.

A template that the schema refuses stops the start: no sandbox could ever be made. Whatever may pass by itself (the
cluster is down, a quota is full, the namespace is missing and may not be made) is said in the log, and the service
starts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from sandboxes.errors import ProvisionerError, StartupError, TemplateRefused
from sandboxes.manifests import Sandbox, build
from sandboxes.retries import persist

if TYPE_CHECKING:
    from sandboxes.kubectl import Kubectl
    from sandboxes.manifests import Template
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

# A cluster that hangs must not keep the service from starting.
PREFLIGHT_SECONDS = 10.0


async def check_cluster(kubectl: Kubectl, template: Template, settings: Settings) -> None:
    """Make the namespace if it is missing, and have the cluster check the template by a dry run.

    Raises StartupError if the schema refuses the template.
    """
    try:
        async with asyncio.timeout(PREFLIGHT_SECONDS):
            await _check(kubectl, template, settings)
    except TimeoutError:
        logger.warning("The cluster did not answer at the start; requests fail until it does.")


async def _check(kubectl: Kubectl, template: Template, settings: Settings) -> None:
    namespace = settings.k8s_namespace
    try:
        if not await kubectl.namespace_exists(namespace):
            await kubectl.ensure_namespace(namespace)
            logger.info("namespace %s made", namespace)
    except ProvisionerError as error:
        logger.warning("Namespace %s could not be checked: %s\n%s", namespace, error.public, error.detail)
    sandbox = Sandbox("template-check", "template-check", "template-check")
    objects = build(sandbox, template, settings, applied_at="1970-01-01T00:00:00Z")
    try:
        await persist(lambda: kubectl.dry_run(objects))
    except TemplateRefused as error:
        raise StartupError(f"The sandbox template can't be used. {error.public}.\n{error.detail}") from error
    except ProvisionerError as error:
        logger.warning("The sandbox template could not be checked: %s\n%s", error.public, error.detail)
    else:
        logger.info("the cluster accepts the sandbox template")
