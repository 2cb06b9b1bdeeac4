"""Finds secrets and duplicate names in the text of a kubeconfig, to keep its content out of the log.

Knows no kubectl and no log; kubectl's own reading of a kubeconfig is in config.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import yaml

from sandboxes.kubectl.secret_values import SECRET_NAME, Secrets

if TYPE_CHECKING:
    from collections.abc import Iterator

# Above these limits a file counts as unreadable: no kubeconfig has as many, but YAML aliases can make a few lines huge.
MOST_VALUES = 100_000
MOST_DEPTH = 100

# Fields whose values are not secret: connection parameters, and names that log messages need.
_OPEN = frozenset(
    tuple(path.split("/"))
    for path in (
        "apiVersion",
        "kind",
        "current-context",
        "clusters/name",
        "clusters/cluster/certificate-authority",
        "clusters/cluster/tls-server-name",
        "clusters/cluster/insecure-skip-tls-verify",
        "clusters/cluster/disable-compression",
        "clusters/cluster/extensions/name",
        "contexts/name",
        "contexts/context/cluster",
        "contexts/context/user",
        "contexts/context/namespace",
        "contexts/context/extensions/name",
        "users/name",
        "users/user/client-certificate",
        "users/user/client-key",
        "users/user/tokenFile",
        "users/user/exec/apiVersion",
        "users/user/exec/command",
        "users/user/exec/interactiveMode",
        "users/user/exec/provideClusterInfo",
        "users/user/exec/env/name",
        "users/user/extensions/name",
        "users/user/auth-provider/name",
        "extensions/name",
    )
)
_NAMES = frozenset(path for path in _OPEN if path[-1] in {"name", "cluster", "user", "namespace", "current-context"})
_SERVER = ("clusters", "cluster", "server")
_PROXY = ("clusters", "cluster", "proxy-url")
_TOKEN_FILE = ("users", "user", "tokenFile")
_PLUGIN = ("users", "user", "exec", "command")
# User names, which may be sent together with a password.
_USERS = frozenset({("users", "name"), ("users", "user", "username")})
_SECTIONS = ("users", "clusters", "contexts")

# Text after `#`, also within quotes.
_REMARK = re.compile(r"(?:^|\s)#(.*)", re.MULTILINE)
# A mapping key that looks random: a secret in the wrong place.
_RANDOM = re.compile(r"(?=\D*\d)(?=[^A-Za-z]*[A-Za-z]).{12,}", re.DOTALL)
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_NOT_SHOWN = "(not shown: it is no usable address)"


class _Pairs(list[tuple[str, object]]):
    """A mapping that keeps duplicate keys."""


class _UnreadableError(Exception):
    """The kubeconfig exceeds the limits or has an undefined alias."""


class _Value(NamedTuple):
    """A scalar, or the scalars of a list. `path`: its keys; `name`: the key or variable name that it belongs to."""

    path: tuple[str, ...]
    name: str
    value: str | list[str]


@dataclass
class Kubeconfig:
    """Secrets and duplicate names of a kubeconfig.

    `doubled`: (section, name) of the first duplicate name. `is_whole`: everything that kubectl may read was read; if
    not, there may be more secrets.
    """

    secrets: Secrets = field(default_factory=Secrets)
    token_files: list[str] = field(default_factory=list)
    # Commands of credential plugins.
    plugins: list[str] = field(default_factory=list)
    doubled: tuple[str, str] | None = None
    is_whole: bool = True


def read_kubeconfig(text: bytes) -> Kubeconfig:
    """Read all documents of a kubeconfig, JSON or YAML, as far as they can be parsed; never raises."""
    found = Kubeconfig()
    budget = [MOST_VALUES]
    try:
        for document in _documents(text):
            _read_document(found, document, budget)
    except (ValueError, yaml.YAMLError, RecursionError, _UnreadableError):
        found.is_whole = False
    for remark in _REMARK.findall(text.decode(errors="replace")):
        found.secrets.add_words(remark)
    return found


def _read_document(found: Kubeconfig, document: object, budget: list[int]) -> None:
    values = list(_values(document, (), "", budget))
    found.secrets.names |= set(_names_in(values))
    for one in values:
        _take_in(found, one)
        found.secrets.words |= {key for key in one.path if _RANDOM.match(key)}
    found.secrets.users |= {one.value for one in values if isinstance(one.value, str) and one.path in _USERS}
    found.doubled = found.doubled or _doubled(document)


def shown_address(server: str) -> str:
    """Return an API server's address without user info, query and fragment; a placeholder if it can't be parsed."""
    try:
        url = urlsplit(server if "://" in server else f"//{server}")
        host = url.netloc.rpartition("@")[2]
    except ValueError:
        return _NOT_SHOWN
    if not _ADDRESS.fullmatch(host) or "@" in url.path or not server.isprintable():
        return _NOT_SHOWN
    return urlunsplit((url.scheme, host, url.path, "", "")).removeprefix("//")


_LOADER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _documents(text: bytes) -> Iterator[object]:
    try:
        document = json.loads(text, object_pairs_hook=_Pairs, parse_float=str, parse_int=str, parse_constant=str)
    except ValueError:
        yield from _yaml_documents(text)
    else:
        yield document


def _yaml_documents(text: bytes) -> Iterator[object]:
    """Yield the documents, with scalars as text and duplicate keys kept.

    PyYAML's composer is not used: it rejects duplicate anchors, which kubectl accepts, and the C version crashes on
    deep nesting.
    """
    anchors: dict[str, object] = {}
    open_: list[tuple[object, list[object]]] = []
    for number, event in enumerate(yaml.parse(text, _LOADER)):
        if number > 2 * MOST_VALUES or len(open_) > MOST_DEPTH:
            raise _UnreadableError
        if isinstance(event, yaml.DocumentStartEvent):
            anchors, open_ = {}, [(None, [])]
        elif isinstance(event, yaml.DocumentEndEvent):
            yield open_.pop()[1][0]
        elif isinstance(event, yaml.CollectionEndEvent):
            node, items = open_.pop()
            if isinstance(node, _Pairs):
                keys = (key if isinstance(key, str) else "" for key in items[::2])
                node.extend(zip(keys, items[1::2], strict=True))
            elif isinstance(node, list):
                node.extend(items)
        elif isinstance(event, yaml.NodeEvent):
            node = _node(event, anchors)
            open_[-1][1].append(node)
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((node, []))


def _node(event: yaml.NodeEvent, anchors: dict[str, object]) -> object:
    """Return the node of an event: a text, an empty collection to fill, or the target of an alias."""
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise _UnreadableError
        return anchors[event.anchor]
    node: object = [] if isinstance(event, yaml.SequenceStartEvent) else _Pairs()
    if isinstance(event, yaml.ScalarEvent):
        node = str(event.value)
    anchors[event.anchor or ""] = node
    return node


def _values(tree: object, path: tuple[str, ...], name: str, budget: list[int]) -> Iterator[_Value]:
    """Yield each scalar, and each list of scalars as a whole."""
    budget[0] -= 1
    if budget[0] < 0:
        raise _UnreadableError
    if isinstance(tree, _Pairs):
        # A plugin's variables are mappings of `name` and `value`.
        variable = next((value for key, value in tree if key == "name" and isinstance(value, str)), "")
        for key, value in tree:
            yield from _values(value, (*path, key), variable if key == "value" else key, budget)
    elif isinstance(tree, list):
        yield _Value(path, name, [item for item in tree if isinstance(item, str)])
        for item in tree:
            yield from _values(item, path, name, budget)
    elif isinstance(tree, str):
        yield _Value(path, name, tree)


def _names_in(values: list[_Value]) -> Iterator[str]:
    """Yield the texts that log messages need: names, and the API server's address."""
    for one in values:
        if isinstance(one.value, str) and one.path in _NAMES:
            yield one.value
        elif isinstance(one.value, str) and one.path == _SERVER and (address := shown_address(one.value)) != _NOT_SHOWN:
            host = address.partition("://")[2].partition("/")[0]
            yield from (address, host, host.rpartition(":")[0])


