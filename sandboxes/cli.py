"""The command line: serves the REST API, or runs a one-shot command.

python provisioner.py                                         serve
python provisioner.py gateway                                 serve only the gateway, for a service elsewhere
python provisioner.py render --sandbox-id a --thread-id t     print the objects of one sandbox
python provisioner.py render --request body.json              print those of a create with this body
python provisioner.py reap [--dry-run]                        run the reaper once, or print what it would delete
python provisioner.py check                                   check that this machine and the cluster are ready
python provisioner.py reap --cluster NAME                     a cluster of CLUSTERS_FILE; likewise render
python provisioner.py --version                               print the version
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sandboxes import __version__
from sandboxes import objects as kube
from sandboxes.addresses import LISTEN_HOST, LISTEN_PORT, Address, check_address
from sandboxes.api import server
from sandboxes.api.callers import is_in_pod
from sandboxes.api.params import decode_json
from sandboxes.app import compose, compose_gateway, compose_once, load_all_templates, read_entries
from sandboxes.environment import used_variable
from sandboxes.errors import ProvisionerError, StartupError
from sandboxes.kubectl.config import SERVICE_ACCOUNT
from sandboxes.logs import configure_logging, print_masked
from sandboxes.models.requests import CreateRequest
from sandboxes.ops.doctor import Checked, check, gateway_line
from sandboxes.ops.lines import Line, Verdict, exit_code
from sandboxes.service.attempt import now
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build, build_extras
from sandboxes.spec.options import DEFAULT_TEMPLATE, validate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.clusters_file import ClusterEntry


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0, or 1 with a message on stderr or after a signal.

    For `check` see `check_all`.
    """
    parser = argparse.ArgumentParser(description="Creates sandboxes on Kubernetes, over REST, through kubectl.")
    parser.add_argument("--version", action="version", version=f"sandbox-provisioner {__version__}")
    commands = parser.add_subparsers(dest="command")
    _add_command(commands, "serve", "serve the REST API (the default)")
    _add_command(
        commands,
        "gateway",
        "serve the gateway alone, on SANDBOX_GATEWAY_PORT, and its /readyz and /metrics on LISTEN_PORT; any number of "
        "them may run beside a service with SANDBOX_GATEWAY_SERVE=false and the same SANDBOX_GATEWAY_KEYS_FILE",
    )
    render_parser = _add_command(commands, "render", "print the objects of one sandbox as JSON, without creating it")
    which = render_parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--sandbox-id")
    which.add_argument(
        "--request", metavar="FILE", help="JSON body of a create, instead of the other options; -: stdin"
    )
    render_parser.add_argument("--thread-id", help="default: the sandbox's id")
    render_parser.add_argument("--user-id", default="default", help="default: %(default)s")
    render_parser.add_argument("--template", default=DEFAULT_TEMPLATE, help="default: %(default)s")
    _add_cluster(render_parser, "the first")
    reap_parser = _add_command(
        commands, "reap", "run the reaper once: delete expired and ended sandboxes, and leftovers"
    )
    reap_parser.add_argument("--dry-run", action="store_true", help="print what would be deleted, and delete nothing")
    _add_cluster(reap_parser, "all")
    _add_command(
        commands,
        "check",
        "check, line by line, that this machine and the cluster, or each of CLUSTERS_FILE, are ready; exit code "
        "0: ready, 1: a check failed, 2: the checks stopped early, such as for an unreachable cluster",
    )
    arguments = parser.parse_args(argv)
    try:
        settings = Settings.load()
        if arguments.command == "render":
            print(render(_named(settings, arguments.cluster)[0].for_service(settings), _create_body(arguments)))  # noqa: T201 - its job
        elif arguments.command == "reap":
            configure_logging("WARNING", settings.log_format)
            entries = _named(settings, arguments.cluster)
            if settings.clusters_file is not None:
                return asyncio.run(server.until_stopped(reap_each(settings, entries, dry_run=arguments.dry_run)))
            for line in asyncio.run(server.until_stopped(reap(settings, dry_run=arguments.dry_run))):
                print(line)  # noqa: T201 - its job
        elif arguments.command == "check":
            configure_logging("ERROR")
            work = check_all(settings) if settings.clusters_file is None else check_each(settings)
            return asyncio.run(server.until_stopped(work))
        else:
            serve(settings, only_gateway=arguments.command == "gateway")
    except server.Stopped:
        return 2 if arguments.command == "check" else 1
    except ProvisionerError as error:
        print_masked(f"provisioner: {_said(error)}", sys.stderr)
        return 1
    except StartupError as error:
        print_masked(f"provisioner: {error}", sys.stderr)
        return 2 if arguments.command == "check" else 1
    return 0


def _add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str
) -> argparse.ArgumentParser:
    """Add a command whose own --help says the same about it as the list of commands."""
    return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")


def _add_cluster(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument("--cluster", metavar="NAME", help=f"a cluster of CLUSTERS_FILE; default: {default}")


def _named(settings: Settings, name: str | None) -> tuple[ClusterEntry, ...]:
    """Return the cluster with this name, or all for None. Raises StartupError if there is none with it."""
    entries = read_entries(settings)
    found = tuple(entry for entry in entries if name in (None, entry.name))
    if not found:
        names = ", ".join(entry.name for entry in entries)
        raise StartupError(f"Cluster {name} does not exist. Known clusters: {names}.")
    return found


def _said(error: ProvisionerError | StartupError) -> str:
    return f"{error.public}\n{error.detail}" if isinstance(error, ProvisionerError) else str(error)


def _create_body(arguments: argparse.Namespace) -> str:
    """Return the JSON body of the create that the options describe. Raises StartupError if the file can't be read."""
    if arguments.request is None:
        fields = ("sandbox_id", "thread_id", "user_id", "template")
        return json.dumps({field: getattr(arguments, field) for field in fields})
    try:
        body = sys.stdin.buffer.read() if arguments.request == "-" else Path(arguments.request).read_bytes()
        return decode_json(body)
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"{arguments.request} can't be read: {error}") from error


