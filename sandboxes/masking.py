"""Masks secrets in a text, in every encoding in which programs print them. Pure; knows no log and no file."""

from __future__ import annotations

import base64
import json
import re
import string
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HIDDEN = "(hidden)"

# Shorter values are not masked: they occur in ordinary words.
LEAST_SECRET = 4
# Minimum length to be found across line breaks and inside longer base64.
LONG = 2 * LEAST_SECRET

# A line break, raw or escaped, and the indentation after it.
_BREAK = r"(?:(?:[\r\n]|\\{1,4}[rn])[ \t]*)+"
_BREAKS = re.compile(_BREAK)
_BASE64 = string.ascii_letters + string.digits + "+/-_"
# Characters that programs do not percent-encode: none, slashes of a path, Go's set, JavaScript's set.
_LEFT = ("", "/", "$&+,/:;=@", "!'()*")
_GO_ESCAPES = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


class Form(NamedTuple):
    """One encoding of a secret.

    `alone`: masked only as a whole word. `encoded`: base64, masked with the base64 characters around it, which may
    encode the rest of the secret.
    """

    text: str
    alone: bool = False
    encoded: bool = False

    def hide_in(self, text: str) -> str:
        """Return the text with each occurrence masked."""
        before = after = ""
        if self.alone:
            # An escaped line feed ends in a letter, but is a word boundary.
            before = r"(?:(?<!\w)|(?<=\\[nrt]))" if re.match(r"\w", self.text) else ""
            after = r"(?!\w)" if re.search(r"\w\Z", self.text) else ""
        text = self._joined(re.split(before + re.escape(self.text) + after, text))
        if len(self.text) >= LONG and self.text in one_line(text):
            broken = f"(?:{_BREAK})?".join(map(re.escape, self.text))
            text = self._joined(re.split(before + broken + after, text))
        return text

    def _joined(self, parts: list[str]) -> str:
        if self.encoded and len(parts) > 1:
            parts = [parts[0], *(part.lstrip(_BASE64 + "=") for part in parts[1:])]
            parts = [*(part.rstrip(_BASE64) for part in parts[:-1]), parts[-1]]
        return HIDDEN.join(parts)


class Forms(tuple[Form, ...]):  # noqa: SLOT001 - the index has its place in __dict__
    """Many forms, indexed by their first characters, so that a search takes about as long as for one."""

    @cached_property
    def by_start(self) -> dict[str, list[Form]]:
        """The forms by their first LEAST_SECRET characters."""
        found: dict[str, list[Form]] = {}
        for form in self:
            found.setdefault(form.text[:LEAST_SECRET], []).append(form)
        return found

    def may_occur_in(self, text: str) -> list[Form]:
        """Return the forms whose first characters occur in the text."""
        starts = {text[at : at + LEAST_SECRET] for at in range(len(text))}
        return [form for start in starts & self.by_start.keys() for form in self.by_start[start]]


def one_line(text: str) -> str:
    """Return the text without line breaks and the indentation after them."""
    return _BREAKS.sub("", text) if "\n" in text or "\r" in text or "\\" in text else text


def forms_of(secrets: Iterable[str], *, alone: bool = False) -> tuple[Form, ...]:
    """Return the forms of the secrets: plain, and as JSON, YAML, Go, Python, URLs and base64 encode them."""
    forms: dict[Form, None] = {}
    for secret in secrets:
        if len(secret) < LEAST_SECRET:
            continue
        in_one = one_line(secret)
        for text in {secret, in_one} if len(in_one) >= LONG else {secret}:
            forms.update((Form(form, alone), None) for form in _written(text))
        forms.update((form, None) for form in _encoded(secret))
    return tuple(forms)


def hide(text: str, *groups: Iterable[Form]) -> str:
    """Mask the secrets of all groups, the longest first, since one may contain another."""
    for form in found_in(text, *groups):
        text = form.hide_in(text)
    return text


def found_in(text: str, *groups: Iterable[Form]) -> list[Form]:
    """Return the forms that occur in the text, the longest first."""
    looked_at = text if (in_one := one_line(text)) == text else f"{text}\0{in_one}"
    likely = (group.may_occur_in(looked_at) if isinstance(group, Forms) else group for group in groups)
    found = {form for group in likely for form in group if form.text in looked_at}
    return sorted(found, key=lambda form: (len(form.text), form), reverse=True)


def _written(text: str) -> Iterator[str]:
    yield text
    for quoted in (json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        for escaped in (quoted, quoted.translate(_GO_ESCAPES)):
            yield escaped
            # klog quotes an error that has quoted it already
            yield json.dumps(escaped, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]
    yield text.replace("'", "''")
    for left in _LEFT:
        percent = quote(text, safe=left, errors="replace")
        for written in (percent, percent.replace("%20", "+")):
            yield written
            yield re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), written)


def _encoded(secret: str) -> Iterator[Form]:
    """Yield the base64 encodings, also inside a longer text such as `name:secret`."""
    data = secret.encode(errors="replace")
    if len(data) < LONG:
        # A part of it would be too short to be distinguished from words.
        for whole in (data, data + b"\n"):
            text = base64.b64encode(whole).decode().rstrip("=")
            yield from (Form(text, alone=True), Form(url_safe(text), alone=True))
        return
    for before in range(3):
        end = 3 * ((before + len(data)) // 3) - before
        text = base64.b64encode(b"\0" * before + data[:end]).decode()[4 if before else 0 :]
        yield from (Form(text, encoded=True), Form(url_safe(text), encoded=True))


def url_safe(text: str) -> str:
    """Translate base64 into its URL-safe alphabet."""
    return text.translate(str.maketrans("+/", "-_"))
