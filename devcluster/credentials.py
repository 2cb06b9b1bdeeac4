"""Creates a client's credentials: a certificate authority, a certificate, a token, a kubeconfig. Writes files."""

import base64
import secrets
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
import yaml

NAME = "devcluster"
SERVER_NAMES = ("kubernetes.default.svc", "kubernetes.default", "kubernetes", "127.0.0.1")
"""Names in the certificate. Not localhost (`server-override-name-mismatch`)."""

TOKEN_PREFIX = "devcluster-token-"  # noqa: S105 - a prefix, and no token
"""Prefix of every token, so that leaked tokens can be found; the rest is random."""

_OWNER_ONLY = 0o600


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials. Without TLS there is neither certificate nor token."""

    token: str
    ca_file: Path
    context: ssl.SSLContext | None


def make(directory: Path, *, tls: bool) -> Credentials:
    """Create new credentials. Write the CA certificate into the directory."""
    ca_file = directory / "ca.crt"
    if not tls:
        return Credentials("", ca_file, None)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*SERVER_NAMES).configure_cert(context)
    return Credentials(TOKEN_PREFIX + secrets.token_urlsafe(24), ca_file, context)


def write_kubeconfig(path: Path, url: str, credentials: Credentials) -> None:
    """Write a self-contained kubeconfig that only its owner can read."""
    cluster = {"server": url}
    if credentials.context is not None:
        cluster["certificate-authority-data"] = base64.b64encode(credentials.ca_file.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": NAME, "user": {"token": credentials.token or "none-needed"}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
        "current-context": NAME,
    }
    path.touch(mode=_OWNER_ONLY)
    path.chmod(_OWNER_ONLY)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
