"""The states of the recorded cluster, how devcluster is brought into each, and which cases were recorded in it."""

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
class Stage:
    """A cluster that can be brought into the recorded states."""

    cluster: Cluster
    kubectl: Kubectl
    names: dict[str, str] = field(default_factory=dict)
    """What the record calls by another name than this cluster: uids, versions, ports."""

    async def namespace(self, name: str) -> None:
        made = await self.kubectl("apply", "--server-side", "-f", "-", stdin=_namespace(name))
        assert made.rc == 0, made.stderr
        if self.cluster.get("ServiceAccount", name, "default") is None:
            await self.kubectl("wait", "--for=create", "serviceaccount/default", "-n", name, "--timeout=10s")

    async def applied(self, name: str, **changes: Any) -> None:
        """Apply what a recorded case applied."""
        stdin = json.loads(json.dumps(case(name).stdin))
        items = stdin["items"] if stdin["kind"] == "List" else [stdin]
        for item in items:
            item["spec"].update(changes)
        result = await self.kubectl.apply(*items)
        assert result.rc == 0, result.stderr

    async def play(self, recorded: Case) -> Result:
        text = recorded.stdin if isinstance(recorded.stdin, str) else json.dumps(recorded.stdin)
        argv = list(recorded.argv[1:])
        for old, new in {"16443": self.cluster.url.rpartition(":")[2], **self.names}.items():
            text = text.replace(old, new)
            argv = [arg.replace(old, new) for arg in argv]
        return await self.kubectl(*argv, stdin=text if recorded.stdin is not None else None)


def _namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def nothing(stage: Stage) -> None:
    """A cluster as it comes."""


async def rec(stage: Stage) -> None:
    """The namespace, and nothing in it."""
    await stage.namespace("rec")


async def sandbox_a(stage: Stage) -> None:
    """Sandbox a, whose Pod no node is right for."""
    await rec(stage)
    await stage.applied("apply-create")


async def sandboxes_b_c(stage: Stage) -> None:
    """Sandboxes a, b and c, as left by a call of which a part failed."""
    await sandbox_a(stage)
    result = await stage.play(case("apply-partial-failure"))
    assert result.rc == 1


async def sandbox_ready(stage: Stage) -> None:
    """Sandbox ready, which is."""
    await rec(stage)
    await stage.applied("apply-real-ready")
    ready = await stage.kubectl("wait", "--for=condition=Ready", "pod/sandbox-ready", "-n", "rec", "--timeout=20s")
    assert ready.rc == 0, ready.stderr


async def sandbox_slow(stage: Stage) -> None:
    """Sandbox slow, which takes no heed of being told to end."""
    await rec(stage)
    stage.cluster.stopping_takes(1000)
    await stage.applied("apply-real-slow")
    ready = await stage.kubectl("wait", "--for=condition=Ready", "pod/sandbox-slow", "-n", "rec", "--timeout=20s")
    assert ready.rc == 0, ready.stderr


async def sandbox_slow_ending(stage: Stage) -> None:
    """Sandbox slow, on its way out."""
    await sandbox_slow(stage)
    assert (await stage.play(case("delete-nowait"))).rc == 0


async def sandbox_slow_leaving(stage: Stage) -> None:
    """The same, in a cluster whose time flies."""
    await sandbox_slow_ending(stage)


async def sandbox_slow_gone(stage: Stage) -> None:
    """Sandbox slow without its Pod: the Service was made anew while the Pod was on its way out."""
    await sandbox_slow_ending(stage)
    assert (await stage.play(case("apply-onto-terminating"))).rc == 0
    assert (await stage.play(case("wait-delete"))).rc == 0


async def rec2(stage: Stage) -> None:
    """Another namespace, and nothing in it."""
    await stage.namespace("rec2")


async def rec_ending(stage: Stage) -> None:
    """The namespace on its way out, held up by a Pod that takes its time."""
    await sandbox_slow(stage)
    assert (await stage.kubectl("delete", "namespace", "rec", "--wait=false")).rc == 0


async def port_taken(stage: Stage) -> None:
    """A Service that has the node port which the case asks for."""
    await rec(stage)
    await stage.applied("apply-create")
    service = stage.cluster.get("Service", "rec", "sandbox-a-svc")
    assert service is not None
    stage.names["30185"] = str(service["spec"]["ports"][0]["nodePort"])


async def sandbox_p(stage: Stage) -> None:
    """Sandbox p in rec2, annotated by hand; the record's uid and versions stand for this one's."""
    await stage.namespace("rec2")
    pod = json.loads(json.dumps(case("apply-create").stdin["items"][0]).replace('"rec"', '"rec2"'))
    pod["metadata"] |= {"name": "sandbox-p", "labels": {"app": "deer-flow-sandbox", "sandbox-id": "p"}}
    assert (await stage.kubectl.apply(pod)).rc == 0
    before = stage.cluster.get("Pod", "rec2", "sandbox-p")
    assert before is not None
    annotated = await stage.kubectl("annotate", "pod/sandbox-p", "-n", "rec2", "a/b=c")
    assert annotated.rc == 0, annotated.stderr
    after = stage.cluster.get("Pod", "rec2", "sandbox-p")
    assert after is not None
    stage.names |= {
        "a77eef5b-2bc1-4f92-828c-3c8d13f605c5": after["metadata"]["uid"],
        "30136": before["metadata"]["resourceVersion"],
        "30144": after["metadata"]["resourceVersion"],
    }


