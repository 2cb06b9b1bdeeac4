"""A kubeconfig, as text: which values in it are secrets, and which of its names stand twice. Knows no kubectl, no log.

Not what kubectl makes of it (see connection): only what keeps its content out of the log.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

import yaml

from sandboxes.masking import LEAST_SECRET, Form, forms_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# A secret of fewer characters is hidden where it stands alone: within other words it would be found by chance.
LONG_SECRET = 12

# More than any kubeconfig has; past it a file counts as one that can't be read. Aliases can make few lines endless.
MOST_VALUES = 100_000

# Whose values are not secret: what says how to connect, and the names that sentences need.
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
_SECTIONS = ("users", "clusters", "contexts")

# A value under such a name is a secret, whatever it looks like.
_SECRET_NAME = re.compile(r"(?i)token|secret|passw|pwd|-data$|key|credential|auth(?!or)|cookie|session|private|jwt")

# What stands in everybody's kubeconfig and in half of our own lines, so it tells nothing.
_CONSTANT = re.compile(
    r"(?i)true|false|yes|no|on|off|null|none|nil|~|never|always|ifavailable|default|regional|legacy"
    r"|debug|info|warning|error|json|yaml|text|table|plain"
    r"|kubectl|kubernetes|kubeconfig|provisioner|sandbox(es)?|pods?|services?|cluster|context|user|namespace|localhost"
    r"|\d{1,5}|v?\d+(\.\d+)+|v\d+\w{0,8}|[a-z0-9.-]+\.k8s\.io/v\d\w{0,8}"
)
_SUBCOMMAND = re.compile(r"[a-z][a-z-]{0,19}")
_SCRIPT_WORD = re.compile(r"[^\s\"'`=,;:()|&<>{}]{8,}")
_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
_NOT_SHOWN = "(not shown: it is no usable address)"


class _Pairs(list[tuple[str, object]]):
    """A mapping with all that stands in it, also a key that stands there twice."""


class _TooMuchError(Exception):
    pass


class _Value(NamedTuple):
    """A scalar, or the scalars of a list: the keys that lead to it, and what it is called."""

    path: tuple[str, ...]
    name: str
    value: str | list[str]


@dataclass
class Secrets:
    """Collects secrets: `anywhere` are hidden wherever they stand, `alone` only where they are no part of a word."""

    anywhere: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    # Names that sentences use: a value that is no secret by its name is not hidden if it is one of these.
    names: set[str] = field(default_factory=set)

    def forms(self) -> tuple[Form, ...]:
        """Return what is to be hidden."""
        return (*forms_of(self.anywhere), *forms_of(self.alone - self.anywhere, alone=True))

    def add(self, value: str, name: str = "", *, surely: bool = False) -> None:
        """Take in a value that stands under a name; `surely`: it is a secret, and nothing else stands there."""
        value = value.strip()
        surely_by_name = surely or bool(_SECRET_NAME.search(name))
        if surely or not _is_a_path(value):
            for piece in _pieces(value):
                self.add_word(piece, surely=surely, by_name=surely_by_name)
            if name.endswith("-data") and (decoded := _decoded(value)):
                # Bytes as Go prints them in its own structures (record: kubeconfig-user-twice, where there were none).
                self.anywhere.add(" ".join(str(byte) for byte in decoded))
        if "://" in value:
            self.add_parts_of_address(value)

    def add_parts_of_address(self, value: str) -> None:
        """Take in user info, query and fragment of an address, which may have no scheme."""
        address = value.partition("://")[2] or value
        authority = re.split(r"[/?#]", address)[0]
        user_info = (authority if "@" in authority else address).rpartition("@")[0]
        user, _, password = user_info.partition(":")
        for text in {user, unquote(user)}:
            self.add_word(text)
        for text in {password, unquote(password), *re.split(r"[/?#]", password)}:
            self.add_word(text, surely=True)
        rest, _, fragment = address.partition("#")
        query = rest.partition("?")[2]
        for name, text in [*parse_qsl(query), ("", query), ("", fragment)]:
            self.add_word(text, by_name=bool(_SECRET_NAME.search(name)))

    def add_word(self, text: str, *, surely: bool = False, by_name: bool = False) -> None:
        """Take in a text as it stands, unless it is none that could be a secret."""
        if len(text) < LEAST_SECRET or _CONSTANT.fullmatch(text) or (text in self.names and not surely):
            return
        is_long = len(text) >= (LONG_SECRET if not (surely or by_name) else 2 * LEAST_SECRET)
        (self.anywhere if is_long else self.alone).add(text)

    def add_arguments(self, arguments: Iterable[str]) -> None:
        """Take in the arguments of a credential plugin: all but subcommands and the names of flags."""
        flag: str | None = None
        for argument in arguments:
            if argument.startswith("-"):
                flag, is_whole, value = argument.partition("=")
                if is_whole:
                    self.add(value, flag)
                elif not flag.startswith("--"):
                    self.add(flag[2:])
            elif flag is not None or not _SUBCOMMAND.fullmatch(argument):
                self.add(argument, flag or "")
                if re.search(r"\s", argument):
                    for word in _SCRIPT_WORD.findall(argument):
                        if not re.fullmatch(r"[a-z-]+|/[\w./-]*", word):
                            self.add(word)


@dataclass
class Kubeconfig:
    """What is read of one. `doubled`: the first name that two entries have, and of which section they are."""

    secrets: Secrets = field(default_factory=Secrets)
    token_files: list[str] = field(default_factory=list)
    doubled: tuple[str, str] | None = None


def read_kubeconfig(text: bytes) -> Kubeconfig | None:
    """Return what is in it, or None if it is neither JSON nor YAML; never raises."""
    found = Kubeconfig()
    try:
        documents = _documents(text)
        budget = [MOST_VALUES]
        for document in documents:
            values = list(_values(document, (), "", budget))
            found.secrets.names |= set(_names_in(values))
            for one in values:
                _take_in(found, one)
            for user in _entries(document, "users", "user"):
                _take_in_basic(found, user)
            found.doubled = found.doubled or _doubled(document)
    except (ValueError, yaml.YAMLError, RecursionError, _TooMuchError):
        return None
    return found


def shown_address(server: str) -> str:
    """Return an API server's address without user info, query and fragment; a sentence if that can't be told apart."""
    try:
        url = urlsplit(server if "://" in server else f"//{server}")
        host = url.netloc.rpartition("@")[2]
    except ValueError:
        return _NOT_SHOWN
    if not _ADDRESS.fullmatch(host) or "@" in url.path or not server.isprintable():
        return _NOT_SHOWN
    return urlunsplit((url.scheme, host, url.path, "", "")).removeprefix("//")


def _documents(text: bytes) -> list[object]:
    try:
        return [json.loads(text, object_pairs_hook=_Pairs, parse_float=str, parse_int=str, parse_constant=str)]
    except ValueError:
        return [_tree(node, frozenset(), [MOST_VALUES]) for node in yaml.compose_all(text, _LOADER)]


_LOADER: type[yaml.CSafeLoader | yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _tree(node: yaml.Node, above: frozenset[int], budget: list[int]) -> object:
    """Return scalars as they are written, whatever YAML would make of them; mappings with doubled keys, too."""
    budget[0] -= 1
    if budget[0] < 0 or id(node) in above:
        raise _TooMuchError
    inner = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        pairs = ((_tree(key, inner, budget), _tree(value, inner, budget)) for key, value in node.value)
        return _Pairs((key if isinstance(key, str) else "", value) for key, value in pairs)
    if isinstance(node, yaml.SequenceNode):
        return [_tree(item, inner, budget) for item in node.value]
    return str(node.value)


def _values(tree: object, path: tuple[str, ...], name: str, budget: list[int]) -> Iterator[_Value]:
    """Yield each scalar, and for lists of scalars those as a whole, too."""
    budget[0] -= 1
    if budget[0] < 0:
        raise _TooMuchError
    if isinstance(tree, _Pairs):
        # A plugin's variables stand as name and value.
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
    """Yield what sentences may need: names, and the API server's address."""
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
        secrets.add(value, one.name, surely=is_of_user and bool(_SECRET_NAME.search(one.name)))


