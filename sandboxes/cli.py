"""The command line: reads the settings, then serves, or does one thing and ends.

python provisioner.py                                         serve
python provisioner.py render --sandbox-id a --thread-id t     print the objects of one sandbox
python provisioner.py reap [--dry-run]                        delete what has expired, or print what would be
python provisioner.py check                                   say whether this machine and the cluster are ready
python provisioner.py --version                               print the version
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from sandboxes import __version__
from sandboxes import objects as kube
from sandboxes.api import server
from sandboxes.app import compose, compose_once, load_all_templates
from sandboxes.errors import ProvisionerError, StartupError
from sandboxes.logs import configure_logging, print_masked
from sandboxes.models.requests import CreateRequest
from sandboxes.ops.doctor import check
from sandboxes.ops.lines import Line, exit_code
from sandboxes.service.attempt import now
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build, build_extras
from sandboxes.spec.options import DEFAULT_TEMPLATE, validate
from sandboxes.variables import LISTEN_HOST, LISTEN_PORT, Address, check_address, used_variable

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, or 1 with one message on stderr; of `check`, see there."""
    parser = argparse.ArgumentParser(description="Creates sandboxes on Kubernetes, over REST, through kubectl.")
    parser.add_argument("--version", action="version", version=f"sandbox-provisioner {__version__}")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve the REST API (the default)")
    render_parser = commands.add_parser("render", help="print, as JSON, what would be applied for one sandbox")
    render_parser.add_argument("--sandbox-id", required=True)
    render_parser.add_argument("--thread-id", help="default: the sandbox's id")
    render_parser.add_argument("--user-id", default="default")
    render_parser.add_argument("--template", default=DEFAULT_TEMPLATE)
    reap_parser = commands.add_parser("reap", help="delete, once, what has expired, ended long ago or was left behind")
    reap_parser.add_argument("--dry-run", action="store_true", help="delete nothing, print what would be deleted")
    commands.add_parser(
        "check",
        help="say, line by line, whether this machine and the cluster are ready; exit code 0: "
        "all is well, 1: something fails, 2: the cluster can't even be asked",
    )
    arguments = parser.parse_args(argv)
    try:
        settings = Settings.load()
        if arguments.command == "render":
            print(render(settings, arguments.sandbox_id, arguments.thread_id, arguments.user_id, arguments.template))  # noqa: T201 - its job
        elif arguments.command == "reap":
            configure_logging("WARNING", settings.log_format)
            for line in asyncio.run(reap(settings, dry_run=arguments.dry_run)):
                print(line)  # noqa: T201 - its job
        elif arguments.command == "check":
            configure_logging("ERROR")
            return asyncio.run(check_all(settings))
        else:
            serve(settings)
    except ProvisionerError as error:
        print_masked(f"provisioner: {error.public}\n{error.detail}", sys.stderr)
        return 1
    except StartupError as error:
        print_masked(f"provisioner: {error}", sys.stderr)
        return 2 if arguments.command == "check" else 1
    return 0


def render(
    settings: Settings, sandbox_id: str, thread_id: str | None, user_id: str, template_name: str = DEFAULT_TEMPLATE
) -> str:
    """Return a List, as JSON, of exactly what the service would make for such a request.

    Raises StartupError if the request breaks the contract's rules, or there is no such template.
    """
    templates = load_all_templates(settings)
    if template_name not in templates:
        raise StartupError(f"There is no template {template_name}. There are: {', '.join(sorted(templates))}.")
    try:
        request = CreateRequest(sandbox_id=sandbox_id, thread_id=thread_id, user_id=user_id, template=template_name)
    except ValidationError as error:
        problems = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
        raise StartupError(problems) from error
    sandbox = validate(request, templates, settings)
    objects = [
        obj
        for part in (build_extras, build)
        for obj in part(sandbox, templates[template_name], settings, applied_at=now())
    ]
    return json.dumps(kube.as_list(objects), indent=2)


async def reap(settings: Settings, *, dry_run: bool) -> list[str]:
    """Do one round of the reaper and return a line for each of its deletions, or with `dry_run` of those it would do.

    Raises StartupError without a usable kubectl or kubeconfig, ProvisionerError if the cluster can't be read.
    """
    with tempfile.TemporaryDirectory(prefix="sandbox-provisioner-") as directory:
        service = await compose_once(settings, Path(directory))
        return await service.reaper.round(dry_run=dry_run or settings.reaper_dry_run)


async def check_all(settings: Settings) -> int:
    """Print a line for each thing that the service needs; return 0 (all is well), 1 (something fails) or 2 (can't ask).

    Raises StartupError if the templates can't be loaded.
    """
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="sandbox-provisioner-") as directory:
        async for line in check(settings, os.environ, Path(directory), load_all_templates(settings)):
            print_masked(line)
            lines.append(line)
    return exit_code(lines)


def serve(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM. Raises StartupError when that can't begin."""
    key = settings.provisioner_api_key
    configure_logging(settings.log_level, settings.log_format, secrets=[key.get_secret_value()] if key else [])
    address = Address(
        settings.host,
        settings.listen_port,
        used_variable(LISTEN_HOST, os.environ),
        used_variable(LISTEN_PORT, os.environ),
    )
    if not (settings.has_key or settings.allow_unauthenticated):
        check_address(address)
    # kubectl's cache and a private kubeconfig: the one folder that must be writable, also on a read-only root.
    with tempfile.TemporaryDirectory(prefix="sandbox-provisioner-") as directory:
        asyncio.run(server.serve(compose(settings, Path(directory)), address))
