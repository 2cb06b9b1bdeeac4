"""What no line of the log may show of what kubectl is given: a kubeconfig's secrets, and those of its environment.

The files are looked at each time that a text is about to be shown: a kubeconfig that has changed is known before what
kubectl says about it.
"""

from __future__ import annotations

import math
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandboxes.deadlines import DEADLINES
from sandboxes.kubectl.kubeconfig import read_kubeconfig
from sandboxes.kubectl.secret_values import Secrets
from sandboxes.masking import Form, Forms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

# What was read stays hidden, since a kubectl that runs may have read it long ago. Bounded, so that credentials that
# rotate for months fill no memory; these are the forms of some hundred tokens. The oldest go first.
MOST_FORMS = 4_000

# For how long other programs' words are not repeated once a file could not be read whole: a kubectl that runs may have
# read it. Seconds.
UNREADABLE_SECONDS = DEADLINES.secrets_unreadable
STEP_SECONDS = DEADLINES.file_step

# More than any kubeconfig or token has; a larger file counts as one that can't be read.
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
        self._shown = Forms(self._of_environment)
        self._words = Forms()
        self._is_whole = True
        self._readable_at = -math.inf
        # The section and the name of two entries of the kubeconfig that have one name.
        self.doubled: tuple[str, str] | None = None

    def forms(self) -> tuple[Form, ...]:
        """Return what must not be shown now; reads what has changed since. Never raises, never logs."""
        is_new = False
        if (content := self._kubeconfig.changed()) is not None:
            self._kubeconfig.learn(self._read_kubeconfig(content))
            is_new = True
        for token in self._tokens.values():
            if (content := token.changed()) is not None:
                token.learn(_secrets_of_token(content))
                is_new = True
        files = (self._kubeconfig, *self._tokens.values())
        if is_new:
            self._shown = Forms(
                dict.fromkeys((*self._of_environment, *(form for file in files for form in file.forms)))
            )
            self._words = Forms(self._kubeconfig.words)
        if not (self._is_whole and all(file.is_readable for file in files)):
            self._readable_at = time.monotonic() + UNREADABLE_SECONDS
        return self._shown

    def forms_of_words(self) -> tuple[Form, ...] | None:
        """Return what else must not be shown of what credential plugins say.

        None if nothing of it may be shown, nor of what kubectl says: a file could not be read whole, now or a while
        ago.
        """
        self.forms()
        return None if time.monotonic() < self._readable_at else self._words

    def _read_kubeconfig(self, content: bytes) -> Secrets:
        found = read_kubeconfig(content)
        self._is_whole = found.is_whole
        self.doubled = found.doubled
        for name in found.token_files:
            if name not in self._tokens:
                self._tokens[name] = _File(self._kubeconfig.path.parent / name)
        return found.secrets


class _Known(dict[Form, None]):
    """Forms, those that were read last at the end; more than MOST_FORMS only if one reading has more."""

    def add(self, forms: tuple[Form, ...]) -> None:
        """Take in what one reading has to hide."""
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
    """A file that is read again when it has changed. `is_readable`: False while there may be more in it."""

    path: Path
    is_readable: bool = True
    forms: _Known = field(default_factory=_Known)
    words: _Known = field(default_factory=_Known)
    _content: bytes = b""
    _seen: tuple[int, ...] | None = None

    def learn(self, secrets: Secrets) -> None:
        """Keep what stands in it now, beside what stood in it before."""
        self.forms.add(secrets.forms())
        self.words.add(secrets.forms_of_words())

    def changed(self) -> bytes | None:
        """Return the content of the file if it is another than before."""
        try:
            status = self.path.stat()
            signature = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
            if signature == self._seen:
                return None
            # Whoever reads a pipe takes what is in it.
            content = self._read() if stat.S_ISREG(status.st_mode) else None
        except (FileNotFoundError, NotADirectoryError, ValueError):
            self.is_readable = True  # nor does kubectl find anything
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
