"""Checks API keys: one from the environment, and those of a key file. Knows no HTTP.

The file is reloaded when it changes, so that a mounted Secret rotates without a restart.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from sandboxes.key_file import KeyFile
from sandboxes.variables import API_KEY

if TYPE_CHECKING:
    from sandboxes.settings import Settings


class ApiKeys:
    """The valid API keys: PROVISIONER_API_KEY, and each line of PROVISIONER_API_KEY_FILE.

    Raises StartupError if the file can't be read, has no key, or has an invalid line.
    """

    def __init__(self, settings: Settings) -> None:
        secret = settings.provisioner_api_key
        self._fixed = () if secret is None else (_digest(secret.get_secret_value()),)
        path = settings.provisioner_api_key_file
        self._file = None if path is None else KeyFile(path, "PROVISIONER_API_KEY_FILE", "API keys", _problem_of)
        self._of_file: tuple[str, ...] = ()
        self._digests: tuple[bytes, ...] = ()

    @property
    def are_required(self) -> bool:
        """Whether a key is configured, so that callers must send one."""
        return bool(self._fixed) or self._file is not None

    def accept(self, given: bytes) -> bool:
        """Whether `given` is a valid key. Takes the same time for every key, valid or not."""
        if self._file is not None and (keys := self._file.keys()) is not self._of_file:
            self._of_file, self._digests = keys, tuple(map(_digest, keys))
        digest = _digest(given)
        found = False
        for key in (*self._fixed, *self._digests):
            found |= hmac.compare_digest(digest, key)
        return found


def _digest(key: bytes | str) -> bytes:
    """Hash a key, so that all compared values have the same length."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _problem_of(line: str) -> str | None:
    if API_KEY.fullmatch(line):
        return None
    return "characters in line {number} that a header can't carry; only printable ASCII is allowed."
