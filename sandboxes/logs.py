"""Configures logging: one event per line, with the ids of its request, and with secrets masked.

Modules log through the standard library; structlog renders the records, as JSON or for a terminal.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import re
import sys
import traceback
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO

import structlog
from aiohttp.abc import AbstractAccessLogger
from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars

from sandboxes import masking
from sandboxes.masking import HIDDEN, Form, forms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from aiohttp import web
    from structlog.typing import EventDict, Processor

Format = Literal["auto", "json", "console"]

_SERVER_ERROR = 500

# Probes and scrapers request these every few seconds.
QUIET_PATHS = frozenset({"/health", "/livez", "/readyz", "/metrics"})

INDENT = "    | "


class Source(NamedTuple):
    """Supplies secrets to mask: `of_all` in every line, `of_others` also in the output of other programs.

    While `of_others` returns None, that output is not logged at all.
    """

    of_all: Callable[[], tuple[Form, ...]]
    of_others: Callable[[], tuple[Form, ...] | None]


# Secrets of the current request, in each of their encodings.
_SECRETS: contextvars.ContextVar[tuple[Form, ...]] = contextvars.ContextVar("secrets", default=())
# Secrets of this process, by source. Global, like the logging configuration itself.
SOURCES: dict[str, Source] = {}
# Fields that logging itself sets; they hold no secrets.
_OURS = frozenset({"level", "logger", "timestamp"})
_BEARER = re.compile(r"(?i)(bearer\s+)[^\s\"',;]+")
# Escaped on a terminal; JSON escapes them itself.
_UNPRINTABLE = re.compile(r"[^\n\t -~\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\U0010ffff]")
_FIELDS = ("method", "path", "status", "duration_ms")


def configure_logging(level: str, log_format: Format = "auto", *, secrets: Iterable[str] = ()) -> None:
    """Log to stderr at `level` and mask `secrets`; `auto` means `console` on a terminal, else `json`."""
    is_terminal = sys.stderr.isatty()
    handler = logging.StreamHandler()
    as_json = log_format == "json" or (log_format == "auto" and not is_terminal)
    handler.setFormatter(formatter(as_json=as_json, colors=is_terminal, secrets=tuple(secrets)))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # Not shown, and collecting them costs time per record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def hide_from(
    name: str,
    source: Callable[[], tuple[Form, ...]],
    *,
    of_others: Callable[[], tuple[Form, ...] | None] = lambda: (),
) -> None:
    """Mask the secrets that `source` returns in all loggers; replaces an earlier source of this name.

    `source` is called for each line, so its result may change. It must not log. `of_others`: see Source.
    """
    SOURCES[name] = Source(source, of_others)


def masked(text: str) -> str:
    """Return the text masked as in the log; use it before text is printed or truncated."""
    return _without_bearers(masking.hide(text, *_all_forms()))


def masked_of_others(text: str) -> str | None:
    """Return the output of another program, masked; None if it must not be logged."""
    groups = [source.of_others() for source in SOURCES.values()]
    known = [group for group in groups if group is not None]
    if len(known) < len(groups):
        return None
    return _without_bearers(masking.hide(text, *_all_forms(), *known))


def print_masked(text: object, file: TextIO | None = None) -> None:
    """Print a message with its secrets masked."""
    print(masked(str(text)), file=file, flush=True)


def show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught exception with its secrets masked; a replacement for sys.excepthook."""
    print_masked("".join(traceback.format_exception(kind, error, trace)).rstrip(), sys.stderr)


def formatter(*, as_json: bool, colors: bool = False, secrets: tuple[str, ...] = ()) -> logging.Formatter:
    """Return the formatter for records of the standard library; see configure_logging."""
    rendering: list[Processor] = (
        [_without_record, structlog.processors.JSONRenderer(default=repr)]
        if as_json
        else [
            _in_one_piece,
            structlog.dev.ConsoleRenderer(
                colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            ),
        ]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(_FIELDS),
            structlog.contextvars.merge_contextvars,
        ],
        processors=[
            structlog.processors.format_exc_info,
            structlog.processors.StackInfoRenderer(),
            _hide_secrets(secrets),
            *rendering,
        ],
    )