async def sandbox_p_renewed(stage: Stage) -> None:
    """The same, with the expiry that another field manager wrote."""
    await sandbox_p(stage)
    assert (await stage.play(case("apply-annotation-only"))).rc == 0
    after = stage.cluster.get("Pod", "rec2", "sandbox-p")
    assert after is not None
    stage.names["30144"] = after["metadata"]["resourceVersion"]


async def rec2_new(stage: Stage) -> None:
    """A third namespace, and nothing in it."""
    await stage.namespace("rec2-new")


async def sandbox_cr(stage: Stage) -> None:
    """Sandbox cr in it, made by a plain create."""
    await rec2_new(stage)
    assert (await stage.play(case("create-list"))).rc == 0


ROLE = case("rules-review-role").stdout["status"]["resourceRules"]
"""The rules of the recorded Role, behind two of everybody's."""


def restricted(stage: Stage, namespace: str, rules: Iterable[dict[str, Any]]) -> None:
    """Let the calls be those of a service account with these rules, and no others."""
    stage.cluster.authorization.restrict(namespace, rules)
    stage.kubectl = Kubectl(stage.cluster.kubeconfig, stage.kubectl.home, tester=False)


async def a_role(stage: Stage) -> None:
    """A service account with a Role of a few rights."""
    restricted(stage, "rec2-new", ROLE[2:])


async def no_role(stage: Stage) -> None:
    """A service account without a Role."""
    restricted(stage, "rec2-new", ())


async def a_role_that_reads_pods(stage: Stage) -> None:
    """A service account that may read Pods."""
    restricted(stage, "rec", [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}])


async def users_kuberc(stage: Stage) -> None:
    """The same namespace, and a kuberc of the user's, as recorded."""
    await rec2_new(stage)
    write_kuberc(stage.kubectl.home, delete={"interactive": "true"}, apply={"dry-run": "server"})
    stage.names["/var/cache/kubectl"] = str(stage.kubectl.home / "cache")


async def sandbox_rc(stage: Stage) -> None:
    """Sandbox rc, and then the kuberc."""
    await rec2_new(stage)
    assert (await stage.kubectl.apply(*case("kuberc-delete-interactive").stdin["items"])).rc == 0
    await users_kuberc(stage)


State = Callable[[Stage], Awaitable[None]]
CASES: dict[State, list[str]] = {
    nothing: [
        *("namespace-get-missing", "namespace-get-missing-ignored", "namespace-apply", "apply-missing-namespace"),
        *("readyz", "version", "watch-two-kinds", "server-override-insecure", "server-override-tls-server-name"),
        *("server-override-name-mismatch", "context-missing", "config-view-server", "refused", "refused-apply"),
    ],
    rec: [
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
    sandbox_slow_leaving: ["wait-delete"],
    sandbox_slow_gone: ["service-without-pod"],
    sandbox_slow_ending: ["wait-delete-timeout", "pod-terminating", "apply-onto-terminating"],
    rec_ending: ["apply-namespace-terminating"],
    port_taken: ["apply-nodeport-taken"],
    rec2: ["apply-annotation-only-missing", "delete-precondition-missing"],
    sandbox_p: ["apply-annotation-only", "apply-annotation-only-other-uid", "delete-precondition-stale"],
    sandbox_p_renewed: ["delete-precondition-right", "delete-precondition-other-uid"],
    rec2_new: [
        *("create-list", "create-list-name-output", "create-one"),
        *("rules-review-admin", "rules-review-no-namespace", "can-i-list-admin"),
        *("apply-mount-path-twice", "create-mount-path-twice", "apply-mount-without-volume"),
        *("apply-port-name-twice", "apply-port-twice", "create-port-twice"),
        *("apply-volume-name-twice", "apply-container-name-twice"),
        *("apply-service-port-name-twice", "apply-service-port-no-name", "apply-service-port-twice"),
        *("apply-nodeport-headless", "apply-nodeport-on-cluster-ip", "apply-nodeport-on-headless-cluster-ip"),
        "apply-exported-managed-fields",
    ],
    a_role: ["rules-review-role", "can-i-list-role"],
    no_role: ["rules-review-no-role", "rules-review-other-namespace"],
    a_role_that_reads_pods: ["can-i-list", "can-i-no"],
    sandbox_cr: ["create-list-exists-one"],
    users_kuberc: [
        *("kuberc-apply-dry-run", "kuberc-apply-dry-run-flag-first", "kuberc-apply-dry-run-none"),
        "kuberc-delete-interactive-missing",
    ],
    sandbox_rc: ["kuberc-delete-interactive"],
}


IN_REAL_TIME = (sandbox_slow_ending, rec_ending)
"""States that last for a Pod's grace, which is over too soon when time flies."""


@asynccontextmanager
async def staged(tmp_path: Path, **options: Any) -> AsyncIterator[Stage]:
    async with Cluster(directory=tmp_path / "cluster", **options) as cluster:
        yield Stage(cluster, Kubectl(cluster.kubeconfig, tmp_path / "home"))


@dataclass
class Special:
    """A case that needs a cluster of its own making."""

    case: str
    namespace: str
    options: dict[str, Any]


SPECIALS = [
    Special("apply-right-after-namespace", "np3", {"service_account_after": 10_000}),
    Special("apply-nodeports-exhausted", "np", {"node_port_range": ()}),
]

UNAUTHORIZED = ("unauthorized", "unauthorized-apply")
