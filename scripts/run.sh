#!/usr/bin/env bash
# Serves the provisioner: on the cluster of your kubeconfig if there is one, else on an embedded stand-in.
#
#   ./scripts/run.sh                    on 127.0.0.1:8002
#   LISTEN_PORT=9000 ./scripts/run.sh   docs/reference/configuration.md lists every variable
#
# Needs only Python 3.11 or later; installs everything else into a virtual environment, .venv.
set -euo pipefail

if [ $# -gt 0 ]; then
  echo "usage: [LISTEN_PORT=8002] [LISTEN_HOST=127.0.0.1] [KUBECONFIG_PATH=~/.kube/config] $0" >&2
  exit 2
fi

# Before the cd below: a relative path is relative to the caller's directory.
if [ -n "${KUBECONFIG_PATH:-}" ]; then
  # shellcheck disable=SC2088 # a literal ~, as a file of variables would hold it
  case "$KUBECONFIG_PATH" in
    "~/"*) KUBECONFIG_PATH="${HOME:-}/${KUBECONFIG_PATH#"~/"}" ;;
    /*) ;;
    *) KUBECONFIG_PATH="$PWD/$KUBECONFIG_PATH" ;;
  esac
  export KUBECONFIG_PATH
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/venv.sh

# As in the image: return the memory of large lists to the kernel (see Dockerfile).
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}"
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-131072}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-131072}"

if [ -e "${KUBECONFIG_PATH:-${HOME:-}/.kube/config}" ] || [ -e /var/run/secrets/kubernetes.io/serviceaccount/token ]; then
  install_requirements requirements.txt
  exec "$VENV/bin/python" provisioner.py
fi

for variable in KUBECONFIG_PATH K8S_API_SERVER; do
  if [ -n "${!variable:-}" ]; then
    echo "run.sh: $variable is set, but there is no kubeconfig at ${KUBECONFIG_PATH:-~/.kube/config}" >&2
    exit 1
  fi
done
install_requirements requirements-dev.txt
cat >&2 <<'BANNER'

  ############################################################################
  #                                                                          #
  #   There is no kubeconfig at ~/.kube/config, so this runs on devcluster,  #
  #   a stand-in for development. IT IS NOT KUBERNETES: no container is run  #
  #   and nothing is isolated. Sandboxes made here answer GET /v1/sandbox    #
  #   and no more, and all of them end with this process.                    #
  #                                                                          #
  #   To use a real cluster, set KUBECONFIG_PATH and start again.            #
  #   (The variable KUBECONFIG is not read.)                                 #
  #                                                                          #
  ############################################################################

BANNER
export NODE_HOST="${NODE_HOST:-127.0.0.1}"
exec "$VENV/bin/python" -m devcluster -- "$VENV/bin/python" provisioner.py
