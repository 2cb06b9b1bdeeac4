"""Bodies of requests, and their limits.

Field names, patterns and defaults are the contract with existing callers. Unknown fields are accepted and
ignored, since callers are often newer than this service.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from sandboxes.grammar import DNS_LABEL, MAX_IMAGE_LENGTH

# `sandbox-` + id + `-svc` must be a DNS label of at most 63 characters: 63 - 8 - 4 = 51.
MAX_SANDBOX_ID_LENGTH = 51

# \z matches only the very end. In other regex engines $ also matches before a last newline.
SANDBOX_ID_PATTERN = rf"^{DNS_LABEL}\z"

MAX_EXTRA_MOUNTS = 10

SandboxId = Annotated[str, StringConstraints(pattern=SANDBOX_ID_PATTERN, max_length=MAX_SANDBOX_ID_LENGTH)]
ThreadId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}\z")]
# The contract sets no limit. This is PATH_MAX; a limit is needed because each list contains the ids of all sandboxes.
MAX_USER_ID_LENGTH = 4096
UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+\z", max_length=MAX_USER_ID_LENGTH)]

# Ten years: longer than any sandbox lives, and within the years of RFC 3339.
MAX_SECONDS = 10 * 365 * 24 * 3600

# A lifetime in seconds; 0: no limit.
Seconds = Annotated[int, Field(ge=0, le=MAX_SECONDS)]

# Most variables, labels or annotations of one request. A hundred thousand wrong ones are one error, not as many.
MAX_ENTRIES = 100

# Size as JSON, as kubectl prints it. Limited because each list contains those of all sandboxes.
MAX_ENV_BYTES = 32 * 1024
MAX_ANNOTATION_BYTES = 32 * 1024


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > MAX_ENTRIES:
        raise PydanticCustomError("too_many_entries", "It may have at most {most} entries", {"most": MAX_ENTRIES})
    return value


Texts = Annotated[dict[str, str], BeforeValidator(_few), Field(json_schema_extra={"maxProperties": MAX_ENTRIES})]


# A longer name is that of no cluster; this limits what an error repeats.
ClusterName = Annotated[str, StringConstraints(min_length=1, max_length=100)]


def _kib(size: int) -> str:
    return f"{size // 1024} KiB ({size} bytes) of JSON"


# Seconds from the start of a request that waits to its answer, at most.
ANSWER_SECONDS = 25

# Field descriptions that several fields share.
WAIT = f"Seconds to wait until the sandbox can be used. The answer comes within {ANSWER_SECONDS} s in any case."

LOST = (
    "its Pod is `Unknown`, or is still there after the end of its deletion. Processes of it may still run on its node"
)

WaitSeconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ExtraMount(BaseModel):
    """A directory of the node to mount into the sandbox."""

    model_config = ConfigDict(frozen=True)

    host_path: str = Field(
        description="Absolute path on the node, below the operator's directory (`DEER_FLOW_HOST_BASE_DIR`)."
    )
    container_path: str = Field(description="Mount point in the sandbox: one of a few fixed paths.")
    read_only: bool = Field(default=False, description="Mount it read-only.")


class ResourceRequirements(BaseModel):
    """Kubernetes quantities of `cpu`, `memory` and `ephemeral-storage`. A number counts as its text."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    requests: Texts | None = Field(default=None, description="Amounts to reserve, by resource.")
    limits: Texts | None = Field(
        default=None, description="Most to use, by resource; the operator sets an upper bound."
    )


