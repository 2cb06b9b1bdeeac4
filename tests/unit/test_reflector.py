"""The reflector after each end of a watch: next version, backoff, and log lines."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from sandboxes.cluster import reflector as module
from sandboxes.cluster.cache import ResourceCache
from sandboxes.cluster.reflector import Reflector
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import ClusterUnavailable
from sandboxes.kubectl.process import Completed, OutputTooLarge
from sandboxes.kubectl.raw import Collection, Page, sandboxes_of
from tests.record import case
from tests.waiting import until

PAUSES = (0.001, 0.002, 0.003)
SECONDS, CATCH_UP = 40, 1
QUICK = dataclasses.replace(DEADLINES, watch_pauses=PAUSES, watch_catch_up=CATCH_UP, watch_settled=30.0)
EXPIRED = "Error from server (Expired): too old resource version: 1 (314068)\n"


def pod(version: int, name: str = "a") -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "n", "uid": f"u-{name}", "resourceVersion": str(version)},
    }


def event(kind: str, obj: object) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode()


def error(code: int, reason: str) -> bytes:
    return event("ERROR", {"kind": "Status", "code": code, "reason": reason, "message": "m", "metadata": {}})


BOOKMARK = event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "20"}})


@dataclass
class Watch:
    """A kubectl that prints `lines` and ends after `lasts` seconds of the clock; None: it hangs."""

    lines_: Sequence[bytes | Exception] = ()
    lasts: float | None = SECONDS
    returncode: int = 0
    stderr: str = ""
    unfinished: bytes = b""
    # Called after the last line.
    then: Callable[[], object] = lambda: None
    killed: bool = False
    pass_time: Callable[[float], None] = lambda _: None

    async def lines(self, limit: int) -> AsyncGenerator[bytes]:
        assert limit == module.MAX_LINE_BYTES
        for line in self.lines_:
            if isinstance(line, Exception):
                raise line
            yield line
        self.then()
        if self.lasts is None:
            await asyncio.Event().wait()

    async def ends(self) -> None:
        self.pass_time(self.lasts or 0)

    async def kill(self) -> Completed:
        self.killed = True
        return Completed(self.returncode, b"", self.stderr)


@dataclass
class Scenario:
    """Lists and watches planned by a test; the watch after the last one hangs."""

    lists: list[list[Page | Exception]] = field(default_factory=list)
    watches: list[Watch | OSError] = field(default_factory=list)
    now: float = 1000.0
    listed: int = 0
    paths: list[str] = field(default_factory=list)
    started: list[Watch] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    kubeconfig: str = ""
    seconds: int = SECONDS
    list_lasts: float = 0

    def __post_init__(self) -> None:
        self.cache = ResourceCache(lambda _old, _new: None)
        self.progress = 0
        self.last = Watch(lasts=None)
        self.proven_before: list[bool] = []

    async def pages(self, collection: Collection, *, urgent: bool = False) -> AsyncGenerator[Page]:
        assert collection == sandboxes_of("ns", "Pod")
        assert urgent, "it would wait in the callers' queue"
        self.listed += 1
        self.pass_time(self.list_lasts)
        for page in self.lists.pop(0) if self.lists else [Page([], 10, "")]:
            if isinstance(page, Exception):
                raise page
            yield page

    async def start(self, args: Sequence[str], *, reads: bool) -> Watch:
        assert (args[0], args[1], reads) == ("get", "--raw", False)
        self.paths.append(args[2])
        self.proven_before.append(self.cache.proven_at is not None)
        watch = self.watches.pop(0) if self.watches else self.last
        if isinstance(watch, OSError):
            raise watch
        watch.pass_time = self.pass_time
        self.started.append(watch)
        return watch

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def count(self) -> None:
        self.progress += 1

    @property
    def requested(self) -> list[tuple[int, int]]:
        """Version and timeout in seconds of each requested watch."""
        found = [re.search(r"resourceVersion=(\d+)&.*timeoutSeconds=(\d+)", path) for path in self.paths]
        return [(int(one[1]), int(one[2])) for one in found if one]

    async def run(self, deadlines: Any = QUICK) -> Reflector:
        """Run the reflector through all planned lists and watches."""
        reflector = Reflector(
            self, cast(Any, self), sandboxes_of("ns", "Pod"), self.cache,
            seconds=self.seconds, on_progress=self.count, deadlines=deadlines,
        )  # fmt: skip
        task = asyncio.create_task(reflector.keep())
        try:
            await until(lambda: self.last in self.started or task.done())
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert all(watch.killed for watch in self.started)
        assert not reflector.is_watching
        return reflector


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Scenario:
    caplog.set_level(logging.INFO, module.__name__)
    scenario = Scenario()
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        if seconds in PAUSES:
            scenario.pauses.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", pause)
    monkeypatch.setattr(module, "_now", lambda: scenario.now)
    return scenario


def levels(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.levelname for record in caplog.records if record.name == module.__name__]


async def test_the_next_watch_starts_immediately_after_a_normal_end(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    scenario.watches = [Watch([event("ADDED", pod(11))]), Watch([BOOKMARK])]
    reflector = await scenario.run()
    assert scenario.requested == [(10, SECONDS), (11, SECONDS), (20, SECONDS)]
    assert (scenario.listed, scenario.pauses, levels(caplog), reflector.restarts) == (1, [], [], 0)
    assert scenario.cache.proven_at == scenario.now == 1000 + 2 * SECONDS
    # The list, an event, a bookmark, and two ends.
    assert scenario.progress == 5


@pytest.mark.parametrize(
    "cut",
    [
        Watch([event("ADDED", pod(11))], lasts=SECONDS - 0.1),
        Watch([event("ADDED", pod(11))], 5, 1, case("raw-watch-api-killed").stderr),
        Watch([event("ADDED", pod(11))], 5, 1, "Error from server (TooManyRequests): try again later\n"),
        Watch([event("ADDED", pod(11))], 5, 1, "Error from server (InternalError): no\n"),
        Watch([event("ADDED", pod(11))], 5, -9, ""),
        Watch([event("ADDED", pod(11))], unfinished=b"<html>"),
    ],
    ids=["clean, too early", "the API server is killed", "429", "500", "kubectl is killed", "half a line"],
)  # fmt: skip
async def test_a_short_watch_follows_a_broken_one_and_its_end_confirms_the_cache(
    scenario: Scenario, caplog: pytest.LogCaptureFixture, cut: Watch
) -> None:
    again = Watch([event("MODIFIED", pod(12))], lasts=CATCH_UP)
    again.then = lambda: scenario.proven_before.append(scenario.cache.proven_at is not None)
    scenario.watches = [dataclasses.replace(cut, killed=False), again]
    reflector = await scenario.run()
    assert scenario.requested == [(10, SECONDS), (11, CATCH_UP), (12, SECONDS)]
    # At the first watch, at the short one, after its event, and at the third one.
    assert scenario.proven_before == [True, False, False, True]
    assert (scenario.listed, scenario.pauses, reflector.restarts) == (1, [PAUSES[0]], 1)
    assert levels(caplog) == ["WARNING", "INFO"]
    assert "up to date again" in caplog.messages[-1]


async def test_an_outage_logs_one_warning_and_is_retried_with_backoff(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    # The whole outage is longer than `watch_settled`.
    refused = [Watch([], 20, 1, "Unable to connect to the server: EOF\n") for _ in range(3)]
    scenario.watches = [*refused, OSError("no kubectl"), Watch(lasts=CATCH_UP)]
    reflector = await scenario.run()
    assert scenario.requested == [(10, SECONDS), *[(10, CATCH_UP)] * 4, (10, SECONDS)]
    assert (scenario.listed, scenario.pauses, reflector.restarts) == (1, [*PAUSES, PAUSES[-1]], 4)
    assert levels(caplog) == ["WARNING", "INFO", "INFO", "INFO", "INFO"]


@pytest.mark.parametrize(
    "end",
    [Watch([error(410, "Expired")], 0), Watch([], 0, 1, EXPIRED)],
    ids=["event", "stderr"],
)
async def test_an_expired_version_leads_to_a_new_list_without_a_warning(
    scenario: Scenario, caplog: pytest.LogCaptureFixture, end: Watch
) -> None:
    scenario.lists = [[Page([pod(5)], 10, "")], [Page([pod(25)], 30, "")]]
    scenario.watches = [dataclasses.replace(end, killed=False)]
    reflector = await scenario.run()
    assert scenario.requested == [(10, SECONDS), (30, SECONDS)]
    assert (scenario.listed, scenario.pauses, reflector.restarts) == (2, [PAUSES[0]], 1)
    assert levels(caplog) == ["INFO", "INFO"]
    assert scenario.cache.objects == {"a": pod(25)}


@pytest.mark.parametrize(
    "line",
    [
        b"no JSON",
        b'{"type": "ADDED"}',
        error(500, "InternalError"),
        event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "10"}}),
        OutputTooLarge("a line"),
    ],
    ids=["garbage", "no object", "500", "versions go back", "too long"],
)
async def test_an_invalid_watch_event_leads_to_one_warning_and_a_new_list(
    scenario: Scenario, caplog: pytest.LogCaptureFixture, line: bytes | Exception
) -> None:
    scenario.watches = [Watch([event("ADDED", pod(11)), line], lasts=None)]
    scenario.lists = [[Page([], 10, "")], [Page([], 30, "")]]
    reflector = await scenario.run()
    assert scenario.requested == [(10, SECONDS), (30, SECONDS)]
    assert (scenario.listed, scenario.pauses, reflector.restarts) == (2, [PAUSES[0]], 1)
    assert levels(caplog) == ["WARNING", "INFO"]
    assert not any(record.exc_info for record in caplog.records)


async def test_an_exception_of_a_listener_is_logged_with_traceback_and_relists(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    scenario.watches = [Watch([ZeroDivisionError("a bug")])]
    await scenario.run()
    assert scenario.listed == 2
    assert caplog.records[0].exc_info


async def test_relists_are_retried_with_backoff_while_watches_fail(scenario: Scenario) -> None:
    scenario.watches = [Watch([b"no JSON"]) for _ in range(4)]
    await scenario.run()
    assert (scenario.listed, scenario.pauses) == (5, [*PAUSES, PAUSES[-1]])


async def test_a_settled_watch_resets_backoff_and_warning(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    refused = [Watch([], 0, 1, "Unable to connect to the server: EOF\n") for _ in range(3)]
    scenario.watches = [*refused[:2], Watch(lasts=CATCH_UP), Watch(lasts=SECONDS), refused[2]]
    await scenario.run()
    assert scenario.pauses == [PAUSES[0], PAUSES[1], PAUSES[0]]
    assert levels(caplog) == ["WARNING", "INFO", "INFO", "WARNING"]


async def test_a_hung_watch_is_replaced_by_a_short_one_without_a_log_line(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    scenario.seconds = 0
    scenario.watches = [Watch([event("ADDED", pod(11))], lasts=None), Watch(lasts=CATCH_UP)]
    reflector = await scenario.run(dataclasses.replace(QUICK, watch_silence=0.01))
    assert scenario.requested[:3] == [(10, 0), (11, CATCH_UP), (11, 0)]
    assert scenario.proven_before[:3] == [True, False, True]
    assert (scenario.listed, scenario.pauses, levels(caplog), reflector.restarts) == (1, [], [], 0)


async def test_a_partly_failed_list_is_restarted(scenario: Scenario, caplog: pytest.LogCaptureFixture) -> None:
    failure = ClusterUnavailable("no", detail="the detail")
    scenario.lists = [
        [Page([pod(5)], 10, "more"), failure],
        [failure],
        [Page([pod(5, "b")], 12, "more"), Page([], 12, "")],
    ]
    reflector = await scenario.run()
    assert scenario.requested == [(12, SECONDS)]
    assert set(scenario.cache.objects) == {"b"}
    assert (scenario.listed, scenario.pauses, reflector.restarts) == (3, [PAUSES[0], PAUSES[1]], 0)
    assert levels(caplog) == ["WARNING", "INFO", "INFO"]
    assert "the detail" in caplog.text


async def test_a_failed_list_after_an_expired_version_logs_a_warning(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    scenario.lists = [[Page([], 10, "")], [ClusterUnavailable("no")]]
    scenario.watches = [Watch([error(410, "Expired")], 0)]
    await scenario.run()
    assert levels(caplog) == ["INFO", "WARNING", "INFO"]


async def test_a_list_confirms_the_cache_as_of_its_start(scenario: Scenario) -> None:
    scenario.list_lasts = 7
    await scenario.run()
    assert scenario.now == 1007
    assert scenario.cache.proven_at == 1000


async def test_kubectls_quotes_of_the_kubeconfig_are_not_logged(
    scenario: Scenario, caplog: pytest.LogCaptureFixture
) -> None:
    stderr = case("kubeconfig-user-twice").stderr
    scenario.watches = [Watch([], 0, 1, stderr), Watch(lasts=CATCH_UP)]
    await scenario.run()
    assert "SECRET-ONE" in stderr
    assert "SECRET-ONE" not in caplog.text
    assert levels(caplog) == ["WARNING", "INFO"]
