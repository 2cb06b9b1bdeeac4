#!/usr/bin/env bash
# Serves the provisioner: on the cluster of your kubeconfig if there is one, else on an embedded stand-in.
#
#   ./scripts/run.sh                    on 127.0.0.1:8002
#   LISTEN_PORT=9000 ./scripts/run.sh   docs/reference/configuration.md lists every variable
#   SANDBOX_ACCESS=gateway ./scripts/run.sh   sandboxes by the gateway, on 127.0.0.1:8003
#   ./scripts/run.sh --clusters 2       on two stand-ins, to try several clusters behind one API
#
# Needs only Python 3.11 or later; installs everything else into a virtual environment, .venv.
set -euo pipefail

clusters=""
if [ $# -eq 2 ] && [ "$1" = --clusters ] && [[ $2 =~ ^[1-9]$ ]]; then
  clusters="$2"
elif [ $# -gt 0 ]; then
  echo "usage: [LISTEN_PORT=8002] [LISTEN_HOST=127.0.0.1] [KUBECONFIG=~/.kube/config] $0 [--clusters 1…9]" >&2
  exit 2
fi

# Before the cd below: a relative path is relative to the caller's directory.
absolute() {
  # shellcheck disable=SC2088 # a literal ~, as a file of variables would hold it
  case "$1" in
    "" | /*) printf '%s' "$1" ;;
    "~/"*) printf '%s/%s' "${HOME:-}" "${1#"~/"}" ;;
    *) printf '%s/%s' "$PWD" "$1" ;;
  esac
}

# devcluster's Pods have addresses of this machine, at which they answer then.
pod_servers=""
dial_pods() {
  if [ "${SANDBOX_ACCESS:-}" = gateway ]; then
    export SANDBOX_GATEWAY_DIAL="${SANDBOX_GATEWAY_DIAL:-pod-ip}"
    pod_servers="--pod-servers"
  fi
}

if [ -n "${KUBECONFIG_PATH:-}" ]; then
  KUBECONFIG_PATH="$(absolute "$KUBECONFIG_PATH")"
  export KUBECONFIG_PATH
fi
if [ -n "${KUBECONFIG:-}" ]; then
  IFS=: read -r -a paths <<<"$KUBECONFIG"
  for number in "${!paths[@]}"; do
    paths[number]="$(absolute "${paths[number]}")"
  done
  joined="$(IFS=: && echo "${paths[*]}")"
  # A list of nothing is left for the service to refuse.
  export KUBECONFIG="${joined:-$KUBECONFIG}"
fi
if [ -n "${CLUSTERS_FILE:-}" ]; then
  CLUSTERS_FILE="$(absolute "$CLUSTERS_FILE")"
  export CLUSTERS_FILE
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/venv.sh

# As in the image: return the memory of large lists to the kernel (see Dockerfile).
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}"
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-131072}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-131072}"

if [ -n "$clusters" ]; then
  for variable in CLUSTERS_FILE K8S_API_SERVER; do
    if [ -n "${!variable:-}" ]; then
      echo "run.sh: $variable is set, but --clusters starts clusters of its own" >&2
      exit 1
    fi
  done
  install_requirements requirements-dev.txt
  cat >&2 <<BANNER

  ############################################################################
  #                                                                          #
  #   This runs on $clusters clusters of devcluster, a stand-in for development,     #
  #   whatever kubeconfig there is. IT IS NOT KUBERNETES: no container is    #
  #   run and nothing is isolated. Sandboxes made here answer                #
  #   GET /v1/sandbox and no more, and all of them end with this process.    #
  #                                                                          #
  #   The list of the clusters is .dev-clusters/clusters.yaml. Edit it while #
  #   this runs, and watch what GET /api/clusters says.                      #
  #                                                                          #
  ############################################################################

BANNER
  export NODE_HOST="${NODE_HOST:-127.0.0.1}"
  dial_pods
  exec "$VENV/bin/python" -m devcluster ${pod_servers:+"$pod_servers"} --clusters "$clusters" \
    --directory .dev-clusters -- "$VENV/bin/python" provisioner.py
fi

# Its entries name their kubeconfigs.
if [ -n "${CLUSTERS_FILE:-}" ]; then
  install_requirements requirements.txt
  exec "$VENV/bin/python" provisioner.py
fi

# As the service does: KUBECONFIG_PATH, else the files of KUBECONFIG, else kubectl's default.
kubeconfig="${KUBECONFIG_PATH:-${KUBECONFIG:-${HOME:-}/.kube/config}}"
candidates=("$kubeconfig")
if [ -z "${KUBECONFIG_PATH:-}" ] && [ -n "${KUBECONFIG:-}" ]; then
  candidates=("${paths[@]}")
fi
for candidate in "${candidates[@]}" /var/run/secrets/kubernetes.io/serviceaccount/token; do
  if [ -n "$candidate" ] && [ -e "$candidate" ]; then
    install_requirements requirements.txt
    exec "$VENV/bin/python" provisioner.py
  fi
done

for variable in KUBECONFIG_PATH KUBECONFIG K8S_API_SERVER; do
  if [ -n "${!variable:-}" ]; then
    echo "run.sh: $variable is set, but there is no kubeconfig at $kubeconfig" >&2
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
  #   To use a real cluster, set KUBECONFIG (or KUBECONFIG_PATH, which wins) #
  #   and start again.                                                       #
  #                                                                          #
  ############################################################################

BANNER
export NODE_HOST="${NODE_HOST:-127.0.0.1}"
dial_pods
exec "$VENV/bin/python" -m devcluster ${pod_servers:+"$pod_servers"} -- "$VENV/bin/python" provisioner.py
