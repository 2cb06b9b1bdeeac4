# Sourced by the other scripts: finds Python 3.11 or later and keeps a virtual environment in .venv.
# shellcheck shell=bash

VENV="$PWD/.venv"

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or later is needed; name one with PYTHON=/path/to/python3" >&2
  return 1
}

# install_requirements FILE: does nothing if this very FILE is installed already.
install_requirements() {
  local stamp="$VENV/.installed-$1"
  if [ -x "$VENV/bin/python" ] && cmp -s "$1" "$stamp"; then
    return
  fi
  local python
  python="$(find_python)"
  if [ ! -x "$VENV/bin/python" ]; then
    "$python" -m venv "$VENV"
  fi
  echo "installing $1 into .venv ..." >&2
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$1" >&2
  cp "$1" "$stamp"
}
