"""What the gateway itself answers: errors in JSON, as bytes. Pure. Their sentences never contain a token or a path."""

from __future__ import annotations

from http import HTTPStatus

from pydantic_core import to_json


class Refusal(Exception):
    """A request that the gateway answers itself.

    `kind`: of the failure, for metrics; a word of FAILURES. `retry_after`: seconds, or None for no header.
    """

    def __init__(
        self, status: HTTPStatus, kind: str, detail: str, *, retry_after: int | None = None, more: bytes = b""
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.retry_after = retry_after
        self.more = more


# Kinds of failures, and what each means; the values of a label of a metric.
FAILURES = {
    "not-found": "404: no sandbox has this URL, or its token is wrong or over.",
    "not-usable": "503: the live view is not whole yet, or too old.",
    "not-ready": "503: the sandbox did not become ready in time, or has ended.",
    "host-network": "502: the sandbox's Pod is in its node's network.",
    "refused": "502: the sandbox's port refused the connection.",
    "unreachable": "502: the network has no way to the Pod's address.",
    "dial-timeout": "504: the Pod's address did not answer the dial.",
    "no-descriptors": "503: the gateway has no descriptors left.",
    "too-many": "429: the sandbox has as many connections as it may have.",
    "too-many-in-all": "503: the gateway has as many connections as it may have.",
    "cross-site": "403: a page of another origin has sent the request.",
    "bad-request": "400, 405: what the gateway does not understand or forward.",
    "bad-response": "502: the sandbox's response is no valid HTTP.",
    "no-response": "502: the sandbox closed the connection before it responded.",
    "silence": "No byte in either direction for SANDBOX_GATEWAY_SILENCE; 504 before a response.",
    "broken": "The sandbox's response ended in its middle, and so did the caller's.",
    "bug": "500: a bug.",
}


def not_found() -> Refusal:
    """Return the one answer to a wrong token, an unknown id and a URL that is over."""
    return Refusal(HTTPStatus.NOT_FOUND, "not-found", "No sandbox has this URL")


def bad_request(detail: str) -> Refusal:
    """Return the answer to a request that can't be forwarded."""
    return Refusal(HTTPStatus.BAD_REQUEST, "bad-request", detail)


def no_response() -> Refusal:
    """Return the answer to a request whose connection the sandbox closed before it responded."""
    return Refusal(HTTPStatus.BAD_GATEWAY, "no-response", "The sandbox closed the connection before it sent a response")


def bad_response() -> Refusal:
    """Return the answer to a request whose response is no valid HTTP."""
    return Refusal(HTTPStatus.BAD_GATEWAY, "bad-response", "The sandbox's response is not valid HTTP")


def answer_of(refusal: Refusal, *, has_body: bool, keep_alive: bool) -> bytes:
    """Return the response. `has_body`: false for HEAD, whose response has the headers alone."""
    body = to_json({"detail": refusal.detail})
    retry = b"" if refusal.retry_after is None else b"Retry-After: %d\r\n" % refusal.retry_after
    head = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s%s%s%s\r\n" % (
        refusal.status,
        refusal.status.phrase.encode(),
        len(body),
        b"Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n",
        retry,
        refusal.more,
        b"" if keep_alive else b"Connection: close\r\n",
    )
    return head + body if has_body else head
