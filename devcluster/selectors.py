"""Parses label selectors and field selectors into predicates. Knows the grammar, but no store."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from devcluster.errors import ApiError, bad_request
from devcluster.objects import Json, labels_of
from devcluster.resources import EVENTS, PODS, Resource

Matcher = Callable[[Json], bool]

_TOKEN = re.compile(r"\s*(?:(==|!=|=|!|,|\(|\)|<|>)|([^\s=!,()<>]+))")
_SYMBOLS = ("==", "!=", "=", "!", "(", ")", "<", ">")
_EVENT_FIELDS = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS = {
    EVENTS: (*(f"involvedObject.{name}" for name in _EVENT_FIELDS), "reason", "type"),
    PODS: ("spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"),
}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement of a label selector: key, operator and values."""

    key: str
    operator: str
    values: frozenset[str]

    def matches(self, labels: dict[str, str]) -> bool:
        """Return whether the labels match; for `!=` and `notin` a missing label matches, too."""
        if self.operator == "exists":
            return self.key in labels
        if self.operator == "!":
            return self.key not in labels
        if self.operator in ("!=", "notin"):
            return labels.get(self.key) not in self.values
        return labels.get(self.key) in self.values


class _LabelParser:
    """Parses one label selector; its error messages are Kubernetes' own (`get-bad-selector`)."""

    def __init__(self, text: str) -> None:
        self._tokens = [symbol or word for symbol, word in _TOKEN.findall(text)]
        self._at = 0

    def parse(self) -> list[Requirement]:
        found = []
        while self._at < len(self._tokens):
            found.append(self._requirement())
            if self._peek() == "":
                break
            if self._take() != ",":
                raise bad_request(f"found '{self._tokens[self._at - 1]}', expected: ',' or 'end of string'")
            if self._peek() == "":
                raise bad_request("found '', expected: identifier after ','")
        return found

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _requirement(self) -> Requirement:
        key = self._take()
        if key == "!":
            return Requirement(self._take(), "!", frozenset())
        if not key or key in "=!,()":
            raise bad_request(f"found '{key}', expected: !, identifier, or 'end of string'")
        operator = self._peek()
        if operator in ("", ","):
            return Requirement(key, "exists", frozenset())
        self._at += 1
        return Requirement(key, operator, frozenset(self._operands(operator)))

    def _operands(self, operator: str) -> list[str]:
        if operator in ("in", "notin"):
            return self._values()
        if operator not in ("=", "==", "!="):
            raise _unparsed(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")  # the server's own list
        value = "" if self._peek() in ("", ",") else self._take()
        if value in _SYMBOLS:
            raise _unparsed(f"found '{value}', expected: identifier")
        return [value]

    def _values(self) -> list[str]:
        opening = self._take()
        if opening != "(":
            raise _unparsed(f"found '{opening}' expected: '('")
        values = []
        while (part := self._take()) not in (")", ""):
            if part != ",":
                values.append(part)
        if part != ")":
            raise _unparsed("found '', expected: ',' or ')'")
        return values


def _unparsed(why: str) -> ApiError:
    """Return the BadRequest for an error within one requirement (`raw-list-bad-selector`)."""
    return bad_request(f"unable to parse requirement: {why}")


def label_matcher(text: str) -> Matcher | None:
    """Parse a label selector; None if it is empty. Raises BadRequest if it is malformed."""
    requirements = _LabelParser(text).parse()
    if not requirements:
        return None
    return lambda obj: all(requirement.matches(labels_of(obj)) for requirement in requirements)


def field_matcher(resource: Resource, text: str) -> Matcher | None:
    """Parse a field selector; None if it is empty. Raises BadRequest for a field that the kind does not support."""
    terms = [_field_term(resource, term) for term in text.split(",") if term]
    if not terms:
        return None
    return lambda obj: all((_field(obj, path) == value) is equal for path, value, equal in terms)


def _field_term(resource: Resource, term: str) -> tuple[tuple[str, ...], str, bool]:
    match = re.fullmatch(r"([^=!]+)(==|!=|=)(.*)", term)
    if not match:
        raise bad_request(f"invalid field selector: {term}")
    path, operator, value = match.groups()
    if path not in _COMMON_FIELDS and path not in _FIELDS.get(resource, ()):
        raise bad_request(f"field label not supported: {path}")
    return tuple(path.split(".")), value, operator != "!="


def _field(obj: Json, path: tuple[str, ...]) -> str:
    value: object = obj
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def both(first: Matcher | None, second: Matcher | None) -> Matcher | None:
    """Combine two predicates; None matches all objects."""
    if first is None or second is None:
        return first or second
    return lambda obj: first(obj) and second(obj)
