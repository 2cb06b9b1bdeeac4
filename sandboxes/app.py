"""Builds the application: creates all components and passes each its dependencies."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxes.api.app_keys import METRICS
from sandboxes.api.auth import ApiKeys
from sandboxes.api.callers import Callers, is_in_pod
from sandboxes.api.routes import create_app
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.informer import Informer
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.cluster.terminations import TerminationLog
from sandboxes.deadlines import DEADLINES
from sandboxes.kubectl.batched import UNBOUNDED, BatchedKubectl
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.config import SERVICE_ACCOUNT, prepare
from sandboxes.kubectl.kubeconfig_files import ignored_kubeconfigs, named_kubeconfigs
from sandboxes.kubectl.pool import ProcessPool
from sandboxes.ops.preflight import check_cluster, protect
from sandboxes.service.sandboxes import SandboxService
from sandboxes.spec.lark import check_templates
from sandboxes.spec.network_policy import build_policy, load_policy
from sandboxes.spec.options import DEFAULT_TEMPLATE
from sandboxes.spec.replaced import replaced_fields, sentence
from sandboxes.spec.seccomp import ALL_IN_ONE, is_all_in_one
from sandboxes.spec.templates import load_templates
from sandboxes.variables import Address, ignored_variables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from aiohttp import web

    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.config import Connection
    from sandboxes.kubectl.runner import Runner
    from sandboxes.service.reaper import Reaper
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

    Preflight = Callable[[Kubectl, Mapping[str, Template], Settings, Deadlines], Awaitable[None]]

TEMPLATE = Path(__file__).resolve().parent.parent / "manifests" / "sandbox"

TEMPLATES = TEMPLATE.parent / "templates"

POLICY = TEMPLATE.parent / "network-policy" / "isolated.yaml"

logger = logging.getLogger("provisioner")


def load_all_templates(settings: Settings) -> dict[str, Template]:
    """Return the built-in templates and those of SANDBOX_TEMPLATES_DIR, by name. Raises StartupError if one is bad."""
    own = [settings.sandbox_templates_dir] if settings.sandbox_templates_dir else []
    templates = load_templates((DEFAULT_TEMPLATE, TEMPLATE), TEMPLATES, *own)
    check_templates(templates, settings)
    return templates


async def compose(
    settings: Settings,
    directory: Path,
    *,
    in_pod: bool | None = None,
    deadlines: Deadlines = DEADLINES,
    preflight: Preflight = check_cluster,
) -> web.Application:
    """Build the application, ready to run. `directory` must be writable, and exist until the application ends.

    `in_pod`: whether the process runs in a Pod, where requests need an API key; detected by default. `preflight`: the
    checks of the cluster to run first. Raises StartupError if the service must not start.
    """
    keys = ApiKeys(settings)
    callers = Callers(settings, in_pod=is_in_pod(os.environ, SERVICE_ACCOUNT) if in_pod is None else in_pod)
    templates = load_all_templates(settings)
    connection = await prepare(settings, os.environ, directory)
    runner = connection.runner
    waiting = ProcessPool(
        runner, *named_kubeconfigs(settings), most=settings.kubectl_max_processes, deadlines=deadlines
    )
    starter = waiting if settings.kubectl_start_ahead else runner
    kubectl = _client(connection, settings, starter, deadlines, in_batches=settings.kubectl_group)
    batched = BatchedKubectl(
        kubectl,
        max_processes=settings.kubectl_max_processes,
        max_waiting=settings.kubectl_max_waiting,
        deadlines=deadlines,
    )
    informer = Informer(
        kubectl, runner, settings.k8s_namespace, max_age=settings.live_view_max_age, deadlines=deadlines
    )
    _warn(settings, callers, templates)
    await preflight(kubectl, templates, settings, deadlines)
    policies = (build_policy(load_policy(POLICY), settings),) if settings.sandbox_network_policy == "isolated" else ()
    cluster = Cluster(
        kubectl,
        informer if settings.live_view else NoInformer(),
        settings.k8s_namespace,
        policies=policies,
        terminations=TerminationLog(deadlines=deadlines),
        deadlines=deadlines,
        batched=batched if settings.kubectl_group else None,
    )
    service = SandboxService(cluster, templates, settings)
    await protect(service.protection, deadlines)
    app = create_app(service, settings, keys, callers)
    app[METRICS].read_waiting(lambda: waiting.waiting)
    # aiohttp ends these contexts in reverse order.
    if settings.kubectl_start_ahead:
        app.cleanup_ctx.append(_running(waiting))
    if settings.kubectl_group:
        app.cleanup_ctx.append(_finally(batched.close))
    if settings.live_view:
        app.cleanup_ctx.append(_running(informer))
    if settings.reaper_interval:
        app.cleanup_ctx.append(_running(service.reaper))
    app.cleanup_ctx.append(_finally(service.finish))
    return app


async def compose_once(settings: Settings, directory: Path) -> SandboxService:
    """Build the service for a one-shot command: without informer, batches and processes started ahead.

    Raises StartupError if kubectl or the kubeconfig can't be used.
    """
    connection = await prepare(settings, os.environ, directory)
    kubectl = _client(connection, settings, connection.runner, DEADLINES, in_batches=False)
    cluster = Cluster(kubectl, NoInformer(), settings.k8s_namespace)
    return SandboxService(cluster, load_all_templates(settings), settings)


def _client(
    connection: Connection, settings: Settings, starter: Runner, deadlines: Deadlines, *, in_batches: bool
) -> Kubectl:
    """Return a client of the connection's cluster, whose processes `starter` starts."""
    return Kubectl(
        starter,
        max_processes=settings.kubectl_max_processes,
        # With batches, the batcher limits its own queue; a batch must not be refused after that.
        max_waiting=UNBOUNDED if in_batches else settings.kubectl_max_waiting,
        deadline=deadlines.kubectl_call,
        kubeconfig=connection.runner.kubeconfig,
        plugins=connection.runner.plugins,
        server=connection.context.server,
    )


