"""What the gateway itself answers: errors in JSON, as bytes. Pure. Their sentences never contain a token or a path."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from pydantic_core import to_json

from sandboxes.deadlines import DEADLINES


class Failure(NamedTuple):
    """What a kind of failure is answered, and when it happens.

    `statuses`: the first is the usual one; none if it has no answer. `retry_after`: seconds, where it may be tried
    again.
    """

    statuses: tuple[HTTPStatus, ...]
    meaning: str
    retry_after: int | None = None


# Kinds of failures: values of a label of a metric. The reference has this table.
FAILURES = {
    "bad-request": Failure(
        (HTTPStatus.BAD_REQUEST, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED),
        "400: the request is not valid HTTP, or can't be forwarded unambiguously; 405: `CONNECT`; 501: another method "
        "that the gateway does not know",
    ),
    "cross-site": Failure((HTTPStatus.FORBIDDEN,), "a page of another origin has sent a request by the cookie"),
    "not-found": Failure(
        (HTTPStatus.NOT_FOUND,),
        "no sandbox has this URL: the id is unknown, the token is wrong or over, or the sandbox has ended",
    ),
    "slow-head": Failure(
        (HTTPStatus.REQUEST_TIMEOUT,),
        f"the head of the request was not complete within {DEADLINES.gateway_head:g} s; a connection without a byte in "
        "this time is closed without an answer",
    ),
    "too-many": Failure(
        (HTTPStatus.TOO_MANY_REQUESTS,), "the sandbox has `SANDBOX_GATEWAY_MAX_CONNECTIONS` connections", 1
    ),
    "bug": Failure((HTTPStatus.INTERNAL_SERVER_ERROR,), "a bug of the gateway"),
    "refused": Failure((HTTPStatus.BAD_GATEWAY,), "nothing listens on the port: the connection was refused"),
    "unreachable": Failure((HTTPStatus.BAD_GATEWAY,), "the network has no way to the Pod's address"),
    "host-network": Failure((HTTPStatus.BAD_GATEWAY,), "the Pod has `hostNetwork`: its address is its node's"),
    "not-dialled": Failure(
        (HTTPStatus.BAD_GATEWAY,),
        "the address in the Pod's status is one that no Pod has: loopback, link-local, multicast, of a cloud's "
        "metadata, or the gateway's own",
    ),
    "bad-response": Failure((HTTPStatus.BAD_GATEWAY,), "the sandbox sent what is not valid HTTP"),
    "no-response": Failure((HTTPStatus.BAD_GATEWAY,), "the sandbox closed the connection before it sent a response"),
    "not-ready": Failure(
        (HTTPStatus.SERVICE_UNAVAILABLE,),
        "the sandbox is not ready after `SANDBOX_GATEWAY_WAIT` seconds, or has ended; with the reason from the Pod's "
        "status",
        2,
    ),
    "not-usable": Failure(
        (HTTPStatus.SERVICE_UNAVAILABLE,),
        "the [live view](../explanation/performance.md#the-live-view) of the cluster is not complete yet, or too old; "
        "or the gateway is being shut down",
        1,
    ),
    "too-many-in-all": Failure(
        (HTTPStatus.SERVICE_UNAVAILABLE,),
        "the gateway has as many connections as its limit on descriptors allows",
        1,
    ),
    "no-descriptors": Failure((HTTPStatus.SERVICE_UNAVAILABLE,), "the gateway has no descriptors or ports left", 1),
    "dial-timeout": Failure(
        (HTTPStatus.GATEWAY_TIMEOUT,), f"the Pod's address did not answer the dial within {DEADLINES.gateway_dial:g} s"
    ),
    "silence": Failure(
        (HTTPStatus.GATEWAY_TIMEOUT,),
        "no byte came in either direction for `SANDBOX_GATEWAY_SILENCE` seconds; after the response has begun, the "
        "connection is reset",
    ),
    "broken": Failure((), "the sandbox's response broke off, so the caller's connection is reset"),
}


class Refusal(Exception):
    """A request that the gateway answers itself.

    `kind`: of the failure, a word of FAILURES, which has its status, or the `status` that is given; `more`: lines of
    the response's head.
    """

    def __init__(self, kind: str, detail: str, *, status: HTTPStatus | None = None, more: bytes = b"") -> None:
        super().__init__(detail)
        failure = FAILURES[kind]
        self.status = failure.statuses[0] if status is None else status
        self.kind = kind
        self.detail = detail
        self.retry_after = failure.retry_after
        self.more = more


def not_found() -> Refusal:
    """Return the one answer to a wrong token, an unknown id and a URL that is over."""
    return Refusal("not-found", "No sandbox has this URL")


def bad_request(detail: str) -> Refusal:
    """Return the answer to a request that can't be forwarded."""
    return Refusal("bad-request", detail)


def not_dialled(problem: str) -> Refusal:
    """Return the answer to a request for a Pod whose address is never dialled. `problem`: end of a sentence."""
    return Refusal("not-dialled", f"The gateway does not dial the address of this sandbox's Pod: {problem}")


def no_response() -> Refusal:
    """Return the answer to a request whose connection the sandbox closed before it responded."""
    return Refusal("no-response", "The sandbox closed the connection before it sent a response")


def bad_response() -> Refusal:
    """Return the answer to a request whose response is no valid HTTP."""
    return Refusal("bad-response", "The sandbox's response is not valid HTTP")


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
