#!/usr/bin/env bash
# Runs lint, types and tests; needs no cluster, and no network beyond the package registry.
#
#   ./scripts/test.sh                  what to run before a commit: all of it but slow tests and devcluster's own
#   ./scripts/test.sh --all            all of it, as CI does; tests/load and `-m chaos tests/contract` are run by hand
#   ./scripts/test.sh tests/unit ...   only these tests, with pytest's own arguments, in one process and without lint
#
# HYPOTHESIS_PROFILE=few or all: how many examples tests with made-up input try; default: few, and all with --all.
# TEST_PROCESSES=N: how many processes share the tests; default: one for each core, and eight at most.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/venv.sh

case "${1:-}" in
  "") which=quick ;;
  --all) which=all && shift ;;
  -h | --help)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit
    ;;
  *) which=given ;;
esac

install_requirements requirements-dev.txt

if [ "$which" = given ]; then
  exec "$VENV/bin/python" -m pytest "$@"
fi

# mypy takes longer than all the others, and as they do, one core: it runs beside them.
"$VENV/bin/mypy" &
types=$!
trap 'kill "$types" 2>/dev/null || true' EXIT
"$VENV/bin/ruff" format --check --quiet .
"$VENV/bin/ruff" check --quiet .
"$VENV/bin/lint-imports" --no-cache >/dev/null || "$VENV/bin/lint-imports" --no-cache
"$VENV/bin/shellcheck" scripts/*.sh .ci/run
"$VENV/bin/hadolint" Dockerfile

share=(--numprocesses "${TEST_PROCESSES:-auto}" --maxprocesses 8 --dist worksteal)
if [ "$which" = all ]; then
  export HYPOTHESIS_PROFILE="${HYPOTHESIS_PROFILE:-all}"
  "$VENV/bin/sphinx-build" -W -q -b html docs docs/_build/html
  wait "$types"
  exec "$VENV/bin/python" -m pytest "${share[@]}" -m "not chaos" tests/unit tests/api tests/gateway tests/contract tests/e2e devcluster/tests "$@"
fi
wait "$types"
exec "$VENV/bin/python" -m pytest "${share[@]}" -m "not slow and not chaos"
