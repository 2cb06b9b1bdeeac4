# Sourced by the other scripts: finds Python 3.11 or later and keeps a virtual environment in .venv.
# shellcheck shell=bash

VENV="$PWD/.venv"

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    if ! is_new_enough "$PYTHON"; then
      echo "PYTHON names $PYTHON, which is not a Python of version 3.11 or later" >&2
      return 1
    fi
    echo "$PYTHON"
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python; do
    if is_new_enough "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  echo "Python 3.11 or later is needed; python3 here is $(python3 --version 2>&1 || true)" >&2
  echo "Name another one with PYTHON=/path/to/python3" >&2
  return 1
}

# install_requirements FILE: does nothing if FILE is unchanged since it was last installed.
install_requirements() {
  local stamp="$VENV/.installed-$1"
  if [ -x "$VENV/bin/python" ] && cmp -s "$1" "$stamp"; then
    return
  fi
  local python
  python="$(find_python)"
  if [ ! -x "$VENV/bin/python" ]; then
    "$python" -m venv --clear "$VENV"
  fi
  echo "installing $1 into .venv, once ..." >&2
  # Python compiles the modules that are imported; pip would compile all, and most are not.
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r "$1" >&2
  cp "$1" "$stamp"
}
