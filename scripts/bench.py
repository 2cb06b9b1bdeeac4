"""The way in to the benchmark in `scripts/bench/`: `.venv/bin/python scripts/bench.py --help`.

A package is found before a module of the same name, so `python -m scripts.bench` is the same program.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.bench.command import main

if __name__ == "__main__":
    sys.exit(main())