class CreateRequest(BaseModel):
    """The sandbox to create. The operator decides which optional fields a caller may use (`ALLOW_FIELDS`)."""

    model_config = ConfigDict(frozen=True)

    sandbox_id: SandboxId = Field(
        description="Sandbox ID: lower-case letters, digits and `-`, starting and ending with a letter or digit.",
        examples=["abc"],
    )
    thread_id: ThreadId | None = Field(
        default=None, description="Owning thread. Null or absent: the same as `sandbox_id`.", examples=["t-1"]
    )
    user_id: UserId = Field(default="default", description="Owning user.", examples=["u-1"])
    # Limited here, too, so that a million wrong entries are not a million errors.
    extra_mounts: list[ExtraMount] = Field(
        default=[],
        max_length=MAX_EXTRA_MOUNTS,
        description="Directories of the node to mount. 400 if one breaks a rule, or if the operator allows none.",
    )
    skills_container_path: str | None = Field(
        default=None,
        description="Absolute path of the skills in the sandbox. Null or absent: `/mnt/skills`. 400 if it overlaps a "
        "reserved directory.",
        examples=["/mnt/skills"],
    )
    include_legacy_skills: bool = Field(
        default=False, description="Whichever value it has, it shows a DeerFlow that keeps the skills by category."
    )
    provision_lark_cli_runtime: bool = Field(
        default=False, description="Add the Lark CLI, if `lark_cli_init_image` is among the capabilities."
    )
    provision_lark_cli_broker: bool = Field(
        default=False, description="Add the broker of the Lark CLI, if `lark_cli_broker_image` is."
    )
    template: str | None = Field(
        default=None, description="Template name, see `GET /api/templates`. Absent: `default`."
    )
    image: str | None = Field(
        default=None,
        description=f"Container image, `[DOMAIN[:PORT]/]PATH[:TAG][@DIGEST]`, at most {MAX_IMAGE_LENGTH} characters. "
        "Not allowed by default.",
    )
    env: Texts | None = Field(
        default=None,
        description="Environment variables. Values are passed on unchanged: `$(NAME)` is not expanded. Together at "
        f"most {_kib(MAX_ENV_BYTES)}.",
        examples=[{"LANG": "C.UTF-8"}],
    )
    resources: ResourceRequirements | None = Field(
        default=None,
        description="Requests and limits of the container. The template sets the others.",
        examples=[{"limits": {"cpu": "2", "memory": "2Gi"}}],
    )
    labels: Texts | None = Field(
        default=None,
        description="Labels of the Pod and the Service, in Kubernetes' syntax. Kubernetes' own prefixes are refused.",
        examples=[{"team": "search"}],
    )
    annotations: Texts | None = Field(
        default=None,
        description=f"Annotations of the Pod. Together at most {_kib(MAX_ANNOTATION_BYTES)}. Not allowed by default.",
    )
    ttl_seconds: Seconds | None = Field(
        default=None,
        description="Seconds until the sandbox expires; 0: never. Absent: the operator's default.",
        examples=[3600],
    )
    idle_timeout_seconds: Seconds | None = Field(
        default=None,
        description="Seconds without use until the sandbox expires; 0: never. Absent: the operator's default.",
    )
    wait_seconds: WaitSeconds | None = Field(default=None, description=WAIT, examples=[20])
    force: bool | None = Field(
        default=None,
        description=f"Replace a sandbox that is lost: {LOST}. 409 if it is not; without one, like any create. Not "
        "allowed by default.",
        examples=[True],
    )

    cluster: ClusterName | None = Field(
        default=None,
        description="Cluster on which to make the sandbox, see `GET /api/clusters`. An existing one stays where it is. "
        "Only where the operator lists clusters (`CLUSTERS_FILE`). Not allowed by default.",
        examples=["east"],
    )
    cluster_labels: Texts | None = Field(
        default=None,
        description="Labels that the cluster must have, likewise.",
        examples=[{"region": "eu"}],
    )
    on_cluster_loss: Literal["recreate"] | None = Field(
        default=None,
        description="`recreate`: make the sandbox anew if the operator has declared its cluster lost, likewise; "
        "without its data.",
        examples=["recreate"],
    )


class RenewRequest(BaseModel):
    """The new expiry of a sandbox."""

    model_config = ConfigDict(frozen=True)

    ttl_seconds: Seconds = Field(description="Seconds from now until the sandbox expires; 0: never.", examples=[3600])


# Fields of a create that say on which of several clusters the sandbox is to be.
CLUSTER_FIELDS = frozenset({"cluster", "cluster_labels", "on_cluster_loss"})

# Fields of a create request that the operator may forbid; the others are part of the contract.
OPTIONAL_FIELDS = frozenset(
    {
        "template",
        "image",
        "env",
        "resources",
        "labels",
        "annotations",
        "ttl_seconds",
        "idle_timeout_seconds",
        "wait_seconds",
        "force",
        *CLUSTER_FIELDS,
    }
)