def _running(part: ProcessPool | Informer | Reaper) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a clean-up context that runs the component while the application runs."""

    async def run(_app: web.Application) -> AsyncIterator[None]:
        async with part.running():
            yield

    return run


def _finally(end: Callable[[], Awaitable[None]]) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a clean-up context that awaits `end` at shutdown."""

    async def run(_app: web.Application) -> AsyncIterator[None]:
        yield
        await end()

    return run


def _warn(settings: Settings, callers: Callers, templates: Mapping[str, Template]) -> None:
    for warning in _warnings(settings, callers):
        logger.warning("%s", warning)
    for name, template in templates.items():
        fields = replaced_fields(name, template, settings)
        if fields:
            logger.warning("%s", sentence(name, fields))


def _warnings(settings: Settings, callers: Callers) -> Iterator[str]:
    """Yield a warning for each setting whose effect an operator may not expect."""
    yield from ignored_variables(os.environ)
    yield from _warnings_of_access(settings, callers)
    if settings.overridden:
        yield f"Set without effect: {', '.join(settings.overridden)}."
    if not (settings.threads_host_path or settings.userdata_pvc_name):
        yield (
            "Neither THREADS_HOST_PATH nor USERDATA_PVC_NAME is set: user data are in an emptyDir and are deleted with "
            "their sandbox."
        )
    if (
        settings.skills_pvc_name
        and settings.skills_pvc_name == settings.userdata_pvc_name
        and not settings.skills_pvc_subpath_template
    ):
        yield (
            "SKILLS_PVC_NAME and USERDATA_PVC_NAME are one claim, and SKILLS_PVC_SUBPATH_TEMPLATE is not set: every "
            "sandbox can read the data of all users at /mnt/skills."
        )
    if settings.sandbox_seccomp is None and (is_all_in_one(settings.sandbox_image) or "image" in settings.allow_fields):
        yield (
            f"SANDBOX_SECCOMP is not set: sandboxes of an image named {ALL_IN_ONE} have no seccomp profile, unless "
            "their template has one, since the image's browser does not start under RuntimeDefault. If you do "
            "not need the browser, set SANDBOX_SECCOMP=RuntimeDefault."
        )
    if settings.sandbox_network_policy == "isolated" and not settings.sandbox_ingress_from:
        yield "SANDBOX_INGRESS_FROM is not set: the NetworkPolicy blocks all ingress to the sandboxes."
    yield from ignored_kubeconfigs(settings)


def _warnings_of_access(settings: Settings, callers: Callers) -> Iterator[str]:
    if not settings.has_key:
        address = Address(settings.hosts, settings.listen_port)
        yield f"PROVISIONER_API_KEY is not set. {callers.who_is_answered(str(address))}"
    elif settings.allow_unauthenticated:
        yield "ALLOW_UNAUTHENTICATED has no effect: an API key is set, and every request needs it."
    if settings.provisioner_api_key and "," in settings.provisioner_api_key.get_secret_value():
        yield "PROVISIONER_API_KEY has a comma: it is one key since 0.2; several go into PROVISIONER_API_KEY_FILE."
