"""The NetworkPolicy of all sandboxes: settings → the object to apply. Reads its YAML; knows no kubectl.

What it says of egress stands in manifests/network-policy, which works by hand; here it gets who may get in.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.errors import StartupError
from sandboxes.grammar import peer_of
from sandboxes.spec.templates import read_documents

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings


def load_policy(path: Path) -> KubeObject:
    """Read the one NetworkPolicy of a file; raises StartupError with one sentence if that is not what it holds."""
    documents = [one for one in read_documents(path) if one is not None]
    policy = documents[0] if len(documents) == 1 else None
    if not isinstance(policy, dict) or policy.get("kind") != "NetworkPolicy":
        raise StartupError(f"The file {path} must hold exactly one NetworkPolicy.")
    return policy


def build_policy(template: KubeObject, settings: Settings) -> KubeObject:
    """Return the policy of the sandboxes' namespace: whom SANDBOX_INGRESS_FROM names gets in, on the sandboxes' port.

    With nobody named, nobody gets in; but probes of the kubelet always do.
    """
    policy = copy.deepcopy(template)
    policy["metadata"]["namespace"] = settings.k8s_namespace
    spec = policy["spec"]
    spec["podSelector"] = {"matchLabels": {kube.APP_LABEL: kube.APP}}
    spec["policyTypes"] = ["Ingress", "Egress"]
    port = {"protocol": "TCP", "port": settings.sandbox_container_port}
    peers = [peer_of(entry) for entry in settings.sandbox_ingress_from]
    # A rule without peers would let everybody in.
    spec["ingress"] = [{"from": peers, "ports": [port]}] if peers else []
    return policy
