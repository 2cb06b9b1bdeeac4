"""What crosses the REST boundary: the request of a create, and the answers.

Field names, patterns and defaults are the contract with existing callers. Unknown fields are accepted and
ignored, since callers are often newer than this service.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from sandboxes.grammar import DNS_LABEL

# `sandbox-` + id + `-svc` must be a DNS label of at most 63 characters: 63 - 8 - 4 = 51.
MAX_SANDBOX_ID_LENGTH = 51

# \z is the very end in pydantic's engine; $ would let a last newline pass in others.
SANDBOX_ID_PATTERN = rf"^{DNS_LABEL}\z"

MAX_EXTRA_MOUNTS = 10

SandboxId = Annotated[str, StringConstraints(pattern=SANDBOX_ID_PATTERN, max_length=MAX_SANDBOX_ID_LENGTH)]
ThreadId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}\z")]
# The contract knows no longest one. No path is longer (PATH_MAX), and each list of all sandboxes holds it.
MAX_USER_ID_LENGTH = 4096
UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+\z", max_length=MAX_USER_ID_LENGTH)]

# Ten years: longer than any sandbox, and no date past what RFC 3339 can say.
MAX_SECONDS = 10 * 365 * 24 * 3600

# How long something may last, in seconds; 0: for ever.
Seconds = Annotated[int, Field(ge=0, le=MAX_SECONDS)]

# Of variables, labels or annotations in one request; also so that a hundred thousand wrong ones are one error.
MAX_ENTRIES = 100

# As kubectl writes them, in JSON: each list has them of all sandboxes, and must stay short enough to be read.
MAX_ENV_BYTES = 32 * 1024
MAX_ANNOTATION_BYTES = 32 * 1024


def _few(value: object) -> object:
    if isinstance(value, dict) and len(value) > MAX_ENTRIES:
        raise PydanticCustomError("too_many_entries", "It may have at most {most} entries", {"most": MAX_ENTRIES})
    return value


Texts = Annotated[dict[str, str], BeforeValidator(_few), Field(json_schema_extra={"maxProperties": MAX_ENTRIES})]


class ExtraMount(BaseModel):
    """A directory of the node that the caller wants inside the sandbox; the rules are in `mounts.py`."""

    model_config = ConfigDict(frozen=True)

    host_path: str
    container_path: str
    read_only: bool = False


class ResourceAsks(BaseModel):
    """Kubernetes quantities by resource: `cpu`, `memory`, `ephemeral-storage`; a number counts as its text."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    requests: Texts | None = None
    limits: Texts | None = None


class CreateRequest(BaseModel):
    """The body of `POST /api/sandboxes`."""

    model_config = ConfigDict(frozen=True)

    sandbox_id: SandboxId
    thread_id: ThreadId | None = None
    user_id: UserId = "default"
    # The limit stands here, too, so that a list of a million wrong entries is not a million errors.
    extra_mounts: list[ExtraMount] = Field(default=[], max_length=MAX_EXTRA_MOUNTS)
    include_legacy_skills: bool = False
    provision_lark_cli_runtime: bool = False
    provision_lark_cli_broker: bool = False
    # Ours from here on. Which of these a caller may use is the operator's choice (ALLOW_FIELDS).
    template: str | None = None
    image: str | None = None
    env: Texts | None = None
    resources: ResourceAsks | None = None
    labels: Texts | None = None
    annotations: Texts | None = None
    ttl_seconds: Seconds | None = None
    idle_timeout_seconds: Seconds | None = None
    wait_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class RenewRequest(BaseModel):
    """The body of `POST /api/sandboxes/{id}/renew`."""

    model_config = ConfigDict(frozen=True)

    ttl_seconds: Seconds


# Of a create request; the others are the contract's own.
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
    }
)
