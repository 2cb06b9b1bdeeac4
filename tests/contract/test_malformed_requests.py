"""Malformed HTTP, over a socket of its own."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        *(
            pytest.param(sent, status, marks=pytest.mark.slow)
            for sent, status in (
                (b"GET /health HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", 400),
                (b"POST /api/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400),
                (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
                (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
                (
                    b"GET /api/sandboxes/"
                    + b"a" * 9_000
                    + b" HTTP/1.1\r\nHost: x\r\nX-API-Key: k3y\r\nConnection: close\r\n\r\n",
                    404,
                ),
            )
        ),
    ],
    ids=["no HTTP", "bad header", "bad length", "too long a line", "long path", "long id"],
)
async def test_malformed_requests_get_a_json_error_and_no_traceback(
    service_url: str, tmp_path: Path, sent: bytes, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service_url.rpartition(":")[2]))
    writer.write(sent)
    async with asyncio.timeout(60):
        answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.split()[1] == str(status)
    assert "Content-Type: application/json" in head
    assert set(json.loads(body)) <= {"detail", "status"}
    assert "Traceback" not in (tmp_path / "log").read_text()