def _take_in_basic(found: Kubeconfig, user: _Pairs) -> None:
    """Take in what stands in the header of basic authentication."""
    for name in [value for key, value in user if key == "username"]:
        for password in [value for key, value in user if key == "password"]:
            found.secrets.add(base64.b64encode(f"{name}:{password}".encode(errors="replace")).decode(), surely=True)


def _entries(document: object, section: str, key: str) -> Iterator[_Pairs]:
    """Yield what stands at `key` of each entry of a section."""
    for entry in _items(document, section):
        for name, value in entry:
            if name == key and isinstance(value, _Pairs):
                yield value


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


def _is_a_path(value: str) -> bool:
    """Whether this names something that is here, such as the home of a user."""
    try:
        return value.startswith("/") and Path(value).exists()
    except (OSError, ValueError):
        return False


def _pieces(value: str) -> Iterator[str]:
    """Yield the value, what base64 makes of it, and the lines of each: programs print a text line by line."""
    yield value
    texts = [value]
    if (decoded := _decoded(value)) is not None:
        yield base64.b64encode(decoded).decode()
        try:
            texts.append(decoded.decode().strip())
        except UnicodeDecodeError:
            pass  # bytes: no program prints them as text
        else:
            if texts[-1].replace("\n", "").replace("\r", "").isprintable():
                yield texts[-1]
            else:
                texts.pop()
    for text in texts:
        lines = [line.strip() for line in text.splitlines()]
        if len(lines) > 1:
            yield from (line for line in lines if len(line) >= 2 * LEAST_SECRET and not line.startswith("-----"))


def _decoded(value: str) -> bytes | None:
    compact = "".join(value.split())
    if len(compact) < 2 * LEAST_SECRET or not re.fullmatch(r"[A-Za-z0-9+/_-]+={0,2}", compact):
        return None
    standard = compact.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error:
        return None