def _take_in(found: Kubeconfig, one: _Value) -> None:
    secrets, path, value = found.secrets, one.path, one.value
    if path == ("users", "user", "exec", "args"):
        if isinstance(value, list):
            secrets.add_arguments(value)
    elif not isinstance(value, str):
        return
    elif path == _TOKEN_FILE:
        found.token_files.append(value)
    elif path == _PLUGIN:
        found.plugins.append(value)
    elif path == _SERVER:
        if shown_address(value) == _NOT_SHOWN:
            secrets.add(value)
        secrets.add_parts_of_address(value)
    elif path == _PROXY:
        secrets.add(value)
        secrets.add_parts_of_address(value)
        host = re.split(r"[/?#]", (value.partition("://")[2] or value).rpartition("@")[2])[0]
        secrets.add_word(host)
        secrets.add_word(host.rpartition(":")[0])
    elif path not in _OPEN:
        is_of_user = len(path) == len(_TOKEN_FILE) and path[:2] == _TOKEN_FILE[:2]
        secrets.add(value, one.name, surely=is_of_user and bool(SECRET_NAME.match(one.name)))


def _items(document: object, section: str) -> Iterator[_Pairs]:
    for name, items in document if isinstance(document, _Pairs) else ():
        if name == section and isinstance(items, list):
            yield from (item for item in items if isinstance(item, _Pairs))


def _doubled(document: object) -> tuple[str, str] | None:
    for section in _SECTIONS:
        seen: set[object] = set()
        for entry in _items(document, section):
            name = dict(entry).get("name")
            if isinstance(name, str) and name in seen:
                return section, name
            seen.add(name if isinstance(name, str) else None)
    return None
