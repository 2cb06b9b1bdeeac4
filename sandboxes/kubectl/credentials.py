"""What no line of the log may show of what kubectl is given: a kubeconfig's secrets, and those of its environment.

The files are looked at each time that a text is about to be shown: a kubeconfig that has changed is known before what
kubectl says about it.
"""

from __future__ import annotations

import stat
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxes.kubectl.kubeconfig import Kubeconfig, Secrets, read_kubeconfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from sandboxes.masking import Form

# A kubectl that runs may have read what stood in a file some changes ago.
KEPT_READINGS = 4

# A file that was changed less than this before it was read may change again without a sign: file systems count time
# in steps. Seconds.
STEP_SECONDS = 2.0

# More than any kubeconfig or token has; of a larger file nothing is known.
MAX_FILE_BYTES = 4 * 1024 * 1024

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Credentials:
    """The secrets of a kubeconfig, of the files of tokens that it names, and of the environment that kubectl sees.

    `passed`: the variables that the operator passes on to credential plugins.
    """

    def __init__(self, kubeconfig: Path, environ: Mapping[str, str], passed: Iterable[str]) -> None:
        self._kubeconfig = _File(kubeconfig)
        self._tokens: dict[str, _File] = {}
        self._of_environment = _secrets_of(environ, passed).forms()
        self._forms = self._of_environment
        # The section and the name of two entries of the kubeconfig that have one name.
        self.doubled: tuple[str, str] | None = None

    def forms(self) -> tuple[Form, ...]:
        """Return what must not be shown now; reads what has changed since. Never raises, never logs."""
        is_new = self._read_kubeconfig()
        for token in self._tokens.values():
            is_new |= self._read_token(token)
        if is_new:
            readings = [form for file in (self._kubeconfig, *self._tokens.values()) for form in file.forms()]
            self._forms = tuple(dict.fromkeys((*self._of_environment, *readings)))
        return self._forms

    def _read_kubeconfig(self) -> bool:
        if not self._kubeconfig.has_changed():
            return False
        found = read_kubeconfig(self._kubeconfig.content) or Kubeconfig()
        self._kubeconfig.readings.append(found.secrets.forms())
        self.doubled = found.doubled
        for name in found.token_files:
            if name not in self._tokens:
                self._tokens[name] = _File(self._kubeconfig.path.parent / name)
        return True

    @staticmethod
    def _read_token(file: _File) -> bool:
        if not file.has_changed():
            return False
        secrets = Secrets()
        secrets.add(file.content.decode(errors="replace"), "token", surely=True)
        file.readings.append(secrets.forms())
        return True


def _secrets_of(environ: Mapping[str, str], passed: Iterable[str]) -> Secrets:
    secrets = Secrets()
    for name in passed:
        secrets.add(environ.get(name, ""), name)
    for name in _PROXIES:
        for proxy in (environ.get(name), environ.get(name.lower())):
            if proxy:
                secrets.add_parts_of_address(proxy)
    return secrets


@dataclass
class _File:
    """A file that is read again when it has changed. `readings`: what its last contents had to hide."""

    path: Path
    content: bytes = b""
    readings: deque[tuple[Form, ...]] = field(default_factory=lambda: deque(maxlen=KEPT_READINGS))
    _seen: tuple[int, ...] | None = None

    def forms(self) -> Iterator[Form]:
        """Yield what is to be hidden of it, as it is and as it was."""
        for reading in self.readings:
            yield from reading

    def has_changed(self) -> bool:
        """Read the file if it may be another than before; whether it is. What can't be read has not changed."""
        try:
            status = self.path.stat()
            signature = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            # Whoever reads a pipe takes what is in it.
            if signature == self._seen or not stat.S_ISREG(status.st_mode):
                return False
            with self.path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError):
            return False
        is_settled = time.time() - max(signature[3:]) / 1e9 > STEP_SECONDS
        self._seen = signature if is_settled else None
        if len(content) > MAX_FILE_BYTES:
            content = b""
        is_new, self.content = content != self.content, content
        return is_new
