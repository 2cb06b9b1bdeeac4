#!/usr/bin/env bash
# Tests a running provisioner with one sandbox: create, reach, get, list, create again, delete, gone.
#
#   scripts/smoke.sh BASE_URL [--kubectl]
#
#   --kubectl            show and check the objects by kubectl, too (namespace: K8S_NAMESPACE, default deer-flow)
#   API_KEY=...          sent as X-API-Key (default: PROVISIONER_API_KEY)
#   SMOKE_TIMEOUT=60     seconds to wait for the sandbox's URL to answer
#
# Needs bash and curl. At the first failure prints a sentence and exits with 1. Always deletes the sandbox.
set -euo pipefail

usage() {
  echo "usage: $0 BASE_URL [--kubectl]" >&2
  exit 2
}

[ $# -ge 1 ] || usage
base="${1%/}"
with_kubectl=false
case "${2:-}" in
  "") ;;
  --kubectl) with_kubectl=true ;;
  *) usage ;;
esac
namespace="${K8S_NAMESPACE:-deer-flow}"
key="${API_KEY:-${PROVISIONER_API_KEY:-}}"
id="smoke-$$-$RANDOM"
answer="$(mktemp)"
status=
made=false

fail() {
  echo "smoke: $*" >&2
  exit 1
}

# call METHOD PATH [BODY]: sets $status, and fills the file $answer.
call() {
  local arguments=(--silent --show-error --max-time 30 --output "$answer" --write-out '%{http_code}' --request "$1")
  if [ -n "$key" ]; then
    # through stdin: other processes can read arguments
    arguments+=(--header @-)
  fi
  if [ $# -eq 3 ]; then
    arguments+=(--header 'Content-Type: application/json' --data "$3")
  fi
  status="$(curl "${arguments[@]}" "$base$2" <<<"X-API-Key: $key")" || fail "$1 $2 got no answer from $base"
}

# expect STATUS WHAT: the last call's status.
expect() {
  [ "$status" != 401 ] || fail "$2 answered 401: set API_KEY to the provisioner's PROVISIONER_API_KEY: $(cat "$answer")"
  [ "$status" = "$1" ] || fail "$2 answered $status instead of $1: $(cat "$answer")"
}

# field NAME: a string of the last answer. Ids, URLs and words need no JSON escapes.
field() {
  sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$answer"
}

# holds TEXT WHAT
holds() {
  grep -qF "$1" "$answer" || fail "$2 lacks $1: $(cat "$answer")"
}

# shellcheck disable=SC2329 # called by the trap
clean_up() {
  local code=$?
  trap - EXIT
  if $made; then
    (call DELETE "/api/sandboxes/$id" && expect 200 "the clean-up") ||
      echo "smoke: the sandbox $id may be left behind" >&2
  fi
  rm -f "$answer"
  exit "$code"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

call GET /health
expect 200 "GET /health"
holds '"ok"' "GET /health"
echo "health            ok"

body="{\"sandbox_id\":\"$id\",\"thread_id\":\"smoke\"}"
made=true
call POST /api/sandboxes "$body"
# a refused key made nothing, and deletes nothing
[ "$status" != 401 ] || made=false
expect 200 "the create"
url="$(field sandbox_url)"
[ -n "$url" ] || fail "the create answered no sandbox_url: $(cat "$answer")"
[ "$(field sandbox_id)" = "$id" ] || fail "the create answered another sandbox: $(cat "$answer")"
echo "create            $id at $url"

deadline=$((SECONDS + ${SMOKE_TIMEOUT:-60}))
until curl --silent --fail --max-time 5 --output "$answer" "$url/v1/sandbox"; do
  [ $SECONDS -lt $deadline ] || fail "$url/v1/sandbox did not answer within ${SMOKE_TIMEOUT:-60} s"
  sleep 0.2
done
echo "reach             $url/v1/sandbox answers"

# The kubelet reports a container that already answers about once a second.
deadline=$((SECONDS + 5))
while
  call GET "/api/sandboxes/$id"
  expect 200 "the get"
  [ "$(field status)" != Running ]
do
  [ $SECONDS -lt $deadline ] || fail "the sandbox is not Running though its URL answers: $(cat "$answer")"
  sleep 0.2
done
[ "$(field sandbox_url)" = "$url" ] || fail "the get answered another URL than the create: $(cat "$answer")"
echo "get               Running"

call GET /api/sandboxes
expect 200 "the list"
holds "\"$id\"" "the list"
echo "list              has it"

call POST /api/sandboxes "$body"
expect 200 "the second create"
[ "$(field sandbox_url)" = "$url" ] || fail "the second create answered another sandbox: $(cat "$answer")"
echo "create again      the same"

if $with_kubectl; then
  kubectl get pod,svc -n "$namespace" -l "sandbox-id=$id" ||
    fail "kubectl can't see that cluster; set KUBECONFIG to the kubeconfig that the provisioner's log names at its start"
  seen="$(kubectl get pod,svc -n "$namespace" -l "sandbox-id=$id" -o name)"
  [ "$(wc -l <<<"$seen")" -eq 2 ] || fail "kubectl does not list exactly one Pod and one Service: $seen"
fi

call DELETE "/api/sandboxes/$id"
expect 200 "the delete"
made=false
call GET "/api/sandboxes/$id"
expect 404 "the get after the delete"
echo "delete            gone"
echo "smoke: all is well"
