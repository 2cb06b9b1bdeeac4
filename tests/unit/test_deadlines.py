"""Relations between the deadlines."""

from __future__ import annotations

import asyncio
import dataclasses
import re

import pytest

from sandboxes.deadlines import DEADLINES, Deadlines, within
from sandboxes.errors import ClusterTimeout
from sandboxes.models.requests import ANSWER_SECONDS
from tests.conftest import ROOT

# Timeouts of callers (the REST contract), in seconds.
CALLERS_CREATE, CALLERS_DELETE, CALLERS_READ, CALLERS_WAIT = 30, 15, 10, ANSWER_SECONDS

D = DEADLINES


@pytest.mark.parametrize(
    ("sooner", "later"),
    [
        ("a create and its cleanup end before the caller's timeout", (D.create + D.undo + D.drain, CALLERS_CREATE)),
        ("a delete ends before the caller's timeout", (D.delete + D.drain, CALLERS_DELETE)),
        ("a read ends before the caller's timeout", (D.read + D.drain, CALLERS_READ)),
        ("a wait ends before the caller's timeout", (D.wait, CALLERS_WAIT)),
        ("a diagnosis and its drain end before a read", (D.diagnosis + D.drain, D.read)),
        ("running requests end before the shutdown", (D.create + D.undo + D.drain, D.shutdown)),
        ("an item of a batch ends before its create", (D.batch_patience + D.batch_limit, D.create)),
        ("the planned duration of a batch is below its limit", (D.batch, D.batch_limit)),
        ("single retries end before their batch", (D.batch_spare, D.batch_limit)),
        ("a kubectl call ends before its deletion is no longer expected", (D.kubectl_call, D.deletion_expected)),
        ("a delete waits less for a rollback than for its own end", (D.marked, D.delete)),
        ("marked objects are deleted before their batch ends", (D.marked, D.batch_limit)),
        ("a create ends before its rollback is abandoned", (D.create, D.settle)),
        ("the wait for another process's Service is shorter than the undo", (D.others_service, D.undo)),
        ("the margin of a use is below its interval", (D.use_margin, D.use_interval)),
        ("a failed use is retried before the sandbox is idle", (D.use_retry, D.use_margin)),
        ("a cached readiness expires before a probe times out", (D.ready_believed, D.ready)),
        ("a list of clusters is answered before a read", (D.clusters_answer, D.read)),
        ("a change of the clusters' file is seen before a refused one is retried", (D.clusters_poll, D.clusters_retry)),
        ("the reaper waits less for a lock than a delete", (D.reaper_lock, D.delete)),
        ("connecting to a URL is shorter than its probe", (D.url_connect, D.url_answer)),
        ("keep-alive comments are sent before a write times out", (D.sse_comment, D.sse_write)),
        ("a catch-up watch ends before a read", (D.watch_catch_up, D.read)),
        ("a credential plugin may take less than a watch's silence", (D.kubectl_local, D.watch_silence)),
        ("the pool checks its processes before they are old", (D.pool_tick, D.pool_age)),
        ("a local kubectl call times out before one to the cluster", (D.kubectl_local, D.kubectl_call)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_deadlines_are_ordered(sooner: str, later: tuple[float, float]) -> None:
    assert later[0] < later[1], sooner


def test_deadlines_are_positive_and_pauses_increase() -> None:
    for name, value in dataclasses.asdict(Deadlines()).items():
        values = value if isinstance(value, tuple) else (value,)
        assert all(one > 0 for one in values), name
        assert list(values) == sorted(values), name


async def test_a_block_that_exceeds_its_deadline_raises_cluster_timeout() -> None:
    with pytest.raises(ClusterTimeout):
        async with within(0.01):
            await asyncio.Event().wait()


def test_every_deadline_is_used() -> None:
    paths = [path for path in (ROOT / "sandboxes").rglob("*.py") if path.name != "deadlines.py"]
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    unread = [
        one.name for one in dataclasses.fields(Deadlines) if not re.search(rf"(?i)deadlines\]?\.{one.name}\b", code)
    ]
    assert unread == []


def test_no_other_module_defines_a_deadline() -> None:
    own = re.compile(r"^_?[A-Z_]*(SECONDS|PAUSES?|TIMEOUT)[A-Z_]* *(:[^=]*)?= *\(?[0-9]", re.MULTILINE)
    found = {path.stem: own.findall(path.read_text(encoding="utf-8")) for path in (ROOT / "sandboxes").rglob("*.py")}
    # Limits of the request fields, and the response time of the contract.
    assert {name for name, limits in found.items() if limits} == {"requests"}
