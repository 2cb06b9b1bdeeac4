"""The settings of the gateway. All variables begin with SANDBOX_GATEWAY_.

Kubernetes sets GATEWAY_PORT=tcp://… in every Pod beside a Service of the name `gateway`, so that name can't be used.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings

from sandboxes.cluster_settings import ClusterSettings
from sandboxes.grammar import MAX_DNS_LABEL, MAX_DNS_NAME
from sandboxes.variables import ListenHosts, Port, file_path

# Stands for a sandbox's id in the host part of SANDBOX_GATEWAY_URL.
ID_PLACE = "{sandbox_id}"

_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"\[[0-9A-Fa-f:.]+\]|{_LABEL}(\.{_LABEL})*\.?")


def gateway_url(value: str) -> str:
    """Return the URL without a final slash; it has a scheme, a host and no path."""
    rule = (
        f"`http://HOST`, `https://HOST` or `http://HOST:PORT`, without a path; the host may have {ID_PLACE} in it once"
    )
    url = value.rstrip("/")
    try:
        parts = urlsplit(url.replace(ID_PLACE, "x", 1))
        port = parts.port
    except ValueError as error:
        raise ValueError(rule) from error
    host = parts.netloc.removesuffix(f":{port}")
    is_bare = not (parts.path or parts.query or parts.fragment)
    if parts.scheme not in ("http", "https") or not is_bare or port == 0 or not _HOST.fullmatch(host):
        raise ValueError(rule)
    if problem := host_problem(url, "x"):
        raise ValueError(f"{rule}; here, {problem}")
    if ID_PLACE in url and ID_PLACE not in url.split("//", 1)[1].split(":", 1)[0]:
        raise ValueError(rule)
    return url


def host_problem(url: str, sandbox_id: str) -> str | None:
    """Return why no DNS can have the host of a sandbox's URLs, as a part of a sentence; None if it can."""
    host = urlsplit(url.replace(ID_PLACE, sandbox_id)).hostname or ""
    longest = max(map(len, host.split(".")))
    if longest > MAX_DNS_LABEL and ":" not in host:
        return f"a part of the host has {longest} characters, and DNS allows {MAX_DNS_LABEL}"
    length = len(host.removesuffix("."))
    return f"the host has {length} characters, and DNS allows {MAX_DNS_NAME}" if length > MAX_DNS_NAME else None


class GatewaySettings(BaseSettings):
    """How the gateway listens, signs and dials. See Settings."""

    # Settings inherits the configuration of its last base.
    model_config = ClusterSettings.model_config

    sandbox_gateway_url: Annotated[str, AfterValidator(gateway_url)] | None = Field(
        None,
        description="Beginning of the URLs of sandboxes behind the gateway, as callers reach it. `{sandbox_id}` in its "
        "host gives each sandbox an origin of its own; an ID with which a part of the host has more than 63 characters "
        "is 422. Unset: `http://127.0.0.1:8003`, with the port of "
        "`SANDBOX_GATEWAY_PORT`, where the gateway listens on loopback only; else it is required. The components of "
        "`manifests/deploy` set it.",
    )
    sandbox_gateway_serve: bool = Field(
        True, description="`false`: the service signs URLs, but serves none; `provisioner.py gateway` does, elsewhere."
    )
    sandbox_gateway_host: ListenHosts = Field(
        (),
        description="Addresses on which the gateway listens, separated by commas. Unset: those on which the service "
        "listens.",
    )
    sandbox_gateway_port: Port = Field(8003, description="Port on which the gateway listens.")
    sandbox_gateway_keys_file: Annotated[Path, AfterValidator(file_path)] | None = Field(
        None,
        description="File with the keys that sign the URLs, one of at least 32 characters in each line: the first "
        "signs, all verify. Read again when it changes. Unset: outside a Pod, the service makes a key at its start, "
        "and all URLs end with it; a gateway in a process of its own, and any start in a Pod, is refused.",
    )
    sandbox_gateway_dial: Literal["auto", "pod-ip", "tunnel"] = Field(
        "auto",
        description="How the gateway reaches a sandbox: `pod-ip`, the Pod's own address; `tunnel`, by `kubectl "
        "port-forward`, which this version does not have yet; `auto`: `pod-ip` in a Pod, else `tunnel`. So set "
        "`pod-ip` outside a Pod.",
    )
    sandbox_gateway_max_stale: Annotated[float, Field(ge=10, le=86400)] = Field(
        600.0,
        description="Seconds for which the gateway goes on dialling the addresses that it knows while the API server "
        "does not answer. A Pod's address is given to another one day.",
    )
    sandbox_gateway_wait: Annotated[float, Field(ge=0, le=300)] = Field(
        10.0, description="Seconds for which a request waits for a sandbox that is not ready yet; then 503."
    )
    sandbox_gateway_silence: Annotated[float, Field(ge=1, le=604800)] = Field(
        3600.0, description="Seconds without a byte in either direction after which a connection is ended."
    )
    sandbox_gateway_max_message: Annotated[int, Field(ge=1024, le=2**30)] = Field(
        64 * 2**20, description="Most bytes of a WebSocket message; past it, the connection is closed with 1009."
    )
    sandbox_gateway_max_connections: Annotated[int, Field(ge=1, le=100_000)] = Field(
        256, description="Most connections to one sandbox at a time; past it, 429."
    )
