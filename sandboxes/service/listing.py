"""Filters and paginates the list of sandboxes, in the order of their ids. Pure.

A cursor holds the last id of the previous page. So it stays valid while sandboxes are created and deleted: pages repeat
no sandbox and skip none that exists throughout.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from sandboxes import objects as kube
from sandboxes.grammar import KEY, LABEL_VALUE, parse_label
from sandboxes.models.requests import ThreadId, UserId
from sandboxes.models.responses import SandboxList, SandboxPage, Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.models.responses import SandboxResponse
    from sandboxes.objects import KubeObject

MAX_LIMIT = 1000

# Version prefix of the cursor's format.
_CURSOR_FORM = "1:"

# `key` or `key=value`, for the OpenAPI document.
_LABEL_SCHEMA = {"type": "string", "pattern": rf"^{KEY}(={LABEL_VALUE})?$"}

# A label's key and its required value; None matches any value.
LabelMatch = tuple[str, str | None]


def _label_match(text: str) -> LabelMatch:
    try:
        return parse_label(text)
    except ValueError as error:
        raise ValueError(f"it should be `key` or `key=value`. {error}") from error


def _position(cursor: str) -> str:
    """Decode a cursor to the id that the page starts after."""
    try:
        text = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("it should be the `next_cursor` of an earlier response") from error
    if not text.startswith(_CURSOR_FORM):
        raise ValueError("it should be the `next_cursor` of an earlier response")
    return text.removeprefix(_CURSOR_FORM)


def _cursor(position: str) -> str:
    return base64.urlsafe_b64encode(f"{_CURSOR_FORM}{position}".encode()).decode()


class ListQuery(BaseModel):
    """Query parameters of `GET /api/sandboxes`. Filters are ANDed; `cursor` is decoded to an id."""

    model_config = ConfigDict(frozen=True)

    status: Status | None = Field(default=None, description="Only sandboxes in this status.", examples=["Running"])
    ready: bool | None = Field(
        default=None, description="Only sandboxes that are ready, or only those that are not.", examples=[True]
    )
    thread_id: ThreadId | None = Field(default=None, description="Only sandboxes of this thread.", examples=["t-1"])
    user_id: UserId | None = Field(default=None, description="Only sandboxes of this user.", examples=["u-1"])
    template: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Only sandboxes of this template.", examples=["default"]
    )
    cluster: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Only sandboxes on this cluster; ignored unless the operator lists clusters (`CLUSTERS_FILE`).",
        examples=["east"],
    )
    label: tuple[Annotated[LabelMatch, BeforeValidator(_label_match), WithJsonSchema(_LABEL_SCHEMA)], ...] = Field(
        default=(),
        description="Only sandboxes whose Pod has this label: `key` or `key=value`. May be repeated.",
        examples=[["team=search"]],
    )
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = Field(
        default=None, description="Page size. With it, the answer has `next_cursor`.", examples=[100]
    )
    cursor: Annotated[str, AfterValidator(_position)] | None = Field(
        default=None, description="The `next_cursor` of the previous page.", examples=["MTphYmM="]
    )

    def fits(self, pod: KubeObject) -> bool:
        """Whether the Pod has all requested labels; a response does not include labels."""
        labels = kube.get_labels(pod)
        return all(key in labels and value in (None, labels[key]) for key, value in self.label)


# Parameters of ListQuery that may be repeated.
REPEATED = frozenset({"label"})

_SAME = ("status", "ready", "thread_id", "user_id", "template")


def select(answers: Sequence[SandboxResponse], query: ListQuery, incomplete: Sequence[str] = ()) -> SandboxList:
    """Return the matching sandboxes; with a limit, one page of them. Ignores labels; see ListQuery.fits.

    `answers` must be sorted by id. `next_cursor` is None on the last page.
    """
    wanted = [(name, value) for name in _SAME if (value := getattr(query, name)) is not None]
    found = list(answers)
    if wanted or query.cursor is not None:
        found = [
            answer
            for answer in answers
            if (query.cursor is None or answer.sandbox_id > query.cursor)
            and all(getattr(answer, name) == value for name, value in wanted)
        ]
    if query.limit is None:
        return SandboxList(sandboxes=found, count=len(found), incomplete=list(incomplete))
    page = found[: query.limit]
    more = len(found) > len(page)
    return SandboxPage(
        sandboxes=page,
        count=len(page),
        incomplete=list(incomplete),
        next_cursor=_cursor(page[-1].sandbox_id) if more else None,
    )
