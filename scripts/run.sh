#!/usr/bin/env bash
# Serves the provisioner: on the cluster of your kubeconfig if there is one, else on an embedded stand-in.
#
#   ./scripts/run.sh            PORT (8002) and HOST say where; README.md lists every variable.
#
# Needs Python 3.11 or later and nothing else: the rest goes into a virtual environment beside this project.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/venv.sh

if [ -e "${KUBECONFIG_PATH:-$HOME/.kube/config}" ] || [ -e /var/run/secrets/kubernetes.io/serviceaccount/token ]; then
  install_requirements requirements.txt
  exec "$VENV/bin/python" provisioner.py
fi
if [ -n "${KUBECONFIG_PATH:-}" ]; then
  echo "run.sh: there is no kubeconfig at $KUBECONFIG_PATH" >&2
  exit 1
fi

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
  #                                                                          #
  ############################################################################

BANNER
export NODE_HOST="${NODE_HOST:-127.0.0.1}"
exec "$VENV/bin/python" -m devcluster -- "$VENV/bin/python" provisioner.py
