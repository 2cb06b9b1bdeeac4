#!/usr/bin/env bash
# Runs lint, types and every test; needs no cluster, and no network beyond the package registry.
#
#   ./scripts/test.sh                  all of it
#   ./scripts/test.sh tests/unit ...   only these tests, with pytest's own arguments, and no lint
#
# HYPOTHESIS_PROFILE=few or all: number of examples of property-based tests; default without arguments: all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/venv.sh
install_requirements requirements-dev.txt

if [ $# -eq 0 ]; then
  export HYPOTHESIS_PROFILE="${HYPOTHESIS_PROFILE:-all}"
  "$VENV/bin/ruff" format --check --quiet .
  "$VENV/bin/ruff" check --quiet .
  "$VENV/bin/lint-imports" --no-cache >/dev/null || "$VENV/bin/lint-imports" --no-cache
  "$VENV/bin/mypy"
  "$VENV/bin/shellcheck" scripts/*.sh .ci/run
  "$VENV/bin/hadolint" Dockerfile
fi
exec "$VENV/bin/python" -m pytest "$@"
