"""Decides which parts of a value may be secret, by the value's form and by its name. Knows no kubectl."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

from sandboxes.masking import LEAST_SECRET, LONG, Form, forms_of, url_safe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Shorter secrets are masked only as whole words: within other words they may occur by chance.
LONG_SECRET = 12

# Maximum number of user:password pairs, for short passwords, to mask in the base64 of HTTP basic authentication.
MOST_PAIRS = 200

# A value with such a name is a secret, whatever its form; except the location or type of a secret.
SECRET_NAME = re.compile(
    r"(?is)(?=.*(token|secret|passw|pwd|-data$|key|credential|auth(?!or)|cookie|session|private|jwt))"
    r"(?!.*(file|path|dir|mode|type|debug)$)"
)

# Words that are in every kubeconfig and in many log lines, and so reveal nothing.
_CONSTANT = re.compile(
    r"(?i)true|false|yes|no|on|off|null|none|nil|~|never|always|ifavailable|default|regional|legacy"
    r"|debug|info|warning|error|json|yaml|text|table|plain"
    r"|kubectl|kubernetes|kubeconfig|provisioner|sandbox(es)?|pods?|services?|cluster|context|user|namespace|localhost"
    r"|\d{1,5}|v?\d+(\.\d+)+|v\d+\w{0,8}|[a-z0-9.-]+\.k8s\.io/v\d\w{0,8}"
)
_SUBCOMMAND = re.compile(r"[a-z][a-z-]{0,19}")
_WORD = re.compile(r"[^\s\"'`=,;:()|&<>{}\[\]@$\\?]{4,}")
# Common words of shell scripts, which reveal nothing; any other word in a script may be a secret.
_SCRIPTS_WORDS = re.compile(
    r"bash|case|curl|date|done|echo|elif|else|esac|eval|exec|exit|export|false|http|https|null|printf|read|return"
    r"|sleep|source|stderr|stdout|test|then|true|unset|wget|while"
)


@dataclass
class Secrets:
    """A collection of secrets.

    `anywhere`: masked wherever they occur. `alone`: masked only as whole words. `words`: possible secrets that may also
    be ordinary words, masked only in the output of credential plugins.
    """

    anywhere: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    words: set[str] = field(default_factory=set)
    # User names of password logins.
    users: set[str] = field(default_factory=set)
    # Names that log messages need: not masked, unless a value is secret by its own name.
    names: set[str] = field(default_factory=set)

    def forms(self) -> tuple[Form, ...]:
        """Return the forms to mask everywhere."""
        # Longer secrets are found in base64 after any user name; short ones need the exact pair.
        short = sorted(text for text in self.anywhere | self.alone if len(text) < LONG)
        pairs = (f"{user}:{text}" for user, text in islice(product(sorted(self.users), short), MOST_PAIRS))
        basic = [base64.b64encode(pair.encode(errors="replace")).decode().rstrip("=") for pair in pairs]
        return (
            *forms_of(self.anywhere),
            *forms_of(self.alone - self.anywhere, alone=True),
            *map(Form, basic),
            *map(Form, map(url_safe, basic)),
        )

    def forms_of_words(self) -> tuple[Form, ...]:
        """Return the additional forms to mask in the output of credential plugins."""
        long = {word for word in self.words if len(word) >= LONG_SECRET or (len(word) >= LONG and not word.isalpha())}
        return (*forms_of(long), *forms_of(self.words - long, alone=True))

    def add(self, value: str, name: str = "", *, surely: bool = False) -> None:
        """Add a value with its name; `surely`: the whole value is a secret."""
        value = value.strip()
        surely_by_name = surely or bool(SECRET_NAME.match(name))
        if surely or not _is_a_path(value):
            for piece in _pieces(value):
                self.add_word(piece, surely=surely_by_name)
            if name.endswith("-data") and (decoded := _decoded(value)):
                # Bytes as Go prints them in its own structures (record: kubeconfig-user-twice, where there were none).
                self.anywhere.add(" ".join(str(byte) for byte in decoded))
        if "://" in value:
            self.add_parts_of_address(value)

    def add_parts_of_address(self, value: str) -> None:
        """Add user info, query and fragment of an address, which may have no scheme."""
        address = value.partition("://")[2] or value
        authority = re.split(r"[/?#]", address)[0]
        user_info = (authority if "@" in authority else address).rpartition("@")[0]
        user, _, password = user_info.partition(":")
        self.users |= {user, unquote(user)}
        for text in {user, unquote(user)}:
            self.add_word(text)
        for text in {password, unquote(password), *re.split(r"[/?#]", password)}:
            self.add_word(text, surely=True)
        rest, _, fragment = address.partition("#")
        query = rest.partition("?")[2]
        for name, text in [*parse_qsl(query), ("", query), ("", fragment)]:
            self.add_word(text, surely=bool(SECRET_NAME.match(name)))

    def add_word(self, text: str, *, surely: bool = False) -> None:
        """Add a text as it is, unless it can't be a secret; `surely`: it is one by its name."""
        is_constant = bool(_CONSTANT.fullmatch(text))
        if len(text) < LEAST_SECRET or (not surely and (is_constant or text in self.names)):
            return
        is_long = len(text) >= (LONG if surely else LONG_SECRET) and not is_constant
        (self.anywhere if is_long else self.alone).add(text)

    def add_arguments(self, arguments: Iterable[str]) -> None:
        """Add the arguments of a credential plugin, except the names of flags; subcommands only as `words`."""
        flag: str | None = None
        for argument in arguments:
            self.add_words(argument)
            if argument.startswith("-"):
                flag, is_whole, value = argument.partition("=")
                if is_whole:
                    self.add(value, flag)
                elif not flag.startswith("--"):
                    self.add(flag[2:])
            elif flag is not None or not _SUBCOMMAND.fullmatch(argument):
                self.add(argument, flag or "")
                if re.search(r"\s", argument):
                    for word in _WORD.findall(argument):
                        if len(word) >= LONG and not re.fullmatch(r"[a-z-]+|/[\w./-]*", word):
                            self.add(word)

    def add_words(self, text: str) -> None:
        """Add the words of a script, an argument or a comment, except the names of long options."""
        for found in _WORD.findall(text):
            if found.startswith("--"):
                continue
            # A value may directly follow a short option.
            for word in {found, found[2:]} if found.startswith("-") else {found, found.rstrip(".!")}:
                if len(word) >= LEAST_SECRET and not word.startswith("-") and not _SCRIPTS_WORDS.fullmatch(word):
                    self.words.add(word)


def _is_a_path(value: str) -> bool:
    """Whether this is an existing absolute path, such as a home directory."""
    try:
        return value.startswith("/") and Path(value).exists()
    except (OSError, ValueError):
        return False


def _pieces(value: str) -> Iterator[str]:
    """Yield the value, its decoded base64, and the lines of each, since programs print texts line by line."""
    yield value
    texts = [value]
    if (decoded := _decoded(value)) is not None:
        yield base64.b64encode(decoded).decode()
        try:
            texts.append(decoded.decode().strip())
        except UnicodeDecodeError:
            pass  # binary data, which no program prints as text
        else:
            if texts[-1].replace("\n", "").replace("\r", "").isprintable():
                yield texts[-1]
            else:
                texts.pop()
    for text in texts:
        lines = [line.strip() for line in text.splitlines()]
        if len(lines) > 1:
            yield from (line for line in lines if len(line) >= LONG and not line.startswith("-----"))


def _decoded(value: str) -> bytes | None:
    compact = "".join(value.split())
    if len(compact) < LONG or not re.fullmatch(r"[A-Za-z0-9+/_-]+={0,2}", compact):
        return None
    standard = compact.rstrip("=").translate(str.maketrans("-_", "+/"))
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error:
        return None
