"""The methods that reach sandboxes, and how the parser's refusal of another one is known from what is not HTTP. Pure.

aiohttp's parser (llhttp) has a fixed table of methods, and stops in the middle of any other one. So none can be let
through without another parser, whose ideas of where a request ends would be others, too.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from sandboxes.gateway.failures import Refusal

if TYPE_CHECKING:
    from aiohttp.http import HttpProcessingError

# Those of llhttp's table that are for HTTP, but for CONNECT. The others there are RTSP's.
_TABLE = (
    "ACL BIND CHECKOUT COPY DELETE GET HEAD LINK LOCK M-SEARCH MERGE MKACTIVITY MKCALENDAR MKCOL MOVE NOTIFY OPTIONS "
    "PATCH POST PROPFIND PROPPATCH PURGE PUT QUERY REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK "
    "UNSUBSCRIBE"
)
METHODS = frozenset(_TABLE.split())

# The parser's complaint of a method, with the request line that it read: a whole and valid one.
_UNKNOWN = re.compile(
    r"(?:Invalid method|Expected space after method)[^\n]*:\n\n  "
    r"b(['\"])[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\1\n"
)


def unknown_method() -> Refusal:
    """Return the answer to a request whose method the gateway does not know (RFC 9110, 9.1)."""
    detail = "The gateway does not know the request's method"
    return Refusal("bad-request", detail, status=HTTPStatus.NOT_IMPLEMENTED)


def is_unknown_method(error: HttpProcessingError) -> bool:
    """Whether the parser refused a request only since its table lacks the method."""
    return _UNKNOWN.search(error.message) is not None
