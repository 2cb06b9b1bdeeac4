"""`python -m devcluster`: serves until a signal, or while a command runs."""

import sys

from devcluster.command import main

sys.exit(main(sys.argv[1:]))
