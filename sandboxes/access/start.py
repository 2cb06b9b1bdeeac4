"""The checks of the gateway's settings at the start, for the service and for a gateway in a process of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from sandboxes.access.keys import FileKeys, ProcessKey
from sandboxes.errors import StartupError
from sandboxes.gateway_settings import GatewaySettings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.access.tokens import Keys
    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

NO_KEYS = (
    "SANDBOX_GATEWAY_KEYS_FILE is unset: {why}, the keys that sign the URLs of sandboxes must come from a file, which "
    "all processes share."
)

NO_URL = (
    "SANDBOX_GATEWAY_URL is unset: where the gateway listens on other addresses than loopback, it must say how callers "
    "reach the gateway."
)

NO_TUNNEL = (
    "SANDBOX_GATEWAY_DIAL={dial} means a tunnel{where}, which this version does not have yet: set it to `pod-ip` if "
    "this process can reach the addresses of Pods, else run the gateway in the cluster."
)

NO_VIEW = (
    "LIVE_VIEW=false leaves the gateway without a view of the sandboxes' Pods: unset it, or set "
    "SANDBOX_GATEWAY_SERVE=false and run `provisioner.py gateway`."
)

SAME_PORT = (
    "SANDBOX_GATEWAY_PORT and LISTEN_PORT are both {port}: the gateway needs a port of its own, so that pages of "
    "sandboxes have another origin than the API."
)

# Where no sandbox is to be reached by the gateway, so that its operator may not expect one.
BY_VARIABLE = "There is a gateway because {names} is set."

NEEDS_RESTART = (
    "Its access is gateway, but the service runs without a gateway: restart it, or set SANDBOX_GATEWAY_URL before."
)


def gateway_keys(
    settings: Settings, clusters: Iterable[Settings], *, in_pod: bool, is_own_process: bool = False
) -> Keys | None:
    """Check the settings of the gateway; return the keys that sign, or None if there is no gateway.

    `settings`: of the service; `clusters`: of each cluster, the same ones without CLUSTERS_FILE. `in_pod`: whether
    this process runs in a Pod; `is_own_process`: whether it is a gateway and nothing else.
    Raises StartupError, with one sentence, if the settings can't be used.
    """
    is_used = is_own_process or any(one.access == "gateway" for one in (settings, *clusters))
    if not (is_used or settings.has_gateway):
        return None
    try:
        return _checked_keys(settings, in_pod=in_pod, is_own_process=is_own_process)
    except StartupError as error:
        if is_used:
            raise
        names = ", ".join(name.upper() for name in GatewaySettings.model_fields if settings.is_set(name))
        raise StartupError(f"{error} {BY_VARIABLE.format(names=names)}") from error


def _checked_keys(settings: Settings, *, in_pod: bool, is_own_process: bool) -> Keys:
    dial = settings.sandbox_gateway_dial
    if dial == "tunnel" or (dial == "auto" and not in_pod and (is_own_process or settings.sandbox_gateway_serve)):
        raise StartupError(NO_TUNNEL.format(dial=dial, where=" outside a Pod" if dial == "auto" else ""))
    if not (is_own_process or settings.live_view or not settings.sandbox_gateway_serve):
        raise StartupError(NO_VIEW)
    if (is_own_process or settings.sandbox_gateway_serve) and _is_one_place(settings):
        raise StartupError(SAME_PORT.format(port=settings.listen_port))
    if settings.gateway_url is None:
        raise StartupError(NO_URL)
    if settings.sandbox_gateway_keys_file is not None:
        return FileKeys(settings.sandbox_gateway_keys_file)
    reasons = {
        "where the gateway is a process of its own": is_own_process or not settings.sandbox_gateway_serve,
        "in a Pod": in_pod,
    }
    why = next((reason for reason, holds in reasons.items() if holds), None)
    if why is not None:
        raise StartupError(NO_KEYS.format(why=why))
    logger.warning(
        "SANDBOX_GATEWAY_KEYS_FILE is not set: the key that signs the URLs of sandboxes is made at this start, so all "
        "URLs end with this process."
    )
    return ProcessKey()


def _is_one_place(settings: Settings) -> bool:
    """Whether the gateway and the service are to listen on one port of one host."""
    is_one_host = not {*settings.gateway_hosts}.isdisjoint(settings.hosts)
    return is_one_host and settings.sandbox_gateway_port == settings.listen_port
