"""Invalid or partly invalid kubeconfigs, with MARKER in place of every secret."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.marker import MARKER

Make = Callable[[dict[str, Any], Path], str | None]

# Prints its arguments and environment on stderr, as a program in debug mode does, and fails.
PLUGIN = f"""#!{sys.executable}
import os, sys
for name, value in os.environ.items():
    print(f"{{name}}={{value}}", file=sys.stderr)
print("arguments:", sys.argv[1:], file=sys.stderr)
sys.exit(3)
"""


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def pem(kind: str) -> str:
    """Return invalid data in the form of PEM."""
    return f"-----BEGIN {kind}-----\n{encoded(f'first {MARKER}')}\n{MARKER}\n-----END {kind}-----\n"


def _user(config: dict[str, Any], _: Path, **user: Any) -> None:
    config["users"][0]["user"] = user


def _cluster(config: dict[str, Any], **changes: Any) -> None:
    config["clusters"][0]["cluster"] |= changes


def plugin(config: dict[str, Any], directory: Path, **changes: Any) -> dict[str, Any]:
    """Set a credential plugin that prints its arguments and environment and fails; return its `exec` section."""
    path = directory / "login"
    path.write_text(PLUGIN)
    path.chmod(0o755)
    exec_: dict[str, Any] = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "interactiveMode": "Never",
        "command": str(path),
        "args": ["get-token", "--password", f"{MARKER} in an argument", f"--key={MARKER}"],
        "env": [{"name": "SECRET", "value": MARKER}, {"name": "SCRIPT", "value": f"first {MARKER}\nsecond {MARKER}"}],
        "provideClusterInfo": True,
        **changes,
    }
    _user(config, directory, exec=exec_)
    config["clusters"][0]["cluster"]["extensions"] = [
        {"name": "client.authentication.k8s.io/exec", "extension": {"audience": MARKER, "more": [f"and {MARKER}"]}}
    ]
    return exec_


def _two_users(config: dict[str, Any], _: Path) -> None:
    data = {"client-key-data": encoded(pem("KEY")), "client-certificate-data": encoded(MARKER)}
    config["users"][0]["user"] |= {"username": MARKER, "password": f"{MARKER} pass", **data}
    config["users"].append(config["users"][0])


def _two_clusters(config: dict[str, Any], _: Path) -> None:
    _cluster(config, **{"proxy-url": f"http://u:{MARKER}@127.0.0.1:1"})
    config["clusters"].append(config["clusters"][0])


def _two_contexts(config: dict[str, Any], _: Path) -> None:
    config["contexts"][0]["context"]["extensions"] = [{"name": "x", "extension": {"note": MARKER}}]
    config["contexts"].append(config["contexts"][0])


def _token_file(config: dict[str, Any], directory: Path) -> None:
    (directory / "token").write_text(f"{MARKER}\nand a line feed")
    _user(config, directory, tokenFile=str(directory / "token"))


def _auth_provider(config: dict[str, Any], directory: Path, name: str) -> None:
    settings = {"client-id": MARKER, "client-secret": f"secret {MARKER}", "idp-issuer-url": f"https://{MARKER}.example"}
    _user(config, directory, **{"auth-provider": {"name": name, "config": settings}})


CHANGES: dict[str, Callable[[dict[str, Any], Path], object]] = {
    "two users": _two_users,
    "two clusters": _two_clusters,
    "two contexts": _two_contexts,
    "a token with a line feed": lambda c, d: _user(c, d, token=f"{MARKER}\nx"),
    "a token that is a list": lambda c, d: _user(c, d, token=[MARKER]),
    "a token file with a line feed": _token_file,
    "a token and a password": lambda c, d: _user(c, d, token=MARKER, username=f"{MARKER}-u", password=f"{MARKER}-p"),
    "a wrong password": lambda c, d: _user(c, d, username=f"{MARKER}-u", password=f"{MARKER}-p"),
    "a wrong token": lambda c, d: _user(c, d, token=MARKER),
    "no token, but a prompt": lambda c, d: _user(c, d, impersonate=MARKER),
    "data that are not base64": lambda c, d: _user(c, d, **{"client-key-data": MARKER, "client-certificate-data": "!"}),
    "data that are a mapping": lambda c, d: _user(c, d, **{"client-key-data": {MARKER: MARKER}}),
    "data that are no PEM": lambda c, d: _user(
        c, d, **{"client-certificate-data": encoded(MARKER), "client-key-data": encoded(MARKER)}
    ),
    "data that are broken PEM": lambda c, d: _user(
        c, d, **{"client-certificate-data": encoded(pem("CERTIFICATE")), "client-key-data": encoded(pem("KEY"))}
    ),
    "a CA that is no PEM": lambda c, _: _cluster(c, **{"certificate-authority-data": encoded(MARKER)}),
    "a CA and no check": lambda c, _: _cluster(
        c, **{"insecure-skip-tls-verify": True, "certificate-authority-data": encoded(MARKER)}
    ),
    "a proxy without a scheme": lambda c, _: _cluster(c, **{"proxy-url": f"u:{MARKER}@127.0.0.1:1"}),
    "a proxy of another scheme": lambda c, _: _cluster(c, **{"proxy-url": f"ftp://u:{MARKER}@127.0.0.1:1"}),
    "a proxy that is no address": lambda c, _: _cluster(c, **{"proxy-url": f"http://u:{MARKER}@bad host:x"}),
    "a proxy that is down": lambda c, _: _cluster(c, **{"proxy-url": f"http://u:{MARKER}@127.0.0.1:1"}),
    "a proxy that is unknown": lambda c, _: _cluster(c, **{"proxy-url": f"http://u:{MARKER}@{MARKER}.invalid:1"}),
    "a server with a password": lambda c, _: _cluster(c, server=f"https://u:{MARKER}@127.0.0.1:1"),
    "a server with a query": lambda c, _: _cluster(c, server=f"https://127.0.0.1:1/?token={MARKER}#{MARKER}"),
    "a server that is no address": lambda c, _: _cluster(c, server=f"https://u:{MARKER}@bad host:x"),
    "a server with a slash in its password": lambda c, _: _cluster(c, server=f"https://u:{MARKER}/{MARKER}@host:1"),
    "a server without a scheme": lambda c, _: _cluster(c, server=f"u:{MARKER}@127.0.0.1:1"),
    "a plugin that prints all": plugin,
    "a plugin of an old version": lambda c, d: plugin(c, d, apiVersion="client.authentication.k8s.io/v1alpha1"),
    "a plugin without a mode": lambda c, d: plugin(c, d, interactiveMode=None),
    "a plugin that is missing": lambda c, d: plugin(c, d, command=f"/nowhere/{'x'}", installHint=f"log in as {MARKER}"),
    "a plugin whose variables are a mapping": lambda c, d: plugin(c, d, env={"SECRET": MARKER}),
    "an auth provider that is gone": lambda c, d: _auth_provider(c, d, "gcp"),
    "an auth provider without a token": lambda c, d: _auth_provider(c, d, "oidc"),
    "an auth provider that is unknown": lambda c, d: _auth_provider(c, d, "other"),
    "users that are a mapping": lambda c, _: c.update(users={"name": MARKER, "user": {"token": MARKER}}),
    "users that are a text": lambda c, _: c.update(users=f"token: {MARKER}"),
    "another kind": lambda c, _: c.update(kind=f"Config{MARKER}", apiVersion=f"{MARKER}/v1"),
}

TEXTS: dict[str, Callable[[str], str]] = {
    "a line that is no YAML": lambda text: f"{text}\n  {MARKER}: [\n",
    "a text": lambda _: f"token {MARKER}",
    "a line feed in a key": lambda text: text.replace("users:", f'"us\\n{MARKER}ers":'),
    "tabs": lambda text: text.replace("  token: ", f"\ttoken: {MARKER}"),
    "an alias of nothing": lambda text: text.replace("  token: ", f"  token: *{MARKER}-"),
    "JSON that is cut short": lambda text: json.dumps(yaml.safe_load(text))[:-9] + f'"{MARKER}',
    "two documents": lambda text: f"{text}\n---\ntoken: {MARKER}\nusers: {{}}\n",
    "a broken second document": lambda text: f"{text}\n---\ntoken: [{MARKER}\n",
    "an anchor twice": lambda text: text.replace("  token: ", f"  x: &a {MARKER}\n    y: &a {MARKER}\n    token: "),
    "a key twice": lambda text: text.replace("  token: ", f"  token: {MARKER}\n    token: "),
}

CASES = (*CHANGES, *TEXTS)


def write(name: str, good: str, path: Path) -> None:
    """Write a good kubeconfig to `path` with the fault of the case `name`."""
    if name in TEXTS:
        path.write_text(TEXTS[name](good), encoding="utf-8")
        return
    config = yaml.safe_load(good)
    CHANGES[name](config, path.parent)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
