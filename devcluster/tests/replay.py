"""Replays recorded cases: the states of the recorded cluster, and the cases recorded in each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from devcluster import Cluster
from tests.contract.kuberc import write_kuberc
from tests.kubectl import Kubectl, Result
from tests.record import Case, case


@dataclass
class Replay:
    """A cluster and a kubectl that replay recorded cases."""

    cluster: Cluster
    kubectl: Kubectl
    names: dict[str, str] = field(default_factory=dict)
    """Replacements for the record's uids, versions and ports, by recorded value."""

    async def make_namespace(self, name: str) -> None:
        made = await self.kubectl("apply", "--server-side", "-f", "-", stdin=_namespace(name))
        assert made.rc == 0, made.stderr
        if self.cluster.get("ServiceAccount", name, "default") is None:
            await self.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=10s")

    async def apply_case(self, name: str, **changes: Any) -> None:
        """Apply the input of a recorded case, with changes to each spec."""
        stdin = json.loads(json.dumps(case(name).stdin))
        items = stdin["items"] if stdin["kind"] == "List" else [stdin]
        for item in items:
            item["spec"].update(changes)
        result = await self.kubectl.apply(*items)
        assert result.rc == 0, result.stderr

    async def run(self, recorded: Case) -> Result:
        text = recorded.stdin if isinstance(recorded.stdin, str) else json.dumps(recorded.stdin)
        argv = list(recorded.argv[1:])
        for old, new in {"16443": self.cluster.url.rpartition(":")[2], **self.names}.items():
            text = text.replace(old, new)
            argv = [arg.replace(old, new) for arg in argv]
        return await self.kubectl(*argv, stdin=text if recorded.stdin is not None else None)


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def empty_cluster(replay: Replay) -> None:
    """Leave the cluster as it starts."""


async def namespace_rec(replay: Replay) -> None:
    """Make the empty namespace rec."""
    await replay.make_namespace("rec")


async def sandbox_a(replay: Replay) -> None:
    """Make sandbox a, whose Pod is unschedulable."""
    await namespace_rec(replay)
    await replay.apply_case("apply-create")


async def sandboxes_b_c(replay: Replay) -> None:
    """Make sandboxes a, b and c by a call that fails in part."""
    await sandbox_a(replay)
    result = await replay.run(case("apply-partial-failure"))
    assert result.rc == 1


async def sandbox_ready(replay: Replay) -> None:
    """Make sandbox ready, and wait until it is ready."""
    await namespace_rec(replay)
    await replay.apply_case("apply-real-ready")
    ready = await replay.kubectl("wait", "--for=condition=Ready", "pod/sandbox-ready", "-n", "rec", "--timeout=20s")
    assert ready.rc == 0, ready.stderr


async def sandbox_slow(replay: Replay) -> None:
    """Make sandbox slow, which ignores SIGTERM."""
    await namespace_rec(replay)
    replay.cluster.stopping_takes(1000)
    await replay.apply_case("apply-real-slow")
    ready = await replay.kubectl("wait", "--for=condition=Ready", "pod/sandbox-slow", "-n", "rec", "--timeout=20s")
    assert ready.rc == 0, ready.stderr


async def sandbox_slow_terminating(replay: Replay) -> None:
    """Make sandbox slow, whose Pod terminates."""
    await sandbox_slow(replay)
    assert (await replay.run(case("delete-nowait"))).rc == 0


async def sandbox_slow_terminating_quickly(replay: Replay) -> None:
    """Make the same in a cluster with accelerated time."""
    await sandbox_slow_terminating(replay)


async def sandbox_slow_without_pod(replay: Replay) -> None:
    """Make sandbox slow without its Pod: its Service was applied again while the Pod terminated."""
    await sandbox_slow_terminating(replay)
    assert (await replay.run(case("apply-onto-terminating"))).rc == 0
    assert (await replay.run(case("wait-delete"))).rc == 0


async def namespace_rec2(replay: Replay) -> None:
    """Make the empty namespace rec2."""
    await replay.make_namespace("rec2")


async def namespace_rec_terminating(replay: Replay) -> None:
    """Make the namespace rec, which terminates slowly because of a Pod."""
    await sandbox_slow(replay)
    assert (await replay.kubectl("delete", "namespace", "rec", "--wait=false")).rc == 0


