"""Makes URLs of sandboxes by the gateway, and makes those of a sandbox invalid."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING

from sandboxes import expiry
from sandboxes import objects as kube
from sandboxes.errors import InvalidField, NotBehindGateway, Unprocessable
from sandboxes.gateway_settings import host_problem
from sandboxes.models.urls import SandboxUrl
from sandboxes.spec.lark import port_owner

if TYPE_CHECKING:
    from sandboxes.access.accesses import Accesses
    from sandboxes.cluster.cluster import Cluster
    from sandboxes.objects import KubeObject


def make_url(pod: KubeObject, accesses: Accesses, port: int | None, ttl_seconds: int | None) -> SandboxUrl:
    """Return the URL for a port of the sandbox, its server's by default, that ends after `ttl_seconds`, if given.

    Raises NotBehindGateway, and Unprocessable for a port of another container.
    """
    check_behind_gateway(pod, accesses)
    owner = None if port is None else port_owner(pod, port)
    if owner is not None:
        sentence = f"This port belongs to another container of the sandbox's Pod, {owner}"
        raise Unprocessable([InvalidField(type="value_error", loc=["body", "port"], msg=sentence, input=port)])
    # Tokens have whole seconds.
    end = None if ttl_seconds is None else (expiry.present() + timedelta(seconds=ttl_seconds)).replace(microsecond=0)
    url, number = accesses.gateway_url(pod, port, None if end is None else int(end.timestamp()))
    return SandboxUrl(url=url, port=number, expires_at=None if end is None else expiry.text_of(end))


async def revoke_urls(cluster: Cluster, accesses: Accesses, pod: KubeObject) -> KubeObject:
    """Make all URLs of the sandbox invalid and return its Pod. Raises NotBehindGateway, and the errors of `annotate`.

    A random text: a generation that was in force once must not come again, whoever has removed the annotation.
    """
    check_behind_gateway(pod, accesses)
    return await cluster.annotate(pod, {kube.URL_GENERATION_ANNOTATION: secrets.token_hex(8)}, manager="urls")


def check_new_url(pod: KubeObject | None, accesses: Accesses) -> None:
    """Raise Unprocessable if the Pod is to be behind the gateway, and no DNS can have the host of its URLs."""
    if pod is None or not kube.is_behind_gateway(pod):
        return
    sandbox_id = kube.sandbox_id_of(pod) or ""
    problem = host_problem(accesses.settings.gateway_url or "", sandbox_id)
    if problem is not None:
        sentence = f"This ID is too long for the URLs of the gateway: {problem}"
        raise Unprocessable(
            [InvalidField(type="value_error", loc=["body", "sandbox_id"], msg=sentence, input=sandbox_id)]
        )


def check_behind_gateway(pod: KubeObject, accesses: Accesses) -> None:
    """Raise NotBehindGateway if the sandbox has no URL by the gateway."""
    if not (accesses.has_gateway and kube.is_behind_gateway(pod)):
        sandbox_id = kube.sandbox_id_of(pod)
        raise NotBehindGateway(f"Sandbox '{sandbox_id}' is not reached by the gateway, so it has no such URL")
