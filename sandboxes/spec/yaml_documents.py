"""Reads YAML and JSON files as kubectl does. Pure; knows no Kubernetes objects.

PyYAML's loaders read other values than kubectl: base 60, dates, `y` and `n`, octal numbers, merge keys, keys that are
not text. So this module uses only the events of PyYAML's parser, with the rules of go-yaml v2 and sigs.k8s.io/yaml. A
contract test compares it with a real kubectl. What kubectl would change or drop silently (custom tags, bytes that
are not UTF-8, content after `...`) is an error here.

No message quotes the file, which may contain a secret.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

import yaml

from sandboxes.spec.yaml_scalars import MAP, MERGE, SEQ, UnreadableError, as_json_number, key_of, scalar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
# Keys and indexes, from the root of a document.
Where: TypeAlias = tuple[str | int, ...]

# The API server's limit on a request.
MAX_BYTES = 3 * 2**20
# In one document, with its aliases expanded.
MAX_VALUES = 100_000
MAX_DEPTH = 100

_PARSER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_QUOTED = re.compile(r"(['\"])(.*?)\1", re.DOTALL)
_SURROGATE = re.compile("[\ud800-\udfff]")


class Document(NamedTuple):
    """One document of a file; `lines`: the line of each key and list item. It is empty for JSON.

    `repeated`: keys that stand again in their mapping, each with its later line. The last one counts, as for kubectl.
    """

    value: Json
    lines: Mapping[Where, int]
    repeated: tuple[tuple[Where, int], ...] = ()

    def line_of(self, where: Where) -> int | None:
        """Return the line of a field, else of what is around it; None if that is unknown."""
        found = (self.lines.get(where[:size]) for size in range(len(where), 0, -1))
        return next((line for line in found if line is not None), None)


def read_documents(content: bytes) -> list[Document]:
    """Return the documents of a YAML or JSON file but the empty ones. Raises UnreadableError."""
    if len(content) > MAX_BYTES:
        raise UnreadableError(f"it has more than {MAX_BYTES} bytes")
    documents = [document for text, line in _parts(_decoded(content)) for document in _read(text, line)]
    return [document for document in documents if document.value is not None]


def _decoded(content: bytes) -> str:
    is_utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if is_utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = None if is_utf16 else content.count(b"\n", 0, error.start) + 1
        raise UnreadableError(f"it is not {'UTF-16' if is_utf16 else 'UTF-8'}", line) from error


def _parts(text: str) -> Iterator[tuple[str, int]]:
    """Split at the lines `---`, as kubectl does before it parses; yield each part and the number of lines before it."""
    part: list[str] = []
    start = 0
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines):
        if line.startswith("---"):
            more = line[3:].strip()
            if more and not more.startswith("#"):
                raise UnreadableError("it has more than a comment after `---`", number + 1)
            if part:
                yield "".join(part), start
                part = []
            start = number + 1
        else:
            part.append(f"{line}\n")  # also where the file's last line has no end
    yield "".join(part), start


def _read(text: str, line: int) -> list[Document]:
    if text.lstrip().startswith("{"):
        try:
            return [Document(value, {}) for value in _json_values(text)]
        except (ValueError, RecursionError):  # kubectl, too, tries YAML then
            pass
    document = _Builder(line).build(text)
    return [document] if document else []


def _json_values(text: str) -> Iterator[Json]:
    """Yield the JSON values that follow each other; raises ValueError if it isn't JSON, or UnreadableError."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_json_integer)
    position = 0
    while rest := text[position:].lstrip():
        value, position = decoder.raw_decode(text, len(text) - len(rest))
        yield _copied(value, _Budget())


def _refuse_constant(text: str) -> float:
    raise ValueError(text)


def _json_integer(text: str) -> float:
    return int(text) if len(text) < 20 else float(text)  # noqa: PLR2004 - an int64 has at most 19 digits


