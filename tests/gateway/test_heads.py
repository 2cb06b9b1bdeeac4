"""No header can become two, whatever a parser lets through. Pure."""

from __future__ import annotations

import pytest

from sandboxes.gateway.headers import AS_SENT, Place, request_head, response_head, status_line

PLACE = Place(80, (), b"/s/a/b", b"127.0.0.1", b"gw", b"", b"http", b"/s/a/b", None)


@pytest.mark.parametrize("value", [b"a\r\nX-B: b", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_with_a_line_break_is_refused(value: bytes) -> None:
    headers = ((b"X-A", value),)
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", b"/", headers, PLACE, AS_SENT)
    with pytest.raises(ValueError, match="line break"):
        response_head(status_line(200, b"OK"), headers, PLACE, b"")
    with pytest.raises(ValueError, match="line break"):
        response_head(status_line(200, b"O" + value), (), PLACE, b"")


def test_a_target_with_a_line_break_is_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", b"/\r\nX-A: a", (), PLACE, AS_SENT)
