"""Hides secrets in a text, in each of the forms in which programs write them. Pure; knows no log and no file."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

HIDDEN = "(hidden)"

# A shorter value is no secret, and would be found in half of all words.
LEAST_SECRET = 4


class Form(NamedTuple):
    """One text that stands for a secret. `alone`: it is hidden only where it is not part of a longer word."""

    text: str
    alone: bool = False

    def hide_in(self, text: str) -> str:
        """Return the text without it."""
        if not self.alone:
            return text.replace(self.text, HIDDEN)
        # A quoted line feed ends in a letter, and begins no word.
        before = r"(?:(?<!\w)|(?<=\\[nrt]))" if re.match(r"\w", self.text) else ""
        after = r"(?!\w)" if re.search(r"\w\Z", self.text) else ""
        return re.sub(before + re.escape(self.text) + after, HIDDEN, text)


def forms_of(secrets: Iterable[str], *, alone: bool = False) -> tuple[Form, ...]:
    """Return the forms of the secrets: as they are, and as JSON, Go, Python and addresses quote them."""
    texts: set[str] = set()
    for secret in secrets:
        if len(secret) < LEAST_SECRET:
            continue
        quoted = json.dumps(secret)[1:-1]
        texts |= {
            secret,
            quoted,
            json.dumps(secret, ensure_ascii=False)[1:-1],
            # klog quotes an error that has quoted it already
            json.dumps(quoted)[1:-1],
            repr(secret)[1:-1],
            quote(secret, safe="", errors="replace"),
        }
    return tuple(Form(text, alone) for text in texts)


def hide(text: str, *groups: Iterable[Form]) -> str:
    """Return the text without the secrets of all groups; the longest first, since one may be a part of another."""
    for form in found_in(text, *groups):
        text = form.hide_in(text)
    return text


def found_in(text: str, *groups: Iterable[Form]) -> list[Form]:
    """Return the forms that occur in the text, the longest first."""
    found = [form for group in groups for form in group if form.text in text]
    return sorted(found, key=lambda form: len(form.text), reverse=True)
