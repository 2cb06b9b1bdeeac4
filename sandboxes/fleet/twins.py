"""Finds two entries of the file that are one and the same cluster and namespace: both read the same record of names.

API servers may have several addresses, so their addresses do not tell it; the uid of an object does. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.errors import ClusterUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class OneCluster(ClusterUnavailable):
    """The cluster that decides about the sandbox, or the only one that fits, is listed under another name, too."""

    def __init__(self, twins: Mapping[str, str]) -> None:
        name, first = next(iter(twins.items()))
        super().__init__(f"Clusters '{first}' and '{name}' of the list are one cluster and namespace")


def find_twins(names: Iterable[str], uids: Mapping[str, str]) -> dict[str, str]:
    """Return the first of `names` that is the same cluster, by the name of each later one.

    `uids`: of the record of names, by cluster; empty, or none, if it is not known.
    """
    first: dict[str, str] = {}
    twins = {}
    for name in names:
        uid = uids.get(name)
        if uid and first.setdefault(uid, name) != name:
            twins[name] = first[uid]
    return twins


def problem_of(name: str, twins: Mapping[str, str]) -> str | None:
    """Return the sentence for operators about this cluster; None if no other one is the same."""
    if name not in twins:
        return None
    return (
        f"It is the same cluster and namespace as '{twins[name]}': no sandbox is made through it. Set `lost: true` in "
        "the entry of one of them, and then take it out"
    )
