"""The audit log: who asked for what, one entry for each right that a request takes. Answers nothing.

It goes to the logger `devcluster.audit`, at level INFO, and so to nowhere unless somebody listens.
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
    """A request, as it came in. `str` gives it as JSON on one line, with these names.

    `user` is the impersonated user, empty when the caller speaks for itself. `resource` has its subresource
    (`pods/log`), and is empty where the path is no resource's; then `path` is given, and only then.
    """

    user: str
    agent: str
    verb: str
    group: str
    resource: str
    namespace: str
    path: str

    def __str__(self) -> str:
        """Give it as JSON on one line."""
        return json.dumps(asdict(self))


def note(request: kmock.Request, verb: str = "") -> None:
    """Write an entry for a request; `verb` where it takes another right than its method says."""
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
    """Append the entries to a file, too, until the process ends."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
