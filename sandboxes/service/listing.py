"""Which sandboxes a list shows: filters, and pages in the order of the ids. Pure.

A cursor is the last id that its reader has seen, and a page is what comes after it. So it stays valid whatever is
created or deleted meanwhile: nothing is told twice, and nothing is left out that was there all the time.
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

# Says how the rest is to be read, so that a later form can be told from this one.
_CURSOR_FORM = "1:"

# `key` or `key=value`, for the API's document.
_LABEL_SCHEMA = {"type": "string", "pattern": rf"^{KEY}(={LABEL_VALUE})?$"}

# A label's key, and the value that it must have; None: any.
LabelMatch = tuple[str, str | None]


def _label_match(text: str) -> LabelMatch:
    try:
        return parse_label(text)
    except ValueError as error:
        raise ValueError(f"it should be `key` or `key=value`. {error}") from error


def _position(cursor: str) -> str:
    """Return the id after which the page begins."""
    try:
        text = base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("it should be a `next_cursor` as it was answered") from error
    if not text.startswith(_CURSOR_FORM):
        raise ValueError("it should be a `next_cursor` as it was answered")
    return text.removeprefix(_CURSOR_FORM)


def _cursor(position: str) -> str:
    return base64.urlsafe_b64encode(f"{_CURSOR_FORM}{position}".encode()).decode()


class ListQuery(BaseModel):
    """The query of `GET /api/sandboxes`. Each filter that is set must fit; `cursor` holds the id it stands for."""

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
        """Whether the Pod has the labels that are asked for; an answer doesn't tell them."""
        labels = kube.get_labels(pod)
        return all(key in labels and value in (None, labels[key]) for key, value in self.label)


# Of ListQuery.
REPEATED = frozenset({"label"})

_SAME = ("status", "ready", "thread_id", "user_id", "template")


def select(answers: Sequence[SandboxResponse], query: ListQuery) -> SandboxList:
    """Return those that fit, but for labels, see ListQuery.fits; with a limit, one page of them.

    `answers` are sorted by id. A page's `next_cursor` is None where nothing comes after it.
    """
    wanted = [(name, value) for name in _SAME if (value := getattr(query, name)) is not None]
    found = [
        answer
        for answer in answers
        if (query.cursor is None or answer.sandbox_id > query.cursor)
        and all(getattr(answer, name) == value for name, value in wanted)
    ]
    if query.limit is None:
        return SandboxList(sandboxes=found, count=len(found))
    page = found[: query.limit]
    more = len(found) > len(page)
    return SandboxPage(sandboxes=page, count=len(page), next_cursor=_cursor(page[-1].sandbox_id) if more else None)
