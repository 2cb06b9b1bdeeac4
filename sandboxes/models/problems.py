"""Bodies of errors, `/health` and `/readyz`, for the OpenAPI document only; tests compare them with real answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class Health(BaseModel):
    """The process is up."""

    status: Literal["ok"] = Field(description="Always `ok`.")


class Readiness(BaseModel):
    """Whether this replica can do its work."""

    ready: bool = Field(description="Whether every check is `ok`.", examples=[True])
    checks: dict[str, str] = Field(
        description="Result of each check: `ok`, or one sentence that says what is wrong. With `CLUSTERS_FILE`, one "
        "check for each cluster, by its name.",
        examples=[{"serving": "ok", "kubectl": "ok", "api_server": "ok", "rights": "ok", "live_view": "ok"}],
    )


class Problem(BaseModel):
    """An error."""

    detail: str = Field(description="What went wrong, in one sentence.")


class NotFoundProblem(Problem):
    """The sandbox does not exist."""

    status: Literal["NotFound"] = Field(description="Always `NotFound`, for callers that only read the status.")


class LimitProblem(Problem):
    """`MAX_SANDBOXES` is reached."""

    count: int = Field(description="Number of sandboxes.", examples=[100])
    limit: int = Field(description="Most sandboxes allowed.", examples=[100])


class FieldProblem(BaseModel):
    """One error of a request."""

    type: str = Field(description="Error type, as pydantic names it.", examples=["string_type"])
    loc: list[str | int] = Field(
        description="Where: `body` or `query`, then the path to the field.", examples=[["body", "sandbox_id"]]
    )
    msg: str = Field(description="What is wrong, in one sentence.", examples=["Input should be a valid string"])
    input: Any = Field(description="The value that was sent.", examples=[5])


class InvalidProblem(BaseModel):
    """All errors of a request."""

    detail: list[FieldProblem] = Field(description="The errors.")