async def node_port_taken(replay: Replay) -> None:
    """Make a Service that already uses the case's node port."""
    await namespace_rec(replay)
    await replay.apply_case("apply-create")
    service = replay.cluster.get("Service", "rec", "sandbox-a-svc")
    assert service is not None
    replay.names["30185"] = str(service["spec"]["ports"][0]["nodePort"])


async def sandbox_p(replay: Replay) -> None:
    """Make sandbox p in rec2 and annotate it; map the record's uid and versions to its own."""
    await replay.make_namespace("rec2")
    pod = json.loads(json.dumps(case("apply-create").stdin["items"][0]).replace('"rec"', '"rec2"'))
    pod["metadata"] |= {"name": "sandbox-p", "labels": {"app": "deer-flow-sandbox", "sandbox-id": "p"}}
    assert (await replay.kubectl.apply(pod)).rc == 0
    before = replay.cluster.get("Pod", "rec2", "sandbox-p")
    assert before is not None
    annotated = await replay.kubectl("annotate", "pod/sandbox-p", "-n", "rec2", "a/b=c")
    assert annotated.rc == 0, annotated.stderr
    after = replay.cluster.get("Pod", "rec2", "sandbox-p")
    assert after is not None
    replay.names |= {
        "a77eef5b-2bc1-4f92-828c-3c8d13f605c5": after["metadata"]["uid"],
        "30136": before["metadata"]["resourceVersion"],
        "30144": after["metadata"]["resourceVersion"],
    }


async def sandbox_p_renewed(replay: Replay) -> None:
    """Make sandbox p with an expiry written by another field manager."""
    await sandbox_p(replay)
    assert (await replay.run(case("apply-annotation-only"))).rc == 0
    after = replay.cluster.get("Pod", "rec2", "sandbox-p")
    assert after is not None
    replay.names["30144"] = after["metadata"]["resourceVersion"]


async def namespace_rec2_new(replay: Replay) -> None:
    """Make the empty namespace rec2-new."""
    await replay.make_namespace("rec2-new")


async def sandbox_cr(replay: Replay) -> None:
    """Make sandbox cr in rec2-new by `kubectl create`."""
    await namespace_rec2_new(replay)
    assert (await replay.run(case("create-list"))).rc == 0


ROLE = case("rules-review-role").stdout["status"]["resourceRules"]
"""The recorded rules: two that every user has, then those of the Role."""


def restrict(replay: Replay, namespace: str, rules: Iterable[dict[str, Any]]) -> None:
    """Call as a service account that has only these rules."""
    replay.cluster.authorization.restrict(namespace, rules)
    replay.kubectl = Kubectl(replay.cluster.kubeconfig, replay.kubectl.home, tester=False)


async def with_role(replay: Replay) -> None:
    """Call as a service account with the recorded Role."""
    restrict(replay, "rec2-new", ROLE[2:])


async def without_role(replay: Replay) -> None:
    """Call as a service account without a Role."""
    restrict(replay, "rec2-new", ())


async def with_role_to_read_pods(replay: Replay) -> None:
    """Call as a service account that may read Pods."""
    restrict(replay, "rec", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}])


async def with_kuberc(replay: Replay) -> None:
    """Make the namespace rec2-new, and the recorded kuberc of the user."""
    await namespace_rec2_new(replay)
    write_kuberc(replay.kubectl.home, delete={"interactive": "true"}, apply={"dry-run": "server"})
    replay.names["/var/cache/kubectl"] = str(replay.kubectl.home / "cache")


async def sandbox_rc_with_kuberc(replay: Replay) -> None:
    """Make sandbox rc, then the kuberc."""
    await namespace_rec2_new(replay)
    assert (await replay.kubectl.apply(*case("kuberc-delete-interactive").stdin["items"])).rc == 0
    await with_kuberc(replay)


