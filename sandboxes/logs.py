"""How the service logs: one event a line, each with the ids of the request that it belongs to, and no secret in it.

Modules log through the standard library; structlog renders their records: as JSON, or for a person at a terminal.
"""

from __future__ import annotations

import contextvars
import logging
import re
import sys
import traceback
from typing import TYPE_CHECKING, Literal, NamedTuple, TextIO

import structlog
from aiohttp.abc import AbstractAccessLogger
from structlog.contextvars import bind_contextvars, clear_contextvars, get_contextvars

from sandboxes import masking
from sandboxes.masking import HIDDEN, Form, forms_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from aiohttp import web
    from structlog.typing import EventDict, Processor

Format = Literal["auto", "json", "console"]

_SERVER_ERROR = 500

# Asked for every few seconds by what watches over the process.
QUIET_PATHS = frozenset({"/health", "/livez", "/readyz", "/metrics"})

INDENT = "    | "


class Source(NamedTuple):
    """What knows secrets: those of all lines, and what else is hidden in the words of other programs.

    These words are not repeated at all while `of_others` returns None.
    """

    of_all: Callable[[], tuple[Form, ...]]
    of_others: Callable[[], tuple[Form, ...] | None]


# What the current request brought and no line may show, in each of its forms.
_SECRETS: contextvars.ContextVar[tuple[Form, ...]] = contextvars.ContextVar("secrets", default=())
# What no line of this process may show, by where it comes from. The log is the process's, and so is this.
SOURCES: dict[str, Source] = {}
# Fields of a line that are words of our own.
_OURS = frozenset({"level", "logger", "timestamp"})
_BEARER = re.compile(r"(?i)(bearer\s+)[^\s\"',;]+")
# In the console's form; JSON escapes by itself.
_UNPRINTABLE = re.compile(r"[^\n\t -~\xa0-\u2027\u202f-\u2065\u206a-\ud7ff\ue000-\ufefe\uff00-\U0010ffff]")
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


def hide_from(
    name: str,
    source: Callable[[], tuple[Form, ...]],
    *,
    of_others: Callable[[], tuple[Form, ...] | None] = lambda: (),
) -> None:
    """Never show from now on what `source` returns, in no line of any logger; it takes the place of its namesake.

    `source` is called for each line: so what it returns may change. It must not log. `of_others`: see Source.
    """
    SOURCES[name] = Source(source, of_others)


def masked(text: str) -> str:
    """Return the text as a line of the log would show it: for what is printed, or cut, and not logged."""
    return _without_bearers(masking.hide(text, *_all_forms()))


def masked_of_others(text: str) -> str | None:
    """Return the words of another program as a line may repeat them; None if it may repeat none."""
    groups = [source.of_others() for source in SOURCES.values()]
    known = [group for group in groups if group is not None]
    if len(known) < len(groups):
        return None
    return _without_bearers(masking.hide(text, *_all_forms(), *known))


def print_masked(text: object, file: TextIO | None = None) -> None:
    """Print a message for a person."""
    print(masked(str(text)), file=file, flush=True)


def show_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Do what Python does with an exception that nothing catches (sys.excepthook), without what no line may show."""
    print_masked("".join(traceback.format_exception(kind, error, trace)).rstrip(), sys.stderr)


def formatter(*, as_json: bool, colors: bool = False, secrets: tuple[str, ...] = ()) -> logging.Formatter:
    """Return what renders records of the standard library, see configure_logging."""
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
    _SECRETS.set(forms_of(secrets))


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
    shared.run(_SECRETS.set, tuple(forms))
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


def _hide_secrets(always: tuple[str, ...]) -> Processor:
    """Return what takes secrets out of all texts of an event, and what follows `Bearer`."""
    known = forms_of(always)

    def hide(_logger: object, _name: str, event: EventDict) -> EventDict:
        texts = {key: value for key, value in event.items() if key not in _OURS and isinstance(value, str)}
        # Once a line, and lines are many, with a secret in hardly any: so they are looked for in all texts at once.
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
    """Leave out what is for the chain itself."""
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _in_one_piece(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Indent what follows a line break, and escape what a terminal would act on: so no value forges a line."""
    for key, value in _without_record(_logger, _name, event).items():
        if isinstance(value, str):
            text = _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], value)
            event[key] = (INDENT if key == "exception" else "") + text.replace("\n", f"\n{INDENT}")
    return event
