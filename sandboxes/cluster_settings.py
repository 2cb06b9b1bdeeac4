"""The settings of one cluster. See `settings.py`, which has those of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sandboxes.variables import (
    api_server,
    dns_domain,
    file_path,
    file_paths,
    host_or_address,
    ingress_from,
    namespace,
    path_list,
    words,
)

# Name of the only cluster of a service without CLUSTERS_FILE.
DEFAULT_CLUSTER = "default"

DEFAULT_KUBECONFIG = Path("~/.kube/config")

Access = Literal["node-port", "cluster-ip", "gateway"]


class ClusterSettings(BaseSettings):
    """The settings of one cluster: how to reach it, and what to create in it. See Settings."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_ignore_empty=True,
        extra="forbid",
        case_sensitive=True,
        alias_generator=str.upper,
        hide_input_in_errors=True,
    )

    k8s_namespace: Annotated[str, AfterValidator(namespace)] = Field(
        "deer-flow", description="Namespace of the sandboxes; created if it is missing."
    )
    sandbox_access: Access | None = Field(
        None,
        description="How callers reach a sandbox: `node-port` or `cluster-ip`, by a Service of its own; `gateway`, by "
        "a URL of this service's gateway, without a Service. Unset: what `SANDBOX_SERVICE_TYPE` says.",
    )
    sandbox_service_type: Literal["NodePort", "ClusterIP"] = Field(
        "NodePort",
        description="How a sandbox is reached where `SANDBOX_ACCESS` is unset: `NodePort`, or `ClusterIP` from inside "
        "the cluster.",
    )
    node_host: Annotated[str, AfterValidator(host_or_address)] = Field(
        "host.docker.internal", description="Host part of NodePort URLs."
    )
    cluster_domain: Annotated[str, AfterValidator(dns_domain)] = Field(
        "cluster.local",
        description="DNS domain of the cluster: the end of ClusterIP URLs and of the names `*.svc.DOMAIN` that are "
        "accepted in `Host`.",
    )
    sandbox_templates_dir: Path | None = Field(
        None, description="Directory of further templates, one directory each, in addition to the built-in ones."
    )
    sandbox_network_policy: Literal["off", "isolated"] = Field(
        "off",
        description="`isolated`: a NetworkPolicy lets sandboxes reach the internet and the cluster's DNS only, and be "
        "reached from `SANDBOX_INGRESS_FROM` only. `off`: none is created, and an existing one is not changed.",
    )
    sandbox_ingress_from: Annotated[tuple[str, ...], NoDecode, BeforeValidator(words), AfterValidator(ingress_from)] = (
        Field(
            (),
            description="Who may reach isolated sandboxes, separated by commas: CIDRs (node-port traffic arrives from "
            "the nodes' addresses), `namespace:KEY=VALUE`, `pod:KEY=VALUE` and `namespace:KEY=VALUE/pod:KEY=VALUE`.",
        )
    )
    max_sandboxes: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Most sandboxes in the namespace; past it, 429. With `CLUSTERS_FILE`: in all clusters "
        "together; an entry's `max_sandboxes` is for its cluster. `0`: no limit.",
    )
    kubeconfig_path: Annotated[Path, AfterValidator(file_path)] = Field(
        DEFAULT_KUBECONFIG,
        description="kubeconfig file. If it does not exist, in a Pod, the service account's token is used. "
        "The image sets it.",
    )
    kubeconfig: Annotated[tuple[Path, ...], NoDecode, BeforeValidator(path_list), AfterValidator(file_paths)] = Field(
        (),
        description="kubeconfig files, separated by colons, which kubectl merges; missing ones are passed over. Read "
        "where `KUBECONFIG_PATH` is unset, so not in the image, and then instead of `~/.kube/config`.",
    )
    k8s_api_server: Annotated[str, AfterValidator(api_server)] | None = Field(
        None,
        description="API server instead of the kubeconfig's, given to kubectl as `--server`; the certificate is "
        "still checked against the kubeconfig's host.",
    )
    k8s_tls_server_name: Annotated[str, AfterValidator(host_or_address)] | None = Field(
        None, description="Name that the API server's certificate must carry, instead of the kubeconfig's host."
    )
    k8s_insecure_skip_tls_verify: bool = Field(
        False, description="`true`: do not check the API server's certificate. Logged as a warning."
    )

    @property
    def access(self) -> Access:
        """How callers reach the sandboxes that are made now."""
        if self.sandbox_access is not None:
            return self.sandbox_access
        return "cluster-ip" if self.sandbox_service_type == "ClusterIP" else "node-port"

    @property
    def service_type(self) -> Literal["NodePort", "ClusterIP"]:
        """Type of the Services of sandboxes; with the gateway, of those that were made without it."""
        if self.sandbox_access in (None, "gateway"):
            return self.sandbox_service_type
        return "ClusterIP" if self.sandbox_access == "cluster-ip" else "NodePort"
