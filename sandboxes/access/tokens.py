"""Makes and checks the tokens in the URLs of sandboxes. Pure, except for a key file that is read again.

A token is a message authentication code over all that it permits: cluster, namespace, id, the Pod's uid, port, end, and
the generation of the sandbox's URLs. Only port and end, where it has them, are also readable in it. So it needs no
store, every process with the same keys makes and accepts the same one, and it ends with its Pod.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Protocol

    class Keys(Protocol):
        """Secrets: the first signs, all verify."""

        def current(self) -> Sequence[bytes]:
            """Return the keys that are valid now; at least one."""
            ...


# First part of the signed text, so that a later form of tokens can't be taken for this one.
VERSION = "sandbox-url/1"

# Of HMAC-SHA256, whose first bytes may be used alone: 192 bits, and 32 characters of base64url without padding.
MAC_BYTES = 24

# Port and end, where the token has them, and the code. Other modules find tokens in texts by it.
FORM = r"(?!\.\.)(?:([1-9][0-9]{0,4})?\.([1-9][0-9]{0,10})?\.)?([A-Za-z0-9_-]{32})"
_TOKEN = re.compile(FORM, re.ASCII)

MAX_PORT = 65535


class Subject(NamedTuple):
    """The sandbox that a token is for. `uid`: of its Pod; `port`: of its server, where a token names none.

    `generation`: of its URLs: another one makes all earlier tokens invalid.
    """

    cluster: str
    namespace: str
    sandbox_id: str
    uid: str
    port: int
    generation: str


class Grant(NamedTuple):
    """What a token permits: to reach this port until `expires_at` (seconds since 1970); None: as long as the Pod."""

    port: int
    expires_at: int | None


def mint(subject: Subject, keys: Keys, *, port: int | None = None, expires_at: int | None = None) -> str:
    """Return the token for a port of the sandbox, its server's by default, until `expires_at` (seconds since 1970).

    Without these two it is the same in every process with the same keys.
    """
    permitted = Grant(subject.port if port is None else port, expires_at)
    mac = _text_of(_mac(keys.current()[0], subject, permitted))
    if port is None and expires_at is None:
        return mac
    return f"{port or ''}.{expires_at or ''}.{mac}"


def check(token: str, subject: Subject, keys: Keys, now: float) -> Grant | None:
    """Return what the token permits at `now` (seconds since 1970), or None if it is no valid token of the sandbox.

    The time that this takes does not depend on how much of a wrong token is right.
    """
    match = _TOKEN.fullmatch(token)
    if match is None:
        return None
    port, expires_at, given = match.groups()
    permitted = Grant(int(port) if port else subject.port, int(expires_at) if expires_at else None)
    is_valid = False
    for key in keys.current():
        is_valid |= hmac.compare_digest(given, _text_of(_mac(key, subject, permitted)))
    if not is_valid or permitted.port > MAX_PORT:
        return None
    return None if permitted.expires_at is not None and permitted.expires_at <= now else permitted


def is_token(text: str) -> bool:
    """Whether the text has the form of a token; says nothing of its validity."""
    return _TOKEN.fullmatch(text) is not None


def _mac(key: bytes, subject: Subject, permitted: Grant) -> bytes:
    # JSON keeps the parts apart, whatever characters are in them.
    text = json.dumps([VERSION, *subject, *permitted], separators=(",", ":"))
    return hmac.digest(key, text.encode(), hashlib.sha256)[:MAC_BYTES]


def _text_of(mac: bytes) -> str:
    return base64.urlsafe_b64encode(mac).decode()
