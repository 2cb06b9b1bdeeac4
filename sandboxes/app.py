"""Builds the application: creates all components and passes each its dependencies."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sandboxes.access.start import NEEDS_RESTART, gateway_keys
from sandboxes.api.app_keys import CLUSTER_UNITS, METRICS, SANDBOXES
from sandboxes.api.auth import ApiKeys
from sandboxes.api.callers import Callers, is_in_pod
from sandboxes.api.routes import create_app
from sandboxes.cluster.cluster import Cluster
from sandboxes.cluster.no_informer import NoInformer
from sandboxes.cluster_settings import DEFAULT_CLUSTER
from sandboxes.cluster_unit import ClusterPlan, client_of, prepare_unit
from sandboxes.cluster_units import ClusterUnits
from sandboxes.clusters_file import ClusterEntry, message, parse
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import StartupError
from sandboxes.fleet.markers import reserved_by
from sandboxes.fleet.service import Fleet
from sandboxes.gateway_service import GatewayService, health_app
from sandboxes.kubectl.config import SERVICE_ACCOUNT, prepare
from sandboxes.kubectl.kubeconfig_files import ignored_kubeconfigs
from sandboxes.ops.clusters import ClusterOverviews
from sandboxes.ops.metrics import Metrics
from sandboxes.ops.preflight import check_cluster
from sandboxes.service.capacity import TotalCapacity
from sandboxes.service.sandboxes import SandboxService
from sandboxes.spec.lark import check_templates
from sandboxes.spec.network_policy import build_policy, load_policy
from sandboxes.spec.options import DEFAULT_TEMPLATE
from sandboxes.spec.replaced import replaced_fields, sentence
from sandboxes.spec.seccomp import ALL_IN_ONE, is_all_in_one
from sandboxes.spec.templates import load_templates, suffix_of
from sandboxes.variables import Address, ignored_variables

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from aiohttp import web

    from sandboxes.access.tokens import Keys
    from sandboxes.cluster_unit import ClusterUnit, Preflight
    from sandboxes.deadlines import Deadlines
    from sandboxes.kubectl.client import Kubectl
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

TEMPLATE = Path(__file__).resolve().parent.parent / "manifests" / "sandbox"

TEMPLATES = TEMPLATE.parent / "templates"

POLICY = TEMPLATE.parent / "network-policy" / "isolated.yaml"

logger = logging.getLogger("provisioner")


def load_all_templates(settings: Settings) -> dict[str, Template]:
    """Return the built-in templates and those of SANDBOX_TEMPLATES_DIR, by name.

    Raises StartupError if one is bad, or, with CLUSTERS_FILE, has an object with a name that the directory needs.
    """
    own = [settings.sandbox_templates_dir] if settings.sandbox_templates_dir else []
    templates = load_templates((DEFAULT_TEMPLATE, TEMPLATE), TEMPLATES, *own)
    check_templates(templates, settings)
    if settings.clusters_file is not None:
        _check_names(templates)
    return templates


def _check_names(templates: Mapping[str, Template]) -> None:
    problems = [
        f"The template {file} has a ConfigMap '{extra['metadata']['name']}': with CLUSTERS_FILE, {needed} need this "
        "name. Choose another suffix."
        for template in templates.values()
        for extra, file in zip(template.extras, template.extra_files, strict=True)
        if extra["kind"] == "ConfigMap" and (needed := reserved_by(suffix_of(extra))) is not None
    ]
    if problems:
        raise StartupError("\n".join(problems))


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
    is_here = is_in_pod(os.environ, SERVICE_ACCOUNT) if in_pod is None else in_pod
    callers = Callers(settings, in_pod=is_here)
    of_clusters = [entry.for_service(settings) for entry in read_entries(settings)]
    url_keys = gateway_keys(settings, of_clusters, in_pod=is_here)
    if settings.clusters_file is not None:
        units = _units(settings, settings.clusters_file, directory, preflight, deadlines, url_keys)
        await units.load()
        first = next(iter(units.units.values()))
        _warn(settings, callers, first.service.loaded_templates)
        await units.check()
        fleet = Fleet(units, settings, deadlines)
        units.joined.connect(lambda _unit: fleet.follow())
        app = create_app(first.service, settings, keys, callers, units.overviews)
        app[SANDBOXES] = fleet
        app[CLUSTER_UNITS] = units
        app[METRICS] = _metrics_of(units)
        app.on_shutdown.append(lambda _app: units.release())
    else:
        plan = plan_cluster(ClusterEntry(DEFAULT_CLUSTER), settings)
        first = await prepare_unit(plan, os.environ, directory, keys=url_keys, deadlines=deadlines)
        _warn(settings, callers, plan.templates)
        await first.check(preflight)
        app = create_app(first.service, settings, keys, callers, ClusterOverviews([first.overview]))
        app[METRICS].read_waiting(lambda: first.pool.waiting)
        units, fleet = None, None
    parts: list[ClusterUnit | ClusterUnits | Fleet] = [first] if units is None or fleet is None else [units, fleet]
    if url_keys is None or not settings.sandbox_gateway_serve:
        _run(app, parts)
        return app
    gateway = GatewayService(settings, url_keys, app[METRICS], deadlines, os.environ, in_pod=is_here)
    if units is None:
        gateway.join(first)
    else:
        gateway.follow(units)
    _run(app, parts, gateway)
    return app


async def compose_gateway(
    settings: Settings, directory: Path, *, in_pod: bool | None = None, deadlines: Deadlines = DEADLINES
) -> web.Application:
    """Build the application of a gateway in a process of its own; see `compose`. It watches Pods, and nothing else."""
    is_here = is_in_pod(os.environ, SERVICE_ACCOUNT) if in_pod is None else in_pod
    of_clusters = [entry.for_service(settings) for entry in read_entries(settings)]
    keys = gateway_keys(settings, of_clusters, in_pod=is_here, is_own_process=True)
    assert keys is not None  # noqa: S101 - a gateway of its own always has keys
    alone = settings.model_copy(update=ALONE)
    metrics = Metrics()
    gateway = GatewayService(alone, keys, metrics, deadlines, os.environ, in_pod=is_here)
    app = health_app(gateway, metrics)
    part: ClusterUnit | ClusterUnits
    if settings.clusters_file is None:
        part = await prepare_unit(_plan_of_pods(DEFAULT, alone), os.environ, directory, keys=keys, deadlines=deadlines)
        gateway.join(part)
    else:

        async def prepare(entry: ClusterEntry) -> ClusterUnit:
            own = directory / entry.name
            own.mkdir(exist_ok=True)
            return await prepare_unit(_plan_of_pods(entry, alone), os.environ, own, keys=keys, deadlines=deadlines)

        part = ClusterUnits(settings.clusters_file, prepare, _check_nothing, deadlines)
        await part.load()
        gateway.follow(part)
    _run(app, [part], gateway)
    return app


DEFAULT = ClusterEntry(DEFAULT_CLUSTER)

# Settings of a gateway in a process of its own: it has no reaper, and writes too rarely to keep processes waiting.
ALONE = {"reaper_interval": 0.0, "kubectl_start_ahead": False, "live_view": True}


def _plan_of_pods(entry: ClusterEntry, settings: Settings) -> ClusterPlan:
    return ClusterPlan(entry, entry.for_service(settings), {}, only_pods=True)


async def _check_nothing(
    _kubectl: Kubectl, _templates: Mapping[str, Template], _settings: Settings, _deadlines: Deadlines
) -> None:
    """Check nothing: a cluster that is not there yet, or not ready, may be later."""


def _run(
    app: web.Application, parts: Sequence[ClusterUnit | ClusterUnits | Fleet], gateway: GatewayService | None = None
) -> None:
    """Run the parts, and the gateway, while the application runs.

    The gateway's address is bound first, so that a port that is taken stops the start early; its connections end first.
    """
    if gateway is not None:
        app.cleanup_ctx.append(gateway.listener.bound)
        app.on_shutdown.append(gateway.end)
    for part in parts:
        app.cleanup_ctx.append(_running(part))
    if gateway is not None:
        app.cleanup_ctx.append(gateway.listener.listening)


def _units(  # noqa: PLR0913, PLR0917 - the wiring of one function
    settings: Settings, path: Path, directory: Path, preflight: Preflight, deadlines: Deadlines, keys: Keys | None
) -> ClusterUnits:
    """Return the clusters of CLUSTERS_FILE, not yet loaded; each has a folder of its own in `directory`."""

    async def prepare(entry: ClusterEntry) -> ClusterUnit:
        own = directory / entry.name
        own.mkdir(exist_ok=True)
        plan = plan_cluster(entry, apart)
        if plan.settings.access == "gateway" and keys is None:  # an entry of a later version of the file
            raise StartupError(NEEDS_RESTART)
        unit = await prepare_unit(plan, os.environ, own, keys=keys, deadlines=deadlines)
        unit.service.room.total, unit.service.room.name = total, entry.name
        return unit

    # MAX_SANDBOXES is for all clusters together; a cluster's own limit is in its entry only.
    apart = settings.model_copy(update={"max_sandboxes": 0})
    units = ClusterUnits(path, prepare, preflight, deadlines)
    total = TotalCapacity(settings.max_sandboxes, lambda: [unit.service.room for unit in units.units.values()])
    return units


def _metrics_of(units: ClusterUnits) -> Metrics:
    """Return metrics that include each cluster while it has a unit."""
    metrics = Metrics()

    def join(unit: ClusterUnit) -> None:
        metrics.join(unit.name, unit.service, lambda: unit.pool.waiting)

    for unit in units.units.values():
        join(unit)
    units.joined.connect(join)
    units.changed.connect(lambda: metrics.keep(units.units))
    return metrics


def read_entries(settings: Settings) -> tuple[ClusterEntry, ...]:
    """Return the clusters of CLUSTERS_FILE; without the file, the one of the variables.

    Raises StartupError, which lists every problem of the file.
    """
    path = settings.clusters_file
    if path is None:
        return (ClusterEntry(DEFAULT_CLUSTER),)
    try:
        found = parse(path.read_bytes())
    except OSError as error:
        raise StartupError(message(path, [f"It can't be read: {error.strerror}."])) from error
    if found.problems:
        raise StartupError(message(path, found.problems))
    return found.entries


async def compose_once(settings: Settings, directory: Path, context: str | None = None) -> SandboxService:
    """Build the service for a one-shot command: without informer, batches and processes started ahead.

    `settings`: of the cluster; `context`: of the kubeconfig, None: the current one. Raises StartupError if kubectl or
    the kubeconfig can't be used.
    """
    connection = await prepare(settings, os.environ, directory, context=context)
    kubectl = client_of(connection, settings, connection.runner, DEADLINES, in_batches=False)
    cluster = Cluster(kubectl, NoInformer(), settings.k8s_namespace)
    return SandboxService(cluster, load_all_templates(settings), settings)


def plan_cluster(entry: ClusterEntry, settings: Settings) -> ClusterPlan:
    """Return the plan of a cluster; `settings`: of the service. Raises StartupError if a template is bad."""
    own = entry.for_service(settings)
    policies = (build_policy(load_policy(POLICY), own),) if own.sandbox_network_policy == "isolated" else ()
    return ClusterPlan(entry, own, load_all_templates(own), policies)


def _running(part: ClusterUnit | ClusterUnits | Fleet) -> Callable[[web.Application], AsyncIterator[None]]:
    """Return a clean-up context that runs the component while the application runs."""

    async def run(_app: web.Application) -> AsyncIterator[None]:
        async with part.running():
            yield

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
    if settings.access == "gateway" and settings.is_set("sandbox_service_type"):
        yield (
            "SANDBOX_ACCESS=gateway wins over SANDBOX_SERVICE_TYPE, which only says now how sandboxes are reached that "
            "were made with a Service."
        )
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
        yield (
            "SANDBOX_INGRESS_FROM is not set: the NetworkPolicy blocks all ingress to the sandboxes"
            + (", that of the gateway, too: name its Pods there." if settings.access == "gateway" else ".")
        )
    yield from ignored_kubeconfigs(settings)


def _warnings_of_access(settings: Settings, callers: Callers) -> Iterator[str]:
    if not settings.has_key:
        address = Address(settings.hosts, settings.listen_port)
        yield f"PROVISIONER_API_KEY is not set. {callers.who_is_answered(str(address))}"
    elif settings.allow_unauthenticated:
        yield "ALLOW_UNAUTHENTICATED has no effect: an API key is set, and every request needs it."
    if settings.provisioner_api_key and "," in settings.provisioner_api_key.get_secret_value():
        yield "PROVISIONER_API_KEY has a comma: it is one key since 0.2; several go into PROVISIONER_API_KEY_FILE."
