"""Reads the environment once, into one frozen `Settings`.

A bad value stops the startup with one message that lists every bad variable, its value and the allowed values.
`docs/reference/configuration.md` is generated from the fields here (`python -m scripts.docs`).
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource

from sandboxes import environment
from sandboxes.addresses import EVERY_ADDRESS, LISTEN_HOST, LISTEN_PORT, LOOPBACK, authority
from sandboxes.cluster_settings import ClusterSettings
from sandboxes.environment import FALLBACKS
from sandboxes.errors import StartupError
from sandboxes.gateway_settings import GatewaySettings
from sandboxes.grammar import (
    check_image,
    host_names,
    is_loopback,
)
from sandboxes.models.requests import OPTIONAL_FIELDS, Seconds
from sandboxes.variables import (
    Amount,
    ClaimName,
    ListenHosts,
    NodePath,
    Port,
    ThreadsPath,
    api_key,
    file_path,
    lower_case,
    sub_path_template,
    upper_case,
    variable_names,
    words,
)

# Where DeerFlow's own containers have what its chart keeps on the claim.
DEERFLOW_HOME = "/app/backend/.deer-flow"

DEFAULT_IMAGE = "enterprise-public-cn-beijing.cr.volces.com/vefaas-public/all-in-one-sandbox:latest"


def _optional_fields(value: tuple[str, ...]) -> tuple[str, ...]:
    # An empty variable counts as unset, so an empty list needs a word.
    if value == ("none",):
        return ()
    if not set(value) <= OPTIONAL_FIELDS:
        raise ValueError("names out of " + ", ".join(sorted(OPTIONAL_FIELDS)) + "; or `none`")
    return value


class Settings(ClusterSettings, GatewaySettings):
    """All settings of the operator: those of the service, and the inherited ones of the cluster.

    Each is read from the environment variable of its name, in upper case only. An empty value counts as unset.
    """

    # Name of the cluster whose settings these are, if the operator lists clusters.
    _cluster: str | None = PrivateAttr(None)

    clusters_file: Annotated[Path, AfterValidator(file_path)] | None = Field(
        None, description="YAML file that lists several clusters. Unset: one cluster, `default`, from the variables."
    )
    sandbox_image: Annotated[str, AfterValidator(check_image)] = Field(DEFAULT_IMAGE, description="Image of a sandbox.")
    skills_host_path: NodePath | None = Field(
        None, description="Absolute path on the node, read-only at `/mnt/skills`. Unset: no skills volume."
    )
    threads_host_path: ThreadsPath | None = Field(
        None,
        description="Absolute path on the node; `{thread_id}/user-data` below it is read-write at `/mnt/user-data`. "
        "It may have `{user_id}` and `{thread_id}` in it, each in a folder of its own; with the latter only "
        "`user-data` is below it. "
        "Unset: `user-data` is an `emptyDir`, with a warning.",
    )
    skills_pvc_name: ClaimName | None = Field(
        None, description="PersistentVolumeClaim for the skills, instead of `SKILLS_HOST_PATH`."
    )
    skills_pvc_subpath_template: Annotated[str, AfterValidator(sub_path_template)] | None = Field(
        None,
        description="`subPath` of `SKILLS_PVC_NAME` to mount, such as `users/{user_id}/skills`; `{user_id}` and "
        "`{thread_id}` are the sandbox's, each in a folder of its own. Unset: the whole claim.",
    )
    userdata_pvc_name: ClaimName | None = Field(
        None,
        description="PersistentVolumeClaim for user data, instead of `THREADS_HOST_PATH`; `subPath` "
        "`deer-flow/users/{user_id}/threads/{thread_id}/user-data`.",
    )
    deer_flow_host_base_dir: NodePath | None = Field(
        None,
        description="Absolute path on the node under which every `extra_mounts` host path must lie. "
        "Unset: `/app/backend/.deer-flow` with `USERDATA_PVC_NAME`; else the parent of a `THREADS_HOST_PATH` that ends "
        "in `/threads`; else `extra_mounts` is refused (400).",
    )
    lark_cli_init_image: Annotated[str, AfterValidator(check_image)] | None = Field(
        None, description="Image of DeerFlow's Lark CLI, which an init container copies into sandboxes that want it."
    )
    lark_cli_broker_image: Annotated[str, AfterValidator(check_image)] | None = Field(
        None,
        description="Image of DeerFlow's broker for the Lark CLI: a sidecar that keeps the credentials out of the "
        "sandbox. Instead of `LARK_CLI_INIT_IMAGE`.",
    )
    deerflow_lark_broker_deny_subcommands: str | None = Field(
        None, description="Subcommands that the broker refuses, separated by commas. Needs `LARK_CLI_BROKER_IMAGE`."
    )
    sandbox_container_port: Port = Field(8080, description="Port on which a sandbox's server listens.")
    sandbox_seccomp: Literal["RuntimeDefault", "Unconfined"] | None = Field(
        None,
        description="Seccomp profile of a sandbox's Pod; a template annotated as restricted always has "
        "`RuntimeDefault`. Unset: the template's own profile; without one, none for an image named "
        "`all-in-one-sandbox`, whose browser does not start under `RuntimeDefault`; `RuntimeDefault` for any other.",
    )
    sandbox_startup_failure_threshold: Annotated[int, Field(ge=1, le=86400)] = Field(
        120, description="Failures of the startup probe, one a second, before a sandbox's container is restarted."
    )
    allow_fields: Annotated[tuple[str, ...], NoDecode, BeforeValidator(words), AfterValidator(_optional_fields)] = (
        Field(
            ("ttl_seconds", "idle_timeout_seconds", "wait_seconds", "env", "labels", "resources", "template"),
            description="Optional fields of a create that callers may use, separated by commas; any other is 403. "
            "`none`: only the contract's own. Of query parameters, it applies to `force` of a `DELETE` only.",
        )
    )
    max_cpu: Amount = Field("2", description="Most CPU that a caller may ask for, as a Kubernetes quantity.")
    max_memory: Amount = Field("4Gi", description="Most memory that a caller may ask for, as a Kubernetes quantity.")
    max_ephemeral_storage: Amount = Field(
        "10Gi", description="Most ephemeral storage that a caller may ask for, as a Kubernetes quantity."
    )
    sandbox_ttl: Seconds = Field(
        0, description="Seconds until a sandbox expires, unless its create has `ttl_seconds`. `0`: never."
    )
    sandbox_idle_timeout: Seconds = Field(
        0,
        description="Seconds without use until a sandbox expires, unless its create has `idle_timeout_seconds`. "
        "`0`: never.",
    )
    reaper_interval: Annotated[float, Field(ge=0, le=86400)] = Field(
        30.0, description="Seconds between two rounds of the reaper, which deletes expired sandboxes. `0`: no reaper."
    )
    reaper_dry_run: bool = Field(False, description="`true`: the reaper only logs what it would delete.")
    reaper_grace: Annotated[float, Field(ge=1, le=86400)] = Field(
        120.0, description="Seconds after which the reaper deletes a sandbox whose Pod or Service is missing."
    )
    ended_ttl: Annotated[int, Field(ge=0, le=10_000_000_000)] = Field(
        3600, description="Seconds after which the reaper deletes a sandbox that has ended (`Failed`, `Succeeded`)."
    )
    fail_fast_after: Annotated[float, Field(ge=0, le=86400)] = Field(
        30.0, description="Seconds for which a Pod may be unschedulable before `wait_seconds` gives up waiting for it."
    )
    provisioner_api_key: Annotated[SecretStr, AfterValidator(api_key)] | None = Field(
        None,
        description="Every path under `/api/` needs it in the `X-API-Key` header. A comma is part of the key; several "
        "keys go into the file. Unset, and no file: see `ALLOW_UNAUTHENTICATED`.",
    )
    provisioner_api_key_file: Path | None = Field(
        None,
        description="File with further API keys, one in each line that does not begin with `#`. Reloaded when it "
        "changes, so that a mounted Secret rotates without a restart.",
    )
    allow_unauthenticated: bool = Field(
        False,
        description="Without an API key: `false` answers only callers from loopback and private addresses, and none in "
        "a Pod; `true` answers every caller. No effect with a key.",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(words), AfterValidator(host_names)] = Field(
        (),
        description="Without an API key: names, separated by commas, to accept in `Host`, without ports; in addition "
        "to IP addresses, names without a dot, `host.docker.internal`, `*.svc` and `*.svc.` with `CLUSTER_DOMAIN`.",
    )
    listen_host: ListenHosts = Field(
        (),
        validation_alias=AliasChoices(LISTEN_HOST, FALLBACKS[LISTEN_HOST]),
        description="Addresses to listen on, separated by commas; `::` is all of IPv4 and IPv6. Unset: those of "
        "`HOST`, else `0.0.0.0,::` with an API key and `127.0.0.1,::1` without one; the image sets `0.0.0.0,::`. A "
        "family that the machine lacks is passed over. Without a key they must be IP addresses or `localhost`.",
    )
    listen_port: Port = Field(
        8002,
        validation_alias=AliasChoices(LISTEN_PORT, FALLBACKS[LISTEN_PORT]),
        description="Port to listen on. Unset: that of `PORT`; the image sets `8002`.",
    )
    kubectl: Path | None = Field(
        None, description="kubectl to use. Unset: the one on `PATH`, else the one that is installed with the service."
    )
    kubectl_pass_env: Annotated[tuple[str, ...], NoDecode, BeforeValidator(words), AfterValidator(variable_names)] = (
        Field(
            (),
            description="Names, separated by commas, of further variables to pass to kubectl, for credential plugins. "
            "Never `KUBECONFIG`, `KUBECTL_KUBERC` or `KUBERC`.",
        )
    )
    kubectl_max_processes: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="kubectl processes at once, each about 50 MB; with `CLUSTERS_FILE`, for each cluster."
    )
    kubectl_max_waiting: Annotated[int, Field(ge=0, le=100_000)] = Field(
        200, description="Calls that may wait for a kubectl process; past it, 503 at once."
    )
    live_view: bool = Field(
        True, description="Answer reads from a cache that two watches keep; `false`: start kubectl for each read."
    )
    live_view_max_age: Annotated[float, Field(ge=2, le=3600)] = Field(
        60.0, description="Seconds after which an unconfirmed live view is no longer used."
    )
    kubectl_start_ahead: bool = Field(
        True, description="Keep a few kubectl processes waiting on stdin; `false`: start each when it is needed."
    )
    kubectl_group: bool = Field(
        True, description="Batch concurrent requests into one kubectl call; `false`: one call for each request."
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(upper_case)] = Field(
        "INFO", description="Lowest level that is logged; kubectl calls are logged at `DEBUG`."
    )
    log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(lower_case)] = Field(
        "auto",
        description="Form of the log: `json`, `console` for a person; `auto`: `console` on a terminal, else `json`.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read only the environment, and no `.env` file of the working directory."""
        return (env_settings,)

    @classmethod
    def load(cls) -> Settings:
        """Read the settings from the process's environment.

        Raises StartupError with one message that lists every bad variable.
        """
        problems = environment.unsupported(os.environ)
        try:
            settings = cls()
        except ValidationError as error:
            raise StartupError(environment.message([*environment.described(error, os.environ), *problems])) from error
        if settings.skills_pvc_subpath_template and not settings.skills_pvc_name:
            problems.append("SKILLS_PVC_SUBPATH_TEMPLATE is set without SKILLS_PVC_NAME, to which it applies.")
        if settings.deerflow_lark_broker_deny_subcommands and not settings.lark_cli_broker_image:
            problems.append("DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS is set without LARK_CLI_BROKER_IMAGE.")
        if settings.is_set("sandbox_service_type") and settings.sandbox_service_type != settings.service_type:
            problems.append(
                f"SANDBOX_ACCESS is {settings.sandbox_access}, but SANDBOX_SERVICE_TYPE is "
                f"{settings.sandbox_service_type}: unset one of them."
            )
        if problems:
            raise StartupError(environment.message(problems))
        return settings

    @property
    def cluster(self) -> str | None:
        """Name of the cluster whose settings these are; None if the operator lists no clusters."""
        return self._cluster

    def is_set(self, field: str) -> bool:
        """Whether the operator has set the field."""
        return field in self.model_fields_set

    @property
    def has_gateway(self) -> bool:
        """Whether there is a gateway: new sandboxes are reached by it, or one of its own variables is set."""
        return self.access == "gateway" or any(map(self.is_set, GatewaySettings.model_fields))

    @property
    def gateway_hosts(self) -> tuple[str, ...]:
        """Hosts on which the gateway listens: SANDBOX_GATEWAY_HOST, else those of the service."""
        return self.sandbox_gateway_host or self.hosts

    @property
    def gateway_url(self) -> str | None:
        """Begin of the URLs behind the gateway; None if SANDBOX_GATEWAY_URL is unset and not only loopback listens."""
        if self.sandbox_gateway_url is not None:
            return self.sandbox_gateway_url
        hosts = self.gateway_hosts
        if not all(map(is_loopback, hosts)):
            return None
        host = LOOPBACK[1] if set(hosts) == {LOOPBACK[1]} else LOOPBACK[0]
        return f"http://{authority(host, self.sandbox_gateway_port)}"

    @property
    def overridden(self) -> list[str]:
        """Variables that are set without effect, each with the variable that overrides it."""
        is_of_access = self.sandbox_access in ("node-port", "cluster-ip")
        by_type = (
            f"SANDBOX_ACCESS={self.sandbox_access}" if is_of_access else f"SANDBOX_SERVICE_TYPE={self.service_type}"
        )
        overriding = {
            "skills_host_path": self.skills_pvc_name and "SKILLS_PVC_NAME",
            "threads_host_path": self.userdata_pvc_name and "USERDATA_PVC_NAME",
            "lark_cli_init_image": self.lark_cli_broker_image and "LARK_CLI_BROKER_IMAGE",
            "node_host": self.service_type == "ClusterIP" and by_type,
            "cluster_domain": self.has_key and self.service_type != "ClusterIP" and by_type,
            "sandbox_ingress_from": self.sandbox_network_policy == "off" and "SANDBOX_NETWORK_POLICY=off",
            "k8s_tls_server_name": self.k8s_insecure_skip_tls_verify and "K8S_INSECURE_SKIP_TLS_VERIFY",
            "live_view_max_age": not self.live_view and "LIVE_VIEW=false",
        }
        return [f"{field.upper()} (by {by})" for field, by in overriding.items() if by and self.is_set(field)]

    @property
    def base_directory(self) -> str | None:
        """Directory that the host paths of all extra mounts must be below; None where they are refused.

        DeerFlow's chart and compose file imply it by other variables. The root is never implied: it would show a
        caller all of the node.
        """
        if self.deer_flow_host_base_dir:
            return self.deer_flow_host_base_dir
        if self.userdata_pvc_name:
            return DEERFLOW_HOME
        path = self.threads_host_path or ""
        implied = posixpath.dirname(path) if posixpath.basename(path) == "threads" and "{" not in path else ""
        return implied.rstrip("/") or None

    @property
    def has_key(self) -> bool:
        """Whether callers need an API key."""
        return self.provisioner_api_key is not None or self.provisioner_api_key_file is not None

    @property
    def hosts(self) -> tuple[str, ...]:
        """Hosts to listen on: LISTEN_HOST, else all addresses with an API key, and loopback without one."""
        return self.listen_host or (EVERY_ADDRESS if self.has_key else LOOPBACK)
