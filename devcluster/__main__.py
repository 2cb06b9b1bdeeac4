"""`python -m devcluster`: serve until told to stop, or for as long as a command runs."""

import sys

from devcluster.command import main

sys.exit(main(sys.argv[1:]))
