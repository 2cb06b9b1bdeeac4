"""Lists objects: with selectors, at a version and in pages. Knows the store and the query, but no HTTP."""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from devcluster.errors import bad_request, expired, too_large_version
from devcluster.objects import Json, name_of, namespace_of
from devcluster.queries import ListOptions
from devcluster.resources import Resource
from devcluster.store import Key, Record, Store, compact

_LATEST = -1
"""The version in a token that continues with the current objects."""

_TOO_OLD = "The resourceVersion for the provided list is too old."
_TOKEN_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "  # noqa: S105 - the server's own words
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


@dataclass(frozen=True, slots=True)
class _Token:
    """The start and the version of a list's next page. The version lets all pages show the same state."""

    version: int
    after: Key

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a token. Raises BadRequest."""
        try:
            read = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            namespace, _, name = str(read["start"]).removesuffix("\0").rpartition("/")
            return cls(int(read["rv"]), (namespace, name))
        except (binascii.Error, ValueError, KeyError, TypeError):
            raise bad_request("continue key is not valid") from None

    def __str__(self) -> str:
        start = "/".join(part for part in self.after if part) + "\0"
        text = compact({"v": "meta.k8s.io/v1", "rv": self.version, "start": start})
        return base64.urlsafe_b64encode(text).decode().rstrip("=")


class Listing:
    """Lists of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, resource: Resource, namespace: str, options: ListOptions) -> bytes:
        """Return a list or one of its pages as JSON (`list-mixed`, in the HTTP record). Raises Expired and Timeout."""
        if options.version > self._store.version:
            raise too_large_version(options.version, self._store.version)
        token = _Token.read(options.proceed) if options.proceed else None
        version, records = self._found(resource, namespace, options, token)
        found = [
            record
            for record in records
            if options.matches(record.obj) and (token is None or _key(record) > token.after)
        ]
        page = found[: options.limit or None]
        meta: Json = {"resourceVersion": str(version)}
        rest = len(found) - len(page)
        if rest:
            meta["continue"] = str(_Token(version, _key(page[-1])))
            if options.matcher is None:  # a real server doesn't count with a selector
                meta["remainingItemCount"] = rest
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta}
        items = b",".join(record.item() for record in page)
        return compact(head)[:-1] + b',"items":[' + items + b"]}"

    def _found(
        self, resource: Resource, namespace: str, options: ListOptions, token: _Token | None
    ) -> tuple[int, Sequence[Record]]:
        """Return the version of the list, and the objects at that version."""
        version = options.version if options.exact else _LATEST
        if token is not None:
            version = token.version
        if version == _LATEST:
            return self._store.version, self._store.find(resource, namespace)
        records = self._store.find_at(resource, namespace, version)
        if records is None:
            raise expired(_TOKEN_TOO_OLD, str(_Token(_LATEST, token.after))) if token else expired(_TOO_OLD)
        return version, records


def _key(record: Record) -> Key:
    return namespace_of(record.obj), name_of(record.obj)
