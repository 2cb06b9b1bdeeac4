"""How the service logs: one event a line, each with the ids of the request that it belongs to, and no secret in it.

Modules log through the standard library; structlog renders their records: as JSON, or for a person at a terminal.
"""

from __future__ import annotations

import contextvars
import datetime
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, Literal

import structlog
from aiohttp.abc import AbstractAccessLogger
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiohttp import web
    from structlog.typing import EventDict, Processor

Format = Literal["auto", "json", "console"]

_SERVER_ERROR = 500

# Asked for every few seconds by what watches over the process.
QUIET_PATHS = frozenset({"/health", "/livez", "/readyz", "/metrics"})

HIDDEN = "(hidden)"
INDENT = "    | "

# A shorter value is no secret, and would be found in half of all words.
LEAST_SECRET = 4

# What the current request brought and no line may show, in each of its forms.
_SECRETS: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("secrets", default=())
_BEARER = re.compile(r"(?i)(bearer\s+)[^\s\"',;]+")
# In the console's form; JSON escapes by itself.
_UNPRINTABLE = re.compile(r"[^\n\t -~\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\U0010ffff]")
_ENCODER = json.JSONEncoder(default=repr)
_FIELDS = ("method", "path", "status", "duration_ms")


def configure_logging(level: str, log_format: Format = "auto", *, secrets: Iterable[str] = ()) -> None:
    """Log to stderr from `level` on, and never show `secrets`; `auto`: the console's form on a terminal, else JSON."""
    is_terminal = sys.stderr.isatty()
    handler = logging.StreamHandler()
    as_json = log_format == "json" or (log_format == "auto" and not is_terminal)
    handler.setFormatter(formatter(as_json=as_json, colors=is_terminal, secrets=tuple(secrets)))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    # No line shows these, and to find them out takes time for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def formatter(*, as_json: bool, colors: bool = False, secrets: tuple[str, ...] = ()) -> logging.Formatter:
    """Return what renders records of the standard library, see configure_logging."""
    if as_json:
        return _JsonLines(_hide_secrets(secrets))
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.contextvars.merge_contextvars,
        ],
        processors=[
            structlog.processors.format_exc_info,
            _hide_secrets(secrets),
            _in_one_piece,
            structlog.dev.ConsoleRenderer(
                colors=colors, pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
            ),
        ],
    )


def begin_request(request_id: str, sandbox_id: str | None) -> None:
    """Have every line from here on, also of tasks that are started, carry the ids; forget those of another request."""
    clear_contextvars()
    _SECRETS.set(())
    if sandbox_id is None:
        bind_contextvars(request_id=request_id)
    else:
        bind_contextvars(request_id=request_id, sandbox_id=sandbox_id)


def name_sandbox(sandbox_id: str, *, secrets: Iterable[str] = ()) -> None:
    """Have every line from here on carry the sandbox's id, and none of them the secrets."""
    bind_contextvars(sandbox_id=sandbox_id)
    _SECRETS.set(_forms_of(secrets))


def shared_context(contexts: Sequence[contextvars.Context]) -> contextvars.Context:
    """Return a context for work on behalf of several requests: its lines carry all their ids, separated by commas."""
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
    shared.run(_SECRETS.set, tuple(sorted(forms, key=len, reverse=True)))
    return shared


class AccessLogger(AbstractAccessLogger):
    """One line a request: ERROR for 5xx, else INFO; what is asked for all the time only at DEBUG."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Log the request; `time` is in seconds."""
        if request.path in QUIET_PATHS:
            level = logging.DEBUG
        else:
            level = logging.ERROR if response.status >= _SERVER_ERROR else logging.INFO
        if self.logger.isEnabledFor(level):
            # The path as it came, percent-encoded: a decoded one could hold line breaks and forge lines of the log.
            path = request.rel_url.raw_path
            values = (request.method, path, response.status, round(time * 1000))
            fields = dict(zip(_FIELDS, values, strict=True))
            self.logger.log(level, "%s %s %s %d %d ms", request.remote, *values, extra=fields)
        # What the connection says next is another request's.
        clear_contextvars()


class _JsonLines(logging.Formatter):
    """A record as one line of JSON: what structlog's chain of processors would say, in half the time.

    Each read that is answered from the live view is logged, and takes hardly longer than its line.
    """

    def __init__(self, hide: Processor) -> None:
        super().__init__()
        self._hide = hide

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC).replace(tzinfo=None)
        event: EventDict = {
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": f"{moment.isoformat(timespec='microseconds')}Z",
            **get_contextvars(),
        }
        fields = record.__dict__
        event.update((name, fields[name]) for name in _FIELDS if name in fields)
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            event["stack"] = record.stack_info
        return _ENCODER.encode(self._hide(None, "", event))


def _hide_secrets(always: tuple[str, ...]) -> Processor:
    """Return what takes secrets out of all texts of an event, and what follows `Bearer`."""
    known = _forms_of(always)

    def hide(_logger: object, _name: str, event: EventDict) -> EventDict:
        # Once a line, and lines are many: so the forms are known before.
        forms = known + _SECRETS.get()
        for key, value in event.items():
            if isinstance(value, str):
                text = value
                for form in forms:
                    if form in text:
                        text = text.replace(form, HIDDEN)
                if "earer" in text or "EARER" in text:
                    text = _BEARER.sub(rf"\1{HIDDEN}", text)
                event[key] = text
        return event

    return hide


def _forms_of(secrets: Iterable[str]) -> tuple[str, ...]:
    """Return what stands for the secrets in a text, the longest first: as they are, and as kubectl quotes them."""
    forms = {
        form
        for secret in secrets
        if len(secret) >= LEAST_SECRET
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    }
    return tuple(sorted(forms, key=len, reverse=True))


def _in_one_piece(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Indent what follows a line break, and escape what a terminal would act on: so no value forges a line."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    for key, value in event.items():
        if isinstance(value, str):
            text = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], value)
            event[key] = (INDENT if key == "exception" else "") + text.replace("\n", f"\n{INDENT}")
    return event
