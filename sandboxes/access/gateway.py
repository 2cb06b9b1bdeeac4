"""Access by the gateway: a URL with a token that is valid as long as the Pod, and no object beside the Pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.access.addresses import problem_of
from sandboxes.access.tokens import Subject, mint
from sandboxes.cluster_settings import DEFAULT_CLUSTER
from sandboxes.gateway_settings import ID_PLACE
from sandboxes.variables import authority

if TYPE_CHECKING:
    from sandboxes.access.tokens import Keys
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


def subject_of(pod: KubeObject, settings: Settings) -> Subject:
    """Return what the tokens of a sandbox are for. `settings`: of its cluster."""
    return Subject(
        cluster=settings.cluster or DEFAULT_CLUSTER,
        namespace=settings.k8s_namespace,
        sandbox_id=kube.sandbox_id_of(pod) or "",
        uid=pod["metadata"]["uid"],
        port=kube.server_port(pod) or settings.sandbox_container_port,
        generation=kube.get_annotations(pod).get(kube.URL_GENERATION_ANNOTATION, ""),
    )


def prefix_of(sandbox_id: str, base: str) -> str:
    """Return the URL of a sandbox without its token. `base`: SANDBOX_GATEWAY_URL or its default."""
    return f"{base.replace(ID_PLACE, sandbox_id)}/s/{sandbox_id}"


class GatewayAccess:
    """By `{SANDBOX_GATEWAY_URL}/s/{sandbox_id}/{token}`; see Access. A Service that is there does not count.

    Raises ValueError if the settings have no URL of the gateway.
    """

    needs_service = False

    def __init__(self, settings: Settings, keys: Keys) -> None:
        base = settings.gateway_url
        if base is None:
            raise ValueError("SANDBOX_GATEWAY_URL is unset")
        self._settings, self._keys, self._base = settings, keys, base

    def is_complete(self, pod: KubeObject, service: KubeObject | None) -> bool:  # noqa: ARG002
        """Whether the Pod is there, and not being deleted."""
        return kube.sandbox_id_of(pod) is not None and not kube.is_terminating(pod)

    def is_whole(self, pod: KubeObject, service: KubeObject | None) -> bool:
        """Whether the Pod is there: its URL needs nothing else."""
        return self.is_complete(pod, service)

    def url(self, pod: KubeObject, service: KubeObject | None) -> str:  # noqa: ARG002
        """Return the URL, which is the same in all processes that have the same keys."""
        return self.url_for(pod, None, None)[0]

    def url_for(self, pod: KubeObject, port: int | None, expires_at: int | None) -> tuple[str, int]:
        """Return the URL for a port, that of the sandbox's server by default, and the port.

        `expires_at`: end of the URL in seconds since 1970; None: that of the sandbox.
        """
        subject = subject_of(pod, self._settings)
        token = mint(subject, self._keys, port=port, expires_at=expires_at)
        return f"{prefix_of(subject.sandbox_id, self._base)}/{token}", port or subject.port

    def probed_url(self, pod: KubeObject, service: KubeObject | None) -> str | None:  # noqa: ARG002
        """Return the Pod's own address, as the gateway dials it: SANDBOX_GATEWAY_URL may lead through other proxies.

        None while the Pod has none, or one that no Pod has, and with hostNetwork: then the address is the node's.
        """
        address = (pod.get("status") or {}).get("podIP")
        if not address or pod["spec"].get("hostNetwork") or problem_of(address, may_be_loopback=True) is not None:
            return None
        return f"http://{authority(address, subject_of(pod, self._settings).port)}"
