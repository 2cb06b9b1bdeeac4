"""Reads secrets from a file, one in each line, and reads it again when it changes, as a mounted Secret does."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from sandboxes.deadlines import DEADLINES
from sandboxes.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

logger = logging.getLogger(__name__)

# A key file is small; a larger one is the wrong file.
MAX_FILE_BYTES = 1024 * 1024


class KeyFile:
    """The keys in a file: its lines, without blank ones and those that begin with `#`.

    `variable`: names the file; `what`: the keys, in the plural; `problem_of`: returns what is wrong with a line, as the
    end of a sentence that begins "has" and may contain `{number}`, the line's number, or None.
    Raises StartupError if the file can't be read, has no key, or has an invalid line.
    """

    def __init__(self, path: Path, variable: str, what: str, problem_of: Callable[[str], str | None]) -> None:
        self._path = path
        self._what = what
        self._problem_of = problem_of
        self._problem = ""
        self._seen: tuple[int, ...] | None
        try:
            self._keys, self._seen = self._read()
        except (OSError, ValueError) as error:
            raise StartupError(f"The file that {variable} names {self._said(error)}") from error

    def keys(self) -> tuple[str, ...]:
        """Return the keys of the file as it is now; if it can't be used, log it and return the previous ones."""
        try:
            if self._seen is not None and self._seen == _signature(self._path):
                return self._keys
            keys, self._seen = self._read()
        except (OSError, ValueError) as error:
            problem = self._said(error)
            if problem != self._problem:
                logger.error("The file of %s %s Its previous keys stay valid.", self._what, problem)  # noqa: TRY400 - no bug
            self._problem = problem
            return self._keys
        if keys != self._keys or self._problem:
            logger.info("file of %s reloaded: %d %s", self._what, len(keys), "key" if len(keys) == 1 else "keys")
        self._keys, self._problem = keys, ""
        return self._keys

    def _read(self) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
        """Return the keys and the file's signature, None while a change might not alter the signature.

        Raises OSError, or ValueError; its text is the end of a sentence and contains no key.
        """
        if not self._path.is_file():
            self._path.stat()  # raises OSError with the reason if the path does not exist
            raise ValueError("is not a file.")
        signature = _signature(self._path)
        with self._path.open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1)
        if len(text) > MAX_FILE_BYTES:
            raise ValueError("is too large.")
        lines = [line.strip() for line in text.decode(errors="replace").splitlines()]
        # A comment must not count as a key: it can be guessed.
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
        if not numbered:
            raise ValueError("contains no key; write one in each line.")
        for number, line in numbered:
            if problem := self._problem_of(line):
                raise ValueError(f"has {problem.format(number=number)}")
        is_settled = time.time() - max(signature[3:]) / 1e9 > DEADLINES.file_step
        return tuple(line for _, line in numbered), signature if is_settled else None

    def _said(self, error: OSError | ValueError) -> str:
        """Return the end of a sentence: the file, and what is wrong with it."""
        if isinstance(error, OSError):
            return f"can't be read: {self._path}: {error.strerror}."
        return f"can't be used: {self._path} {error}"


def _signature(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
