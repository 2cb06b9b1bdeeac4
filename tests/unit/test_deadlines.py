"""The limits of time: which must end before which."""

from __future__ import annotations

import asyncio
import dataclasses
import re

import pytest

from sandboxes.deadlines import DEADLINES, Deadlines, within
from sandboxes.errors import ClusterTimeout
from sandboxes.models.requests import ANSWER_SECONDS
from tests.conftest import ROOT

# What callers give a request (the REST contract), in seconds.
CALLERS_CREATE, CALLERS_DELETE, CALLERS_READ, CALLERS_WAIT = 30, 15, 10, ANSWER_SECONDS

D = DEADLINES


@pytest.mark.parametrize(
    ("sooner", "later"),
    [
        ("a create with its clean-up before its caller", (D.create + D.undo + D.drain, CALLERS_CREATE)),
        ("a delete before its caller", (D.delete + D.drain, CALLERS_DELETE)),
        ("a read before its caller", (D.read + D.drain, CALLERS_READ)),
        ("a wait before its caller", (D.wait, CALLERS_WAIT)),
        ("a diagnosis before a read, kubectl's end included", (D.diagnosis + D.drain, D.read)),
        ("running requests before the process ends", (D.create + D.undo + D.drain, D.shutdown)),
        ("an item of a batch before its create", (D.batch_patience + D.batch_limit, D.create)),
        ("a batch as planned before it is ended", (D.batch, D.batch_limit)),
        ("what is tried alone before its batch is ended", (D.batch_spare, D.batch_limit)),
        ("a call of kubectl before a deletion of ours is forgotten", (D.kubectl_call, D.deletion_expected)),
        ("a create before its rolling back is given up", (D.create, D.settle)),
        ("a look at another's Service before its undo", (D.others_service, D.undo)),
        ("a use is written before the next one must be", (D.use_margin, D.use_interval)),
        ("a use is tried again before the sandbox counts as idle", (D.use_retry, D.use_margin)),
        ("what was found ready is asked again before a probe gives up", (D.ready_believed, D.ready)),
        ("the reaper's wait before a request's", (D.reaper_lock, D.delete)),
        ("a URL's answer before a look gives up on it", (D.url_connect, D.url_answer)),
        ("a comment before a reader is cut off", (D.sse_comment, D.sse_write)),
        ("a watch that catches up ends before a read does", (D.watch_catch_up, D.read)),
        ("kubectl's credential plugin before a watch counts as silent", (D.kubectl_local, D.watch_silence)),
        ("a tick of the pool before its processes are old", (D.pool_tick, D.pool_age)),
        ("a call that needs no cluster before one that does", (D.kubectl_local, D.kubectl_call)),
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
    # How long a sandbox may be asked to live, and what callers are promised.
    assert {name for name, limits in found.items() if limits} == {"requests"}