def render(settings: Settings, body: str) -> str:
    """Return the objects that the service would create for the JSON body of a create: a List, as JSON.

    Raises StartupError if the body is invalid, or the template does not exist; BadRequest or Unprocessable if it breaks
    a rule.
    """
    templates = load_all_templates(settings)
    try:
        request = CreateRequest.model_validate_json(body)
    except ValidationError as error:
        problems = "; ".join(": ".join([*map(str, item["loc"]), item["msg"]]) for item in error.errors())
        raise StartupError(problems) from error
    template_name = DEFAULT_TEMPLATE if request.template is None else request.template
    if template_name not in templates:
        raise StartupError(f"Template {template_name} does not exist. Known templates: {', '.join(sorted(templates))}.")
    sandbox = validate(request, templates, settings)
    objects = [
        obj
        for part in (build_extras, build)
        for obj in part(sandbox, templates[template_name], settings, applied_at=now())
    ]
    return json.dumps(kube.as_list(objects), indent=2)


async def reap(settings: Settings, *, dry_run: bool, context: str | None = None) -> list[str]:
    """Run one round of the reaper. Return a line for each deletion; with `dry_run`, delete nothing.

    `settings`: of the cluster; `context`: of the kubeconfig, None: the current one. Raises StartupError if kubectl or
    the kubeconfig can't be used, ProvisionerError if the cluster can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-provisioner-") as directory:
        service = await compose_once(settings, Path(directory), context)
        reached = await service.clock()
        return await service.reaper.round(dry_run=dry_run or settings.reaper_dry_run, reached=reached)


async def reap_each(settings: Settings, entries: Sequence[ClusterEntry], *, dry_run: bool) -> int:
    """Run one round of the reaper on each cluster. Print a line for each deletion, with the cluster's name.

    Goes on if a cluster can't be read, and says so on stderr; returns 1 then, unless that cluster is lost.
    """
    code = 0
    for entry in entries:
        try:
            lines = await reap(entry.for_service(settings), dry_run=dry_run, context=entry.context)
        except (ProvisionerError, StartupError) as error:
            print_masked(f"provisioner: Cluster {entry.name}: {_said(error)}", sys.stderr)
            code = code if entry.lost else 1
        else:
            for line in lines:
                print(f"{entry.name}: {line}", flush=True)  # noqa: T201 - its job
    return code


async def check_each(settings: Settings) -> int:
    """Print the lines of each cluster of CLUSTERS_FILE below its name. Return the worst exit code; see `check_all`.

    A cluster that is lost is checked, too, but does not count. Raises StartupError if the file can't be used.
    """
    codes = [0]
    checked = Checked()
    for number, entry in enumerate(read_entries(settings)):
        heading = f"cluster {entry.name}" + (" (lost: its checks do not count)" if entry.lost else "")
        print_masked(f"\n{heading}" if number else heading)
        try:
            code = await check_all(entry.for_service(settings), entry.context, None if entry.lost else checked)
        except StartupError as error:
            print_masked(Line(Verdict.FAIL, f"templates: {error}", is_last=True))
            code = 2
        codes.append(0 if entry.lost else code)
    return max(codes)


async def check_all(settings: Settings, context: str | None = None, checked: Checked | None = None) -> int:
    """Print the line of each check. Return 0 if all passed, 1 if one failed, 2 if the checks stopped early.

    `settings`: of the cluster; `context`: of the kubeconfig, None: the current one; `checked`: see `check`. Raises
    StartupError if the templates can't be loaded.
    """
    gateway = gateway_line(settings, in_pod=is_in_pod(os.environ, SERVICE_ACCOUNT))
    lines = [gateway] if gateway is not None else []
    for line in lines:
        print_masked(line)
    with tempfile.TemporaryDirectory(prefix="sandbox-provisioner-") as directory:
        templates = load_all_templates(settings)
        async for line in check(settings, os.environ, Path(directory), templates, context, checked=checked):
            print_masked(line)
            lines.append(line)
    return exit_code(lines)


def collect_old_objects_rarely() -> None:
    """Make full garbage collections a hundred times as rare; those of new objects stay as they are.

    A full one visits all objects of the live view, and stops the service for 0.2 s at 5,000 sandboxes. It frees little:
    the view has no reference cycles.
    """
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 1000)


def serve(settings: Settings, *, only_gateway: bool = False) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP. Raises StartupError if the service can't start.

    `only_gateway`: serve no API, so that no key is needed.
    """
    collect_old_objects_rarely()
    key = settings.provisioner_api_key
    configure_logging(settings.log_level, settings.log_format, secrets=[key.get_secret_value()] if key else [])
    address = Address(
        settings.hosts,
        settings.listen_port,
        used_variable(LISTEN_HOST, os.environ),
        used_variable(LISTEN_PORT, os.environ),
    )
    if not (settings.has_key or settings.allow_unauthenticated or only_gateway):
        check_address(address)
    # For kubectl's cache and a private kubeconfig. The only directory that must be writable (read-only root).
    with tempfile.TemporaryDirectory(prefix="sandbox-provisioner-") as directory:
        composed = (compose_gateway if only_gateway else compose)(settings, Path(directory))
        asyncio.run(server.serve(composed, address))
