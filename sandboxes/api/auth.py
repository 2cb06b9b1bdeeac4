"""The API keys that callers may use: that of the environment, and those of a file that may change. Knows no HTTP.

A file is read again when it has changed, so that a mounted Secret rotates without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from typing import TYPE_CHECKING

from sandboxes.deadlines import DEADLINES
from sandboxes.errors import StartupError
from sandboxes.variables import API_KEY

if TYPE_CHECKING:
    from pathlib import Path

    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)

# A file of keys is small; whatever is larger is another file.
MAX_FILE_BYTES = 1024 * 1024


class ApiKeys:
    """Whom to let in: whoever has the key of PROVISIONER_API_KEY or one of PROVISIONER_API_KEY_FILE's.

    Raises StartupError if the file can't be read, has no key, or a line that can't be one.
    """

    def __init__(self, settings: Settings) -> None:
        secret = settings.provisioner_api_key
        self._fixed = () if secret is None else (_digest(secret.get_secret_value()),)
        self._path = settings.provisioner_api_key_file
        self._of_file: tuple[bytes, ...] = ()
        self._seen: tuple[int, ...] | None = None
        self._problem = ""
        if self._path is not None:
            try:
                self._of_file, self._seen = _read(self._path)
            except (OSError, ValueError) as error:
                raise StartupError(
                    f"The file that PROVISIONER_API_KEY_FILE names {_said(error, self._path)}"
                ) from error

    @property
    def are_required(self) -> bool:
        """Whether callers need a key at all."""
        return bool(self._fixed) or self._path is not None

    def accept(self, given: bytes) -> bool:
        """Whether this is one of the keys; it takes as long whichever it is, and if it is none."""
        self._refresh()
        digest = _digest(given)
        found = False
        for key in (*self._fixed, *self._of_file):
            found |= hmac.compare_digest(digest, key)
        return found

    def _refresh(self) -> None:
        """Read the file again if it has changed. What can't be read leaves the keys as they were, and is logged."""
        if self._path is None:
            return
        try:
            if self._seen is not None and self._seen == _signature(self._path):
                return
            keys, self._seen = _read(self._path)
        except (OSError, ValueError) as error:
            problem = _said(error, self._path)
            if problem != self._problem:
                logger.error("The file of API keys %s The keys that it had stay valid.", problem)  # noqa: TRY400 - no bug
            self._problem = problem
            return
        if keys != self._of_file or self._problem:
            logger.info("the file of API keys was read again: %d keys", len(keys))
        self._of_file, self._problem = keys, ""


def _digest(key: bytes | str) -> bytes:
    """Return what keys are compared by: of one length, whatever was sent."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _signature(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(path: Path) -> tuple[tuple[bytes, ...], tuple[int, ...] | None]:
    """Return the keys, and what tells whether the file has changed since; None if it may without a sign.

    Raises OSError, or ValueError with the end of a sentence that has no key in it.
    """
    if not path.is_file():
        path.stat()  # says why, if it is not there
        raise ValueError("is not a file.")
    signature = _signature(path)
    with path.open("rb") as file:
        text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise ValueError("is too large.")
    lines = [line.strip() for line in text.decode(errors="replace").splitlines()]
    # A comment is no key that anybody could guess.
    lines = ["" if line.startswith("#") else line for line in lines]
    keys = [line for line in lines if line]
    if not keys:
        raise ValueError("has no key in it; it needs one in each line.")
    if bad := [number for number, line in enumerate(lines, 1) if line and not API_KEY.fullmatch(line)]:
        raise ValueError(f"has in line {bad[0]} what is not printable ASCII, so it can't travel in a header.")
    is_settled = time.time() - max(signature[3:]) / 1e9 > DEADLINES.file_step
    return tuple(map(_digest, keys)), signature if is_settled else None


def _said(error: OSError | ValueError, path: Path) -> str:
    """Return the rest of a sentence: which file, and what is wrong with it."""
    if isinstance(error, OSError):
        return f"can't be read: {path}: {error.strerror}."
    return f"can't be used: {path} {error}"