State = Callable[[Replay], Awaitable[None]]
CASES: dict[State, list[str]] = {
    empty_cluster: [
        *("namespace-get-missing", "namespace-get-missing-ignored", "namespace-apply", "apply-missing-namespace"),
        *("readyz", "version", "watch-two-kinds", "server-override-insecure", "server-override-tls-server-name"),
        *("server-override-name-mismatch", "context-missing", "config-view-server", "refused", "refused-apply"),
    ],
    namespace_rec: [
        *("apply-create", "apply-dry-run-server-strict", "apply-empty-stdin", "apply-not-yaml", "apply-invalid-name"),
        *("apply-label-too-long", "apply-hostpath-backstep", "apply-quantity-invalid", "apply-request-over-limit"),
        *("apply-unknown-field-ignored", "apply-unknown-field-strict", "delete-missing", "delete-missing-ignored"),
        *("delete-by-selector-none", "get-missing", "get-by-selector-none", "list-empty", "get-bad-selector"),
        *("annotate-missing", "apply-real-ready", "apply-real-unready", "apply-real-nopull", "apply-real-crash"),
        *("apply-real-done", "apply-real-fail", "apply-real-oom", "apply-real-mount", "apply-real-slow"),
    ],
    sandbox_a: [
        *("apply-unchanged", "apply-immutable-change", "apply-conflict", "get-one", "get-stdin", "get-half-missing"),
        *("get-half-missing-ignored", "pod-unschedulable", "events-unschedulable", "apply-one-object"),
        "apply-partial-failure",
    ],
    sandboxes_b_c: ["list-after-partial-failure", "delete-by-selector"],
    sandbox_ready: ["pod-ready", "annotate"],
    sandbox_slow: ["delete-nowait"],
    sandbox_slow_terminating_quickly: ["wait-delete"],
    sandbox_slow_without_pod: ["service-without-pod"],
    sandbox_slow_terminating: ["wait-delete-timeout", "pod-terminating", "apply-onto-terminating"],
    namespace_rec_terminating: ["apply-namespace-terminating"],
    node_port_taken: ["apply-nodeport-taken"],
    namespace_rec2: ["apply-annotation-only-missing", "delete-precondition-missing"],
    sandbox_p: ["apply-annotation-only", "apply-annotation-only-other-uid", "delete-precondition-stale"],
    sandbox_p_renewed: ["delete-precondition-right", "delete-precondition-other-uid"],
    namespace_rec2_new: [
        *("create-list", "create-list-name-output", "create-one"),
        *("rules-review-admin", "rules-review-no-namespace", "can-i-list-admin"),
        *("apply-mount-path-twice", "create-mount-path-twice", "apply-mount-without-volume"),
        *("apply-port-name-twice", "apply-port-twice", "create-port-twice"),
        *("apply-volume-name-twice", "apply-container-name-twice"),
        *("apply-env-twice", "apply-env-three-times", "apply-wrong-type-env-number", "apply-wrong-type-label"),
        *("apply-service-port-name-twice", "apply-service-port-no-name", "apply-service-port-twice"),
        *("apply-nodeport-headless", "apply-nodeport-on-cluster-ip", "apply-nodeport-on-headless-cluster-ip"),
        *("apply-exported-managed-fields", "create-unknown-field", "create-missing-namespace"),
        *("apply-annotation-only-uid-gone", "apply-annotation-only-list-both-gone", "apply-whole-pod-uid-gone"),
        *(
            "apply-exported-gone",
            "apply-runtime-class-missing",
            "apply-service-account-missing",
        ),
    ],
    with_role: ["rules-review-role", "can-i-list-role"],
    without_role: ["rules-review-no-role", "rules-review-other-namespace"],
    with_role_to_read_pods: ["can-i-list", "can-i-no"],
    sandbox_cr: ["create-list-exists-one", "create-list-exists-both"],
    with_kuberc: [
        *("kuberc-apply-dry-run", "kuberc-apply-dry-run-flag-first", "kuberc-apply-dry-run-none"),
        "kuberc-delete-interactive-missing",
    ],
    sandbox_rc_with_kuberc: ["kuberc-delete-interactive"],
}


REAL_TIME = (sandbox_slow_terminating, namespace_rec_terminating)
"""States that last for a Pod's grace period, which is too short with accelerated time."""


@asynccontextmanager
async def replay_cluster(tmp_path: Path, **options: Any) -> AsyncIterator[Replay]:
    async with Cluster(directory=tmp_path / "cluster", **options) as cluster:
        yield Replay(cluster, Kubectl(cluster.kubeconfig, tmp_path / "home"))


@dataclass
class SpecialCase:
    """A case that needs a cluster with special options."""

    case: str
    namespace: str
    options: dict[str, Any]


SPECIAL_CASES = [
    SpecialCase("apply-right-after-namespace", "np3", {"service_account_after": 10_000}),
    SpecialCase("apply-nodeports-exhausted", "np", {"node_port_range": ()}),
]

UNAUTHORIZED = ("unauthorized", "unauthorized-apply")
