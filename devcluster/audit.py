"""The audit log: one entry for each right that a request needs. Answers nothing.

Entries go to the logger `devcluster.audit` at level INFO, so by default nowhere.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import kmock

from devcluster.requests import verb_of

LOGGER = "devcluster.audit"

log = logging.getLogger(LOGGER)


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A request. `str` formats it as JSON on one line, with these field names.

    `user`: the impersonated user, empty without impersonation. `resource`: with its subresource (`pods/log`), empty if
    the path has none. `path`: set only if `resource` is empty.
    """

    user: str
    agent: str
    verb: str
    group: str
    resource: str
    namespace: str
    path: str

    def __str__(self) -> str:
        """Format the entry as JSON on one line."""
        return json.dumps(asdict(self))


def note(request: kmock.Request, verb: str = "") -> None:
    """Write an entry for a request. `verb`: the right that it needs, if not the one of its method."""
    if not log.isEnabledFor(logging.INFO):
        return
    asked = request.resource
    plural = "" if asked is None else "/".join(part for part in (asked.plural, request.subresource) if part)
    entry = Entry(
        user=request.headers.get("Impersonate-User", ""),
        agent=request.headers.get("User-Agent", ""),
        verb=verb or verb_of(request),
        group="" if asked is None else asked.group or "",
        resource=plural or "",
        namespace=request.namespace or "",
        path=request.url.path if asked is None else "",
    )
    log.info("%s", entry)


def write_to(path: Path) -> None:
    """Append all further entries to a file."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
