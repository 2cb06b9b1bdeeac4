"""The JSON that kubectl prints → Kubernetes objects, as small as they can be kept. Pure; knows no kind of object.

The live view keeps every object for as long as the cluster does, and most of what one says, all say.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

if TYPE_CHECKING:
    from sandboxes.kube import KubeObject

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


def loads_by_items(text: bytes) -> Any:  # noqa: ANN401 - JSON
    """Do what `loads` does, an item of the List at a time: other threads get their turn in between."""
    head = _LIST_HEAD.match(text)
    if head is None:
        return loads(text)
    items = []
    start = end = head.end()
    while True:
        end = text.find(_ITEM_END, start)
        if end < 0:  # cut short
            return loads(text)
        end += len(_ITEM_END)
        items.append(loads(text[start:end]))
        if not text.startswith(_BETWEEN, end):
            return {**loads(text[: head.end()] + text[end:]), "items": items}
        start = end + len(_BETWEEN)


def without_managed_fields(obj: KubeObject) -> KubeObject:
    """Return the object without what only the API server needs, which is half of it.

    kubectl leaves that out of all that it prints, but for the events of a watch (record: watch-pods).
    """
    obj["metadata"].pop("managedFields", None)
    return obj
