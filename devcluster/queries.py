"""Parses and validates the query of a list or a watch. Knows no store and no HTTP."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from devcluster.errors import Cause, bad_request, forbidden_field, invalid_options, unsupported
from devcluster.objects import Json
from devcluster.resources import Resource
from devcluster.selectors import Matcher, both, field_matcher, label_matcher

EXACT = "Exact"
NOT_OLDER = "NotOlderThan"
_ANY = ("", "0")
_TRUE = ("true", "1")
_MATCH = "resourceVersionMatch"
_INITIAL = "sendInitialEvents"


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The validated options of a list or a watch."""

    matcher: Matcher | None = None
    limit: int = 0
    proceed: str = ""
    version: int = 0
    """The requested version; 0 for any."""

    exact: bool = False
    """Whether a list must show exactly that version, not a newer one."""

    bookmarks: bool = False
    state_first: bool = False
    """Whether a watch starts with the current state."""

    ends_state: bool = False
    """Whether a bookmark marks the end of that state."""

    seconds: float = 0

    @classmethod
    def read(cls, resource: Resource, query: Mapping[str, str], *, watch_list: bool = True) -> Self:
        """Parse the query. `watch_list`: whether the server supports WatchList. Raises BadRequest and Invalid."""
        version = query.get("resourceVersion", "")
        if version and not version.isdigit():
            raise bad_request(f'resourceVersion: Invalid value: "{version}": strconv.ParseUint: invalid syntax')
        match = query.get(_MATCH, "")
        initial = None if query.get(_INITIAL) is None else query[_INITIAL] in _TRUE
        causes = (_watch_causes if is_watch(query) else _list_causes)(query, watch_list=watch_list)
        if causes:
            raise invalid_options(causes)
        if query.get("continue") and version not in _ANY:
            raise bad_request("specifying resource version is not allowed when using continue")
        limit = _number(query, "limit")
        legacy = initial is None and version in _ANY
        return cls(
            matcher=both(
                label_matcher(query.get("labelSelector", "")), field_matcher(resource, query.get("fieldSelector", ""))
            ),
            limit=0 if version == "0" else limit,  # lists from the cache are not paged
            proceed=query.get("continue", ""),
            version=int(version or "0"),
            exact=match == EXACT or (not match and bool(limit) and version not in _ANY),
            bookmarks=query.get("allowWatchBookmarks") in _TRUE,
            state_first=initial or legacy,
            ends_state=initial or (legacy and watch_list),  # as `raw-watch-without-version`
            seconds=_number(query, "timeoutSeconds"),
        )

    def matches(self, obj: Json) -> bool:
        """Return whether the object matches the selectors."""
        return self.matcher is None or self.matcher(obj)


def is_watch(query: Mapping[str, str]) -> bool:
    """Return whether a read is a watch."""
    return query.get("watch") in _TRUE


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    if not text.isdigit():
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax')
    return int(text)


def _watch_causes(query: Mapping[str, str], *, watch_list: bool) -> list[Cause]:
    match, initial = query.get(_MATCH, ""), _INITIAL in query
    causes = []
    if initial and match != NOT_OLDER:
        causes.append(forbidden_field(_MATCH, f"{_INITIAL} requires setting {_MATCH} to {NOT_OLDER}"))
    if initial and not watch_list:
        text = f"{_INITIAL} is forbidden for watch unless the WatchList feature gate is enabled"
        causes.append(forbidden_field(_INITIAL, text))
    if match and not initial:
        causes.append(forbidden_field(_MATCH, f"{_MATCH} is forbidden for watch unless {_INITIAL} is provided"))
    if match not in ("", NOT_OLDER):
        causes.append(unsupported(_MATCH, match, [NOT_OLDER]))
    if match and query.get("continue"):
        causes.append(forbidden_field(_MATCH, f"{_MATCH} is forbidden when continue is provided"))
    return causes


def _list_causes(query: Mapping[str, str], *, watch_list: bool) -> list[Cause]:  # noqa: ARG001 - a list needs no feature
    match, version = query.get(_MATCH, ""), query.get("resourceVersion", "")
    causes = []
    if match and not version:
        causes.append(forbidden_field(_MATCH, f"{_MATCH} is forbidden unless resourceVersion is provided"))
    if match and query.get("continue"):
        causes.append(forbidden_field(_MATCH, f"{_MATCH} is forbidden when continue is provided"))
    if match not in ("", EXACT, NOT_OLDER):
        causes.append(unsupported(_MATCH, match, [EXACT, NOT_OLDER, ""]))
    if match == EXACT and version == "0":
        causes.append(forbidden_field(_MATCH, f'{_MATCH} "exact" is forbidden for resourceVersion "0"'))
    if _INITIAL in query:
        causes.append(forbidden_field(_INITIAL, f"{_INITIAL} is forbidden for list"))
    return causes
