"""A log of its own for a test: the lines, as they leave the process."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

from sandboxes import logs


class Log:
    """A logger with a handler of its own."""

    def __init__(self, **options: Any) -> None:
        self.written = io.StringIO()
        self.logger = logging.Logger("sandboxes.test", logging.DEBUG)  # noqa: LOG001 - of this test alone
        self.handler = logging.StreamHandler(self.written)
        self.handler.setFormatter(logs.formatter(**options))
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.written.getvalue().splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]
