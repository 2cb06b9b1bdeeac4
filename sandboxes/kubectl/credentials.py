"""Collects the secrets that kubectl can read, so that the log masks them: of the kubeconfig and of its environment.

The files are checked for changes before each text is shown, so that a new kubeconfig is known before kubectl's messages
about it are logged.
"""

from __future__ import annotations

import math
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxes.deadlines import DEADLINES
from sandboxes.kubectl.kubeconfig import Kubeconfig, read_kubeconfig
from sandboxes.kubectl.secret_values import Secrets
from sandboxes.masking import Form, Forms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

# Old secrets stay masked, since a running kubectl may have read them. Limited, so that months of rotating credentials
# do not fill the memory: these are the forms of about a hundred tokens. The oldest are dropped first.
MOST_FORMS = 4_000

# Seconds for which the output of kubectl and plugins stays hidden after a file could not be read completely: a running
# kubectl may have read it.
UNREADABLE_SECONDS = DEADLINES.secrets_unreadable
STEP_SECONDS = DEADLINES.file_step

# Larger than any kubeconfig or token; a larger file counts as unreadable.
MAX_FILE_BYTES = 4 * 1024 * 1024

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class Credentials:
    """Secrets in a kubeconfig, in the token files that it names, and in kubectl's environment.

    `passed`: names of the variables that the operator passes to credential plugins. `more`: further kubeconfigs, which
    kubectl merges with the first.
    """

    def __init__(
        self, kubeconfig: Path, environ: Mapping[str, str], passed: Iterable[str], *, more: Sequence[Path] = ()
    ) -> None:
        self._kubeconfigs = {path: _File(path) for path in (kubeconfig, *more)}
        self._read: dict[Path, Kubeconfig] = {}
        self._tokens: dict[Path, _File] = {}
        self._of_environment = _secrets_of(environ, passed).forms()
        self._shown = Forms(self._of_environment)
        self._words = Forms()
        self._readable_at = -math.inf

    def forms(self) -> tuple[Form, ...]:
        """Return the forms to mask, after reading changed files. Never raises, never logs."""
        is_new = False
        for path, file in self._kubeconfigs.items():
            if (content := file.changed()) is not None:
                file.learn(self._read_kubeconfig(path, content))
                is_new = True
        for token in self._tokens.values():
            if (content := token.changed()) is not None:
                token.learn(_secrets_of_token(content))
                is_new = True
        files = (*self._kubeconfigs.values(), *self._tokens.values())
        if is_new:
            self._shown = Forms(
                dict.fromkeys((*self._of_environment, *(form for file in files for form in file.forms)))
            )
            self._words = Forms(dict.fromkeys(form for file in self._kubeconfigs.values() for form in file.words))
        is_whole = all(found.is_whole for found in self._read.values())
        if not (is_whole and all(file.is_readable for file in files)):
            self._readable_at = time.monotonic() + UNREADABLE_SECONDS
        return self._shown

    @property
    def doubled(self) -> tuple[str, str] | None:
        """(section, name) of the first duplicate name in a kubeconfig."""
        return next((found.doubled for found in self._read.values() if found.doubled), None)

    @property
    def plugins(self) -> tuple[str, ...]:
        """The commands of all credential plugins that the kubeconfigs name."""
        return tuple(dict.fromkeys(command for found in self._read.values() for command in found.plugins))

    def forms_of_words(self) -> tuple[Form, ...] | None:
        """Return the additional forms to mask in the output of credential plugins.

        None if neither their output nor kubectl's may be shown, because a file could not be read completely within
        the last UNREADABLE_SECONDS.
        """
        self.forms()
        return None if time.monotonic() < self._readable_at else self._words

    def _read_kubeconfig(self, path: Path, content: bytes) -> Secrets:
        found = self._read[path] = read_kubeconfig(content)
        for name in found.token_files:
            token = path.parent / name
            if token not in self._tokens:
                self._tokens[token] = _File(token)
        return found.secrets


class _Known(dict[Form, None]):
    """Forms in the order in which they were last read; more than MOST_FORMS only if a single file has more."""

    def add(self, forms: tuple[Form, ...]) -> None:
        """Add the forms of one reading of the file; drop the oldest above the limit."""
        for form in forms:
            self.pop(form, None)
            self[form] = None
        for form in [*self][: max(0, len(self) - max(MOST_FORMS, len(forms)))]:
            del self[form]


def _secrets_of_token(content: bytes) -> Secrets:
    secrets = Secrets()
    secrets.add(content.decode(errors="replace"), "token", surely=True)
    return secrets


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
    """A file that is read again after a change. `is_readable`: False if it may have content that was not read."""

    path: Path
    is_readable: bool = True
    forms: _Known = field(default_factory=_Known)
    words: _Known = field(default_factory=_Known)
    _content: bytes = b""
    _seen: tuple[int, ...] | None = None

    def learn(self, secrets: Secrets) -> None:
        """Add the secrets of the current content; earlier ones are kept."""
        self.forms.add(secrets.forms())
        self.words.add(secrets.forms_of_words())

    def changed(self) -> bytes | None:
        """Return the content if it has changed, else None."""
        try:
            status = self.path.stat()
            signature = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            if signature == self._seen:
                return None
            # Reading a pipe would consume its content.
            content = self._read() if stat.S_ISREG(status.st_mode) else None
        except (FileNotFoundError, NotADirectoryError, ValueError):
            self.is_readable = True  # kubectl can't find it either
            return None
        except OSError:
            self.is_readable = False
            return None
        is_settled = time.time() - max(signature[3:]) / 1e9 > STEP_SECONDS
        self._seen = signature if is_settled else None
        self.is_readable = content is not None
        if content is None or content == self._content:
            return None
        self._content = content
        return content

    def _read(self) -> bytes | None:
        with self.path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        return content if len(content) <= MAX_FILE_BYTES else None
