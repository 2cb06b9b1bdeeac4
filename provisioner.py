"""Entry point: `python provisioner.py`. See `sandboxes/cli.py`."""

from __future__ import annotations

import sys

from sandboxes.cli import main
from sandboxes.logs import show_uncaught

if __name__ == "__main__":
    sys.excepthook = show_uncaught
    sys.exit(main())