def begin_request(request_id: str, sandbox_id: str | None) -> None:
    """Bind the ids to all log lines of this context and of tasks started in it; clears those of another request."""
    clear_contextvars()
    _SECRETS.set(())
    if sandbox_id is None:
        bind_contextvars(request_id=request_id)
    else:
        bind_contextvars(request_id=request_id, sandbox_id=sandbox_id)


def name_sandbox(sandbox_id: str, *, secrets: Iterable[str] = ()) -> None:
    """Bind the sandbox's id to all log lines of this context, and mask `secrets` in them."""
    bind_contextvars(sandbox_id=sandbox_id)
    _SECRETS.set(forms_of(secrets))


def name_cluster(name: str) -> None:
    """Bind a cluster's name to all log lines of this context and of tasks started in it."""
    bind_contextvars(cluster=name)


@contextlib.contextmanager
def in_cluster(name: str) -> Iterator[None]:
    """Bind a cluster's name to the log lines of the block; tasks that are started in it keep the name."""
    with bound_contextvars(cluster=name):
        yield


def shared_context(contexts: Sequence[contextvars.Context]) -> contextvars.Context:
    """Return a context for work of several requests: its log lines have all their ids, separated by commas."""
    shared = contexts[0].copy()
    if len(contexts) == 1:
        return shared
    bound = [one.copy().run(get_contextvars) for one in contexts]
    ids = {
        name: ",".join(dict.fromkeys(str(each[name]) for each in bound if name in each))
        for name in ("request_id", "sandbox_id")
    }
    shared.run(bind_contextvars, **{name: text for name, text in ids.items() if text})
    forms = {form for one in contexts for form in one.get(_SECRETS, ())}
    shared.run(_SECRETS.set, tuple(forms))
    return shared


class AccessLogger(AbstractAccessLogger):
    """Logs one line per request: at ERROR for 5xx, else INFO; QUIET_PATHS at DEBUG."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log the request; `time` is in seconds."""
        if request.path in QUIET_PATHS:
            level = logging.DEBUG
        else:
            level = logging.ERROR if response.status >= _SERVER_ERROR else logging.INFO
        if self.logger.isEnabledFor(level):
            # The raw, percent-encoded path: a decoded one may contain line breaks, which forge log lines.
            path = request.rel_url.raw_path
            values = (request.method, path, response.status, round(time * 1000))
            fields = dict(zip(_FIELDS, values, strict=True))
            self.logger.log(level, "%s %s %s %d %d ms", request.remote, *values, extra=fields)
        # The connection's next log line belongs to another request.
        clear_contextvars()


def _hide_secrets(always: tuple[str, ...]) -> Processor:
    """Return a processor that masks secrets and bearer tokens in all strings of an event."""
    known = forms_of(always)

    def hide(_logger: object, _name: str, event: EventDict) -> EventDict:
        texts = {key: value for key, value in event.items() if key not in _OURS and isinstance(value, str)}
        # Few lines contain a secret, so all strings are searched at once.
        found = masking.found_in("\0".join(texts.values()), known, *_all_forms())
        for key, value in texts.items():
            text = value
            for form in found:
                text = form.hide_in(text)
            event[key] = _without_bearers(text)
        return event

    return hide


def _all_forms() -> Iterator[tuple[Form, ...]]:
    yield _SECRETS.get()
    for source in SOURCES.values():
        yield source.of_all()


def _without_bearers(text: str) -> str:
    return _BEARER.sub(rf"\1{HIDDEN}", text) if "earer" in text or "EARER" in text else text


def _without_record(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Remove the keys that structlog adds for its own use."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _in_one_piece(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Indent continuation lines and escape control characters, so that no value can forge a line."""
    for key, value in _without_record(_logger, _name, event).items():
        if isinstance(value, str):
            text = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], value)
            event[key] = (INDENT if key == "exception" else "") + text.replace("\n", f"\n{INDENT}")
    return event
