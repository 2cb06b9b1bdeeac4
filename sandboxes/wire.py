"""The JSON that kubectl prints → Kubernetes objects, as small as they can be kept. Pure; knows no kind of object.

The live view keeps every object for as long as the cluster does, and most of what one says, all say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.objects import KubeObject

# How kubectl prints a List: indented by four spaces a level. No string holds a line feed as it stands, so a line of
# eight spaces and a brace can only be the end of an item.
_LIST_HEAD = re.compile(rb'\s*\{\s*"apiVersion": "v1",\s*"items": \[\n(?=        \{\n)')
_ITEM_END = b"\n        }"
_BETWEEN = b",\n"


def loads(text: bytes) -> Any:  # noqa: ANN401 - JSON
    """Return what JSON says; equal strings are one (of 63 bytes at most, and of the 16,384 last ones at most).

    So a Pod is 10 KB in memory, and not 20 (tests/unit/test_wire.py). Raises ValueError.
    """
    return from_json(text, cache_strings="all")


def loads_by_items(text: bytes, held: Callable[[Any], Any] = lambda item: item) -> Any:  # noqa: ANN401 - JSON
    """Do what `loads` does, an item of the List at a time: other threads get their turn in between.

    In the place of each item stands what `held` returns for it, but for a List that is printed otherwise.
    """
    spans = item_spans(text)
    if not spans:
        return loads(text)
    items = [held(loads(text[start:end])) for start, end in spans]
    return {**loads(text[: spans[0][0]] + text[spans[-1][1] :]), "items": items}


def item_spans(text: bytes) -> list[tuple[int, int]]:
    """Return where each item of a List begins and ends; none if it has none, is cut short, or is printed otherwise."""
    head = _LIST_HEAD.match(text)
    spans: list[tuple[int, int]] = []
    start = None if head is None else head.end()
    while start is not None:
        brace = text.find(_ITEM_END, start)
        if brace < 0:
            return []
        end = brace + len(_ITEM_END)
        spans.append((start, end))
        start = end + len(_BETWEEN) if text.startswith(_BETWEEN, end) else None
    return spans


def without_managed_fields(obj: KubeObject) -> KubeObject:
    """Return the object without what only the API server needs, which is half of it.

    kubectl leaves that out of all that it prints, but for the events of a watch (record: watch-pods).
    """
    obj["metadata"].pop("managedFields", None)
    return obj
