"""A separate log for a test, with the lines as the service formats them."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

from sandboxes import logs


class Log:
    """A logger whose handler writes to memory."""

    def __init__(self, **options: Any) -> None:
        self.written = io.StringIO()
        self.logger = logging.Logger("sandboxes.test", logging.DEBUG)  # noqa: LOG001 - only for this test
        self.handler = logging.StreamHandler(self.written)
        self.handler.setFormatter(logs.formatter(**options))
        self.logger.addHandler(self.handler)

    @property
    def lines(self) -> list[str]:
        return self.written.getvalue().splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]
