"""The keys that sign the URLs of sandboxes: those of a file, or one that this process makes at its start."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sandboxes.key_file import KeyFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# As many characters as 128 bits need in hexadecimal; `openssl rand -base64 32` has 44.
MIN_KEY = 32


class FileKeys:
    """The keys of SANDBOX_GATEWAY_KEYS_FILE, one in each line: the first signs, all verify. Read again on a change.

    Raises StartupError if the file can't be read, has no key, or has a line that is too short.
    """

    def __init__(self, path: Path) -> None:
        self._file = KeyFile(path, "SANDBOX_GATEWAY_KEYS_FILE", "gateway keys", _problem_of)
        self._lines: tuple[str, ...] = ()
        self._keys: tuple[bytes, ...] = ()

    def current(self) -> Sequence[bytes]:
        """Return the keys that are valid now."""
        lines = self._file.keys()
        if lines is not self._lines:
            self._lines, self._keys = lines, tuple(line.encode() for line in lines)
        return self._keys


class ProcessKey:
    """One random key that ends with the process, and all URLs with it."""

    def __init__(self) -> None:
        self._keys = (secrets.token_bytes(32),)

    def current(self) -> Sequence[bytes]:
        """Return the key."""
        return self._keys


def _problem_of(line: str) -> str | None:
    if len(line) < MIN_KEY:
        return f"a key of less than {MIN_KEY} characters in line {{number}}; make one by `openssl rand -base64 32`."
    return None
