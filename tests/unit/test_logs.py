"""The log's lines as written: format, ids, and hidden secrets."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
import sys
from collections.abc import Callable, Iterator

import pytest

from sandboxes import logs
from sandboxes.errors import ProvisionerError
from sandboxes.kubectl.batching import Batcher
from sandboxes.kubectl.stderr import without_values
from sandboxes.masking import forms_of
from sandboxes.settings import Settings
from tests.logs import Log

FORGED = "x\n2026-01-01T00:00:00Z [error] forged\r\x1b[2Jy\u2028z"


@pytest.fixture(autouse=True)
def no_request() -> Iterator[None]:
    yield
    logs.begin_request("-", None)


@pytest.fixture
def log() -> Log:
    return Log(as_json=True)


def test_a_line_is_json_with_timestamp_level_and_logger(log: Log) -> None:
    log.logger.warning("the %s has %d", "cluster", 3)
    (event,) = log.events
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "the cluster has 3", "level": "warning", "logger": "sandboxes.test"}


@pytest.mark.parametrize("text", [FORGED, 'quote " and \\', "\ud800 half a pair", "\u65e5\u672c"])
def test_a_value_cannot_forge_a_json_line(log: Log, text: str) -> None:
    log.logger.info("value: %s", text)
    (event,) = log.events
    assert event["event"] == f"value: {text}"


@pytest.mark.parametrize("colors", [False, True])
def test_a_value_cannot_forge_a_line_on_a_terminal(colors: bool) -> None:
    log = Log(as_json=False, colors=colors)
    log.logger.info("value: %s", FORGED)
    text = log.written.getvalue()
    assert "\r" not in text
    assert "\x1b[2J" not in text
    assert "\u2028" not in text
    first, second = text.removesuffix("\n").split("\n")
    assert "value: x" in first
    assert second.startswith("    | ") or "    | 2026" in second


def test_an_exception_is_part_of_its_event(log: Log) -> None:
    console = Log(as_json=False)
    for each in (log, console):
        each.logger.error("it failed", exc_info=ValueError(FORGED))
    (event,) = log.events
    assert event["event"] == "it failed"
    assert "ValueError: x" in event["exception"]
    first, *rest = console.written.getvalue().removesuffix("\n").split("\n")
    assert "it failed" in first
    assert all(line.startswith("    | ") for line in rest)


async def test_every_line_of_a_request_and_its_tasks_has_its_ids(log: Log) -> None:
    logs.begin_request("r-1", "a")
    log.logger.info("in it")

    async def later() -> None:
        log.logger.info("in a task")

    task = asyncio.create_task(later())
    logs.begin_request("r-2", None)
    log.logger.info("in the next")
    logs.name_sandbox("b")
    log.logger.info("in the next")
    await task
    found = [(one["event"], one["request_id"], one.get("sandbox_id")) for one in log.events]
    assert found == [
        ("in it", "r-1", "a"),
        ("in the next", "r-2", None),
        ("in the next", "r-2", "b"),
        ("in a task", "r-1", "a"),
    ]


async def test_lines_about_a_batch_have_the_ids_of_all_its_requests(
    log: Log,
) -> None:
    go = asyncio.Event()

    async def work(items: list[str]) -> list[str | ProvisionerError]:
        log.logger.info("doing %s", ",".join(items))
        await go.wait()
        log.logger.info("done %s with pass-b", ",".join(items))
        return [*items]

    groups: Batcher[str, str] = Batcher(work, workers=1, most=10, max_waiting=10, least=10)

    async def request(name: str) -> str:
        logs.begin_request(f"r-{name}", name)
        logs.name_sandbox(name, secrets=[f"pass-{name}"])
        return await groups.do(name)

    first = asyncio.create_task(request("a"))
    while not log.lines:
        await asyncio.sleep(0)
    others = [asyncio.create_task(request(name)) for name in ("b", "c")]
    go.set()
    assert await asyncio.gather(first, *others) == ["a", "b", "c"]
    assert {one["event"]: (one["request_id"], one["sandbox_id"]) for one in log.events} == {
        "doing a": ("r-a", "a"),
        "done a with pass-b": ("r-a", "a"),
        "doing b,c": ("r-b,r-c", "b,c"),
        "done b,c with (hidden)": ("r-b,r-c", "b,c"),
    }


def test_secrets_of_a_request_are_hidden_in_every_encoding() -> None:
    secret = 'p"a\\ss\nw\u00f6rd'
    log = Log(as_json=True, secrets=("the-key",))

    def write_lines() -> None:
        logs.name_sandbox("a", secrets=[secret, "abc"])
        log.logger.info("%s | %s | %s | the-key | abc", secret, json.dumps(secret), f"Authorization: Bearer {'t0ken'}")
        log.logger.error("failed", exc_info=ValueError(secret))

    contextvars.copy_context().run(write_lines)
    first, second = log.events
    assert first["event"] == '(hidden) | "(hidden)" | Authorization: Bearer (hidden) | (hidden) | abc'
    assert "(hidden)" in second["exception"]
    log.logger.info("%s", secret)
    assert log.events[-1]["event"] == secret, "secrets of another request are not hidden"


def test_secrets_found_later_are_hidden_from_then_on(log: Log) -> None:
    console = Log(as_json=False)
    known: list[str] = []
    logs.hide_from("a file", lambda: forms_of(known))
    logs.hide_from("another", lambda: forms_of(["another-secret"]))
    for secret in ("the-first", "the-second"):
        known[:] = [secret]
        for each in (log, console):
            each.logger.error("it says %s, another-secret", secret, exc_info=ValueError(f"{secret}\nline"))
    assert [event["event"] for event in log.events] == ["it says (hidden), (hidden)"] * 2
    assert "(hidden)\nline" in log.events[0]["exception"]
    for secret in ("the-first", "the-second"):
        assert secret not in log.written.getvalue() + console.written.getvalue()
    logs.hide_from("a file", lambda: ())
    log.logger.info("the-second")
    assert log.events[-1]["event"] == "the-second"


def test_the_longer_of_two_overlapping_secrets_is_hidden_first(log: Log) -> None:
    """Otherwise the rest of the longer one would remain."""
    logs.hide_from("a file", lambda: forms_of(["secret"]))

    def write_lines() -> None:
        logs.name_sandbox("a", secrets=["top-secret-key"])
        log.logger.info("top-secret-key secret")

    contextvars.copy_context().run(write_lines)
    assert log.events[0]["event"] == "(hidden) (hidden)"


def test_level_and_logger_are_not_hidden(log: Log) -> None:
    logs.hide_from("a file", lambda: forms_of(["info", "sandboxes.test"]))
    log.logger.info("info")
    (event,) = log.events
    assert (event["level"], event["logger"], event["event"]) == ("info", "sandboxes.test", "(hidden)")


def test_print_masked_hides_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    logs.hide_from("a file", lambda: forms_of(["the-secret"]))
    logs.print_masked("the-secret, Bearer t0ken")
    logs.print_masked(ValueError("the-secret"), sys.stderr)
    assert capsys.readouterr() == ("(hidden), Bearer (hidden)\n", "(hidden)\n")


def test_an_uncaught_exception_shows_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    logs.hide_from("a file", lambda: forms_of(["the-secret"]))
    try:
        try:
            raise KeyError("the-secret")  # noqa: TRY301 - the chain is under test
        except KeyError as error:
            raise ValueError("it holds the-secret") from error
    except ValueError as error:
        logs.show_uncaught(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):\n")
    assert "KeyError: '(hidden)'" in said
    assert said.endswith("ValueError: it holds (hidden)\n")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ('-  "Name": "A",\n-  "Value": "s3cret",', '-  "Name": "A",\n-  "Value": "(hidden)",'),
        ('{"name": "A", "value": "s\\"3cret"}', '{"name": "A", "value": "(hidden)"}'),
        ('"value": "cut of', '"value": "(hidden)"'),
        (
            'A"].value: expected string, got &value.valueUnstructured{Value:31337}\n  .spec.x: unknown',
            'A"].value: expected string, got &value.valueUnstructured{Value:(hidden)}\n  .spec.x: unknown',
        ),
        (
            "{Value:map[string]interface {}{}} valueUnstructured{Value:map[a:{s3cret}]}",
            "{Value:map[string]interface {}{}} valueUnstructured{Value:(hidden)}",
        ),
    ],
)
def test_values_of_variables_are_removed_from_kubectls_output(said: str, shown: str) -> None:
    assert without_values(said) == shown


@pytest.mark.parametrize(
    ("log_format", "is_terminal", "is_json"),
    [("auto", False, True), ("auto", True, False), ("json", True, True), ("console", False, False)],
)
def test_the_log_format_defaults_to_console_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
    make_settings: Callable[..., Settings],
    log_format: str,
    is_terminal: bool,
    is_json: bool,
) -> None:
    for name in ("logThreads", "logProcesses", "logMultiprocessing"):
        monkeypatch.setattr(logging, name, True)  # restored at the end
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: is_terminal)
    monkeypatch.setattr(sys, "stderr", stderr)
    try:
        logs.configure_logging("INFO", make_settings(LOG_FORMAT=log_format.upper()).log_format)
        logging.getLogger("sandboxes.x").info("said")
        logging.getLogger("sandboxes.x").debug("not said")
    finally:
        root.handlers = handlers
        root.setLevel(level)
    (line,) = stderr.getvalue().splitlines()
    assert line.startswith("{") is is_json
    assert ("\x1b[" in line) is (is_terminal and not is_json)
