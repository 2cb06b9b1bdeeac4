"""Builds the sandboxes' NetworkPolicy from its YAML and the settings. Knows no kubectl.

Egress rules come from manifests/network-policy, which also works with a plain `kubectl apply`; ingress rules come from
the settings.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.errors import StartupError
from sandboxes.grammar import peer_of
from sandboxes.spec.template_files import read_file

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


def load_policy(path: Path) -> KubeObject:
    """Read a file with exactly one NetworkPolicy; raises StartupError for any other content."""
    documents = read_file(path)
    policy = documents[0].value if len(documents) == 1 else None
    if not isinstance(policy, dict) or policy.get("kind") != "NetworkPolicy":
        raise StartupError(f"The file {path} must hold exactly one NetworkPolicy.")
    return policy


def build_policy(template: KubeObject, settings: Settings) -> KubeObject:
    """Return the policy that allows ingress to the sandbox port from SANDBOX_INGRESS_FROM only.

    If that is empty, all ingress is denied, except the kubelet's probes, which no policy blocks.
    """
    policy = copy.deepcopy(template)
    policy["metadata"]["namespace"] = settings.k8s_namespace
    spec = policy["spec"]
    spec["podSelector"] = {"matchLabels": {kube.APP_LABEL: kube.APP}}
    spec["policyTypes"] = ["Ingress", "Egress"]
    port = {"protocol": "TCP", "port": settings.sandbox_container_port}
    peers = [peer_of(entry) for entry in settings.sandbox_ingress_from]
    # A rule with an empty `from` would allow all sources.
    spec["ingress"] = [{"from": peers, "ports": [port]}] if peers else []
    return policy
