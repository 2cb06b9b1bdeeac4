"""Checks API keys: one from the environment, and those of a key file. Knows no HTTP.

The file is reloaded when it changes, so that a mounted Secret rotates without a restart.
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

# A key file is small; a larger one is the wrong file.
MAX_FILE_BYTES = 1024 * 1024


class ApiKeys:
    """The valid API keys: PROVISIONER_API_KEY, and each line of PROVISIONER_API_KEY_FILE.

    Raises StartupError if the file can't be read, has no key, or has an invalid line.
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
        """Whether a key is configured, so that callers must send one."""
        return bool(self._fixed) or self._path is not None

    def accept(self, given: bytes) -> bool:
        """Whether `given` is a valid key. Takes the same time for every key, valid or not."""
        self._refresh()
        digest = _digest(given)
        found = False
        for key in (*self._fixed, *self._of_file):
            found |= hmac.compare_digest(digest, key)
        return found

    def _refresh(self) -> None:
        """Reload the file if it has changed. If that fails, log it and keep the previous keys."""
        if self._path is None:
            return
        try:
            if self._seen is not None and self._seen == _signature(self._path):
                return
            keys, self._seen = _read(self._path)
        except (OSError, ValueError) as error:
            problem = _said(error, self._path)
            if problem != self._problem:
                logger.error("The file of API keys %s Its previous keys stay valid.", problem)  # noqa: TRY400 - no bug
            self._problem = problem
            return
        if keys != self._of_file or self._problem:
            logger.info("file of API keys reloaded: %d %s", len(keys), "key" if len(keys) == 1 else "keys")
        self._of_file, self._problem = keys, ""


def _digest(key: bytes | str) -> bytes:
    """Hash a key, so that all compared values have the same length."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _signature(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _read(path: Path) -> tuple[tuple[bytes, ...], tuple[int, ...] | None]:
    """Return the digests of the keys and the file's signature, None while a change might not alter the signature.

    Raises OSError, or ValueError; its text is the end of a sentence and contains no key.
    """
    if not path.is_file():
        path.stat()  # raises OSError with the reason if the path does not exist
        raise ValueError("is not a file.")
    signature = _signature(path)
    with path.open("rb") as file:
        text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise ValueError("is too large.")
    lines = [line.strip() for line in text.decode(errors="replace").splitlines()]
    # A comment must not count as a key: it can be guessed.
    lines = ["" if line.startswith("#") else line for line in lines]
    keys = [line for line in lines if line]
    if not keys:
        raise ValueError("contains no key; write one in each line.")
    if bad := [number for number, line in enumerate(lines, 1) if line and not API_KEY.fullmatch(line)]:
        raise ValueError(f"has characters in line {bad[0]} that a header can't carry; only printable ASCII is allowed.")
    is_settled = time.time() - max(signature[3:]) / 1e9 > DEADLINES.file_step
    return tuple(map(_digest, keys)), signature if is_settled else None


def _said(error: OSError | ValueError, path: Path) -> str:
    """Return the end of a sentence: the file, and what is wrong with it."""
    if isinstance(error, OSError):
        return f"can't be read: {path}: {error.strerror}."
    return f"can't be used: {path} {error}"