class _Budget:
    """The number of values that a document may still contain."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def take(self, depth: int, line: int | None = None) -> None:
        self._left -= 1
        if self._left < 0:
            raise UnreadableError(f"it has more than {MAX_VALUES} values, counting each use of an alias", line)
        if depth > MAX_DEPTH:
            raise UnreadableError(f"it is nested more than {MAX_DEPTH} levels deep", line)


def _copied(value: object, budget: _Budget, depth: int = 0, line: int | None = None) -> Json:
    """Copy a value in which objects may be shared, so that a change of one use doesn't change the others."""
    budget.take(depth, line)
    if isinstance(value, dict):
        return {_text(key): _copied(one, budget, depth + 1, line) for key, one in value.items()}
    if isinstance(value, list):
        return [_copied(one, budget, depth + 1, line) for one in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return as_json_number(value, line)
    return _text(value) if isinstance(value, str) else cast("Json", value)


def _text(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)  # as Go's JSON decoder does


class _Open:
    """A collection that has begun."""

    def __init__(self, value: list[Json] | dict[str, Json], where: Where, anchor: str | None) -> None:
        self.value = value
        self.where = where
        self.anchor = anchor
        # Of a mapping: the key whose value comes next.
        self.key: str | None = None
        self.is_merge = False
        # The keys that stand in it, without those that a merge has brought.
        self.keys: set[str] = set()

    @property
    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None and not self.is_merge

    def place(self) -> Where:
        """Return where the next value will be."""
        if isinstance(self.value, list):
            return (*self.where, len(self.value))
        return self.where if self.key is None else (*self.where, self.key)

    def add(self, value: Json, line: int) -> None:
        if isinstance(self.value, list):
            self.value.append(value)
        elif self.key is not None:
            self.value[self.key] = value
        else:
            self._merge(value, line)
        self.key, self.is_merge = None, False

    def _merge(self, value: Json, line: int) -> None:
        assert isinstance(self.value, dict)  # noqa: S101 - a list has no keys
        # In go-yaml v2 a merge replaces keys that stand before it.
        for one in reversed(value) if isinstance(value, list) else (value,):
            if not isinstance(one, dict):
                raise UnreadableError("it merges (`<<`) something that is not a mapping", line)
            self.value.update(one)


class _Builder:
    """Builds one document from the parser's events; without recursion, whatever the file's depth."""

    def __init__(self, line: int) -> None:
        self._first_line = line + 1
        self._budget = _Budget()
        self._lines: dict[Where, int] = {}
        self._repeated: list[tuple[Where, int]] = []
        # Values before they are made JSON; None: a collection that has not ended.
        self._anchors: dict[str, object] = {}
        self._open: list[_Open] = [_Open([], (), None)]

    def build(self, text: str) -> Document | None:
        """Return the document, None if there is none. Raises UnreadableError."""
        is_over = False
        try:
            for event in yaml.parse(text, _PARSER):
                if is_over and not isinstance(event, yaml.StreamEndEvent):
                    raise UnreadableError("it goes on after the end of a document", self._line(event.start_mark))
                is_over = isinstance(event, yaml.DocumentEndEvent)
                self._take(event)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise UnreadableError(_shown(error.problem), self._line(mark) if mark else None) from None
        except yaml.reader.ReaderError as error:
            line = self._first_line + text.count("\n", 0, error.position)
            raise UnreadableError("it has a control character", line) from None
        root = self._open[0].value
        if not root:
            return None
        assert isinstance(root, list)  # noqa: S101 - made above
        return Document(
            root[0],
            {where[1:]: line for where, line in self._lines.items()},
            tuple((where[1:], line) for where, line in self._repeated),
        )

    def _line(self, mark: yaml.Mark | yaml._yaml.Mark | None) -> int:
        return self._first_line + (int(mark.line) if mark else 0)

    def _take(self, event: yaml.Event) -> None:
        line = self._line(event.start_mark)
        parent = self._open[-1]
        if isinstance(event, yaml.CollectionEndEvent):
            self._open.pop()
            if parent.anchor is not None:
                self._anchors[parent.anchor] = parent.value
            self._open[-1].add(parent.value, line)
        elif isinstance(event, yaml.NodeEvent):
            self._budget.take(len(self._open), line)
            if isinstance(event, yaml.CollectionStartEvent):
                self._start(event, parent, line)
            elif parent.wants_key:
                self._take_key(event, parent, line)
            else:
                self._lines.setdefault(parent.place(), line)
                value = self._value(event, line)
                parent.add(_copied(value, self._budget, len(self._open), line), line)

    def _start(self, event: yaml.CollectionStartEvent, parent: _Open, line: int) -> None:
        if parent.wants_key:
            raise UnreadableError("it has a key that is a list or a mapping", line)
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in (None, "!", SEQ if is_list else MAP):
            raise UnreadableError("it has a tag that a manifest can't have", line)
        where = parent.place()
        self._lines.setdefault(where, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Open
        self._open.append(_Open([] if is_list else {}, where, event.anchor))

    def _take_key(self, event: yaml.NodeEvent, parent: _Open, line: int) -> None:
        if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and (event.implicit[0] or event.tag == MERGE):
            parent.is_merge = True
        else:
            parent.key = key_of(self._value(event, line), line)
            self._lines[parent.place()] = line
            if parent.key in parent.keys:
                self._repeated.append((parent.place(), line))
            parent.keys.add(parent.key)

    def _value(self, event: yaml.NodeEvent, line: int) -> object:
        if isinstance(event, yaml.ScalarEvent):
            value: object = scalar(event, line)
            if event.anchor is not None:
                self._anchors[event.anchor] = value
            return value
        if event.anchor not in self._anchors:
            raise UnreadableError("it has an alias without an anchor", line)
        value = self._anchors[event.anchor]
        if value is _Open:
            raise UnreadableError("it has an alias inside of what its anchor names", line)
        return value


def _shown(problem: str | None) -> str:
    """Return the parser's words without those of the file, which it sets in quotes."""
    words = _QUOTED.sub(lambda match: match[0] if len(match[2]) == 1 else "a token", problem or "")
    return f"it is not valid YAML: {words}" if words else "it is not valid YAML"
