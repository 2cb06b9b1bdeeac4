"""Bodies of answers for which nothing else needs a model: errors, `/health` and `/readyz`. For the document only.

What is sent is made in `api.py`, of the errors themselves; the tests hold the two together.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Health(BaseModel):
    """The answer of `GET /health`."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """The answer of `GET /readyz`."""

    ready: bool
    checks: dict[str, str]


class Problem(BaseModel):
    """What went wrong."""

    detail: str


class NotFoundProblem(Problem):
    """There is no such sandbox."""

    status: Literal["NotFound"]


class LimitProblem(Problem):
    """`MAX_SANDBOXES` is reached."""

    count: int
    limit: int


class FieldProblem(BaseModel):
    """One thing that is wrong with a request."""

    type: str
    loc: list[str | int]
    msg: str
    input: Any


class InvalidProblem(BaseModel):
    """What is wrong with a request."""

    detail: list[FieldProblem]
