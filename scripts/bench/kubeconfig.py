"""Reads from a kubeconfig's current context how a plain HTTP client reaches the API server."""

from __future__ import annotations

import base64
import ssl
import tempfile
from typing import TYPE_CHECKING, Any

import yaml

from scripts.bench.client import BenchError, Endpoint

if TYPE_CHECKING:
    from pathlib import Path


def read_kubeconfig(path: Path) -> Endpoint:
    """Return server, CA and credentials of the current context: a token, or a client certificate.

    Raises BenchError with one sentence if it can't be read or used. Credential plugins are not run.
    """
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        return _endpoint(cluster, user, path.parent)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ssl.SSLError, ValueError) as error:
        raise BenchError(f"The kubeconfig {path} can't be used: {error}") from error
    except (KeyError, TypeError, StopIteration) as error:
        raise BenchError(f"The kubeconfig {path} has no usable current context.") from error


def _named(config: dict[str, Any], section: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in config[section] if one["name"] == name)
    return found


def _endpoint(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> Endpoint:
    server = str(cluster["server"]).rstrip("/")
    if not server.startswith("https://"):
        return Endpoint(server, {})  # kubectl sends no credentials in the clear, and neither do we (kubectl.md 12)
    return Endpoint(server, _headers(user, folder), _context(cluster, user, folder), cluster.get("tls-server-name"))


def _headers(user: dict[str, Any], folder: Path) -> dict[str, str]:
    if "tokenFile" in user:
        return {"Authorization": f"Bearer {(folder / user['tokenFile']).read_text(encoding='utf-8').strip()}"}
    if "token" in user:
        return {"Authorization": f"Bearer {user['token']}"}
    if _data(user, "client-certificate", folder) is None:
        raise ValueError("its user has neither token nor client certificate, and credential plugins are not run here.")
    return {}


def _context(cluster: dict[str, Any], user: dict[str, Any], folder: Path) -> ssl.SSLContext:
    authority = _data(cluster, "certificate-authority", folder)
    context = ssl.create_default_context(cadata=None if authority is None else authority.decode())
    if cluster.get("insecure-skip-tls-verify"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = _data(user, "client-certificate", folder), _data(user, "client-key", folder)
    if certificate is not None and key is not None:
        _load_certificate(context, certificate, key)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load both by way of a file that only we can read and that is gone at once: ssl takes nothing else."""
    with tempfile.NamedTemporaryFile(prefix="bench-") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)


def _data(section: dict[str, Any], name: str, folder: Path) -> bytes | None:
    """Return what stands in the file at `name`, or in `name`-data; a relative path is from the kubeconfig's folder."""
    if section.get(f"{name}-data"):
        return base64.b64decode(section[f"{name}-data"])
    return (folder / section[name]).read_bytes() if section.get(name) else None
