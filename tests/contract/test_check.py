"""`provisioner.py check` as a process: its lines and exit code on a ready cluster, and for each problem."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kmock
import pytest
import yaml

from devcluster import Cluster, once
from devcluster.authorization import rights_of
from sandboxes.app import load_all_templates
from sandboxes.ops.rights import rights_wanted
from sandboxes.settings import Settings
from tests.conftest import ROOT
from tests.contract.kubectls import new_kubectl
from tests.contract.processes import environment, free_port, run
from tests.deploy import objects
from tests.kubectl import Kubectl
from tests.marker import MARKER

NS = "deer-flow"
RULES = kmock.resource("authorization.k8s.io", "v1", "selfsubjectrulesreviews")


class Checked:
    """The result of a check; `of` returns the only line about a topic."""

    def __init__(self, returncode: int | None, stdout: str, stderr: str) -> None:
        self.returncode = returncode
        self.lines = stdout.splitlines()
        self.stderr = stderr

    def of(self, what: str) -> str:
        (line,) = (line for line in self.lines if f" {what}:" in line)
        return line

    def starting_with(self, word: str) -> list[str]:
        return [line.removeprefix(word).strip() for line in self.lines if line.startswith(word)]


async def check(cluster: Cluster, tmp_path: Path, **variables: str) -> Checked:
    environ = environment(tmp_path, **{"KUBECONFIG_PATH": str(cluster.kubeconfig), **variables})
    return Checked(*await run(sys.executable, str(ROOT / "provisioner.py"), "check", environ=environ))


class RecordingKubectl:
    """The real kubectl, which records each of its starts."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._notes = directory / "notes"
        self._notes.touch()
        self.path = directory / "kubectl"
        self.path.write_text(f'#!/bin/sh\necho "$*" >> {self._notes}\nexec {new_kubectl()} "$@"\n', encoding="utf-8")
        self.path.chmod(0o755)

    def calls(self) -> list[str]:
        return self._notes.read_text(encoding="utf-8").splitlines()

    def can_i_checks(self) -> list[str]:
        """Return the arguments of each `auth can-i`."""
        checks = [call.partition(" auth can-i ")[2] for call in self.calls()]
        return [one.removesuffix(f" -n {NS}") for one in checks if one]


@pytest.fixture
def recording(tmp_path: Path) -> RecordingKubectl:
    return RecordingKubectl(tmp_path / "noting")


def rule(resource: str, *verbs: str) -> dict[str, Any]:
    """Return a rule of a Role on one resource of the core group; `*` stands for all verbs that `check` needs."""
    every = ("create", "delete", "get", "list", "patch", "watch")
    return {"apiGroups": [""], "resources": [resource], "verbs": list(every if verbs == ("*",) else verbs)}


@pytest.fixture
async def namespace(kubectl: Kubectl) -> None:
    assert (await kubectl("create", "namespace", NS)).rc == 0


@pytest.mark.usefixtures("namespace")
async def test_every_line_is_ok_on_a_ready_cluster(cluster: Cluster, kubectl: Kubectl, tmp_path: Path) -> None:
    runtime_class = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": "runsc"}
    assert (await kubectl("create", "-f", "-", stdin={**runtime_class, "metadata": {"name": "gvisor"}})).rc == 0
    checked = await check(cluster, tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert [line for line in checked.lines if not line.startswith("ok ")] == []
    assert str(cluster.kubeconfig) in checked.of("kubeconfig")
    assert "context devcluster" in checked.of("kubeconfig")
    assert cluster.url in checked.of("address")
    for what in ("kubectl", "certificate", "API server", "namespace", "rights on pods", "quota", "template default"):
        assert checked.of(what)
    assert cluster.objects("Pod") == []


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
async def test_the_shipped_role_passes_and_unreadable_parts_are_not_permitted(cluster: Cluster, tmp_path: Path) -> None:
    cluster.authorization.restrict(NS, objects(new_kubectl(), ".")["Role"]["rules"])
    checked = await check(cluster, tmp_path)
    assert (checked.returncode, checked.starting_with("FAIL")) == (0, [])
    assert [line.partition(":")[0] for line in checked.starting_with("not permitted")] == [
        "namespace", "quota", "template isolated",
    ]  # fmt: skip


def test_the_required_rights_equal_the_shipped_role(make_settings: Any) -> None:
    def required(settings: Settings) -> set[tuple[str, str]]:
        wanted = rights_wanted(load_all_templates(settings), settings)
        return {(verb, resource) for resource, one in wanted.items() for verb in one.verbs}

    def granted(folder: str) -> set[tuple[str, str]]:
        rights = rights_of(objects(new_kubectl(), folder)["Role"]["rules"])
        return {(one.verb, f"{one.resource}.{one.group}" if one.group else one.resource) for one in rights}

    assert required(make_settings()) == granted(".")
    assert required(make_settings(SANDBOX_NETWORK_POLICY="isolated")) == granted("overlays/production")


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
async def test_each_missing_right_is_named(cluster: Cluster, tmp_path: Path) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    cluster.authorization.restrict(NS, rules)
    checked = await check(cluster, tmp_path)
    assert checked.returncode == 1
    assert checked.of("rights on pods") == "FAIL          rights on pods: missing create, delete, patch, watch"
    assert checked.of("rights on services").startswith("FAIL")
    assert checked.of("rights on events").startswith("not permitted rights on events: list; so diagnostics")
    assert "lacks the right to create pods" in checked.of("template default")


CHARTS_ROLE = [
    rule("pods", "create", "delete", "get", "list", "watch"),
    rule("services", "create", "delete", "get", "list", "watch"),
    rule("pods/log", "get"),
]
"""The Role of DeerFlow's chart."""


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
async def test_the_role_of_deerflows_chart_passes(cluster: Cluster, tmp_path: Path) -> None:
    cluster.authorization.restrict(NS, CHARTS_ROLE)
    checked = await check(cluster, tmp_path)
    assert (checked.returncode, checked.starting_with("FAIL")) == (0, [])
    for resource in ("pods", "services"):
        start = f"not permitted rights on {resource}: patch; so sandboxes are made by `kubectl create`"
        assert checked.of(f"rights on {resource}").startswith(start)
    assert checked.of("template default") == "ok            template default: the cluster accepts it (dry run)"


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
async def test_a_missing_right_that_the_settings_need_fails(cluster: Cluster, tmp_path: Path) -> None:
    cluster.authorization.restrict(NS, CHARTS_ROLE)
    checked = await check(cluster, tmp_path, SANDBOX_IDLE_TIMEOUT="600", SANDBOX_NETWORK_POLICY="isolated")
    assert checked.returncode == 1
    assert checked.of("rights on pods") == "FAIL          rights on pods: missing patch"
    policies = checked.of("rights on networkpolicies.networking.k8s.io")
    assert policies == "FAIL          rights on networkpolicies.networking.k8s.io: missing create, list, patch"


def test_the_right_to_watch_is_not_required_without_a_live_view(make_settings: Any) -> None:
    settings = make_settings(LIVE_VIEW="false")
    assert "watch" not in rights_wanted(load_all_templates(settings), settings)["pods"].verbs


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
async def test_a_check_starts_at_most_twelve_kubectl_processes(
    cluster: Cluster, tmp_path: Path, recording: RecordingKubectl
) -> None:
    checked = await check(cluster, tmp_path, KUBECTL=str(recording.path))
    assert checked.of("rights on pods") == "ok            rights on pods: create, delete, get, list, patch, watch"
    assert len(recording.calls()) <= 12
    assert recording.can_i_checks() == []


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
async def test_a_right_missing_from_complete_rules_is_not_checked_again(
    cluster: Cluster, tmp_path: Path, recording: RecordingKubectl
) -> None:
    cluster.authorization.restrict(NS, [rule("pods", "get", "list")])
    checked = await check(cluster, tmp_path, KUBECTL=str(recording.path))
    assert checked.of("rights on pods").endswith("missing create, delete, patch, watch")
    assert recording.can_i_checks() == []


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
async def test_only_rights_missing_from_incomplete_rules_are_checked_one_by_one(
    cluster: Cluster, tmp_path: Path, recording: RecordingKubectl
) -> None:
    """As on GKE, where a webhook authorizer grants rights beyond the rules."""
    cluster.authorization.restrict(
        NS,
        [rule("pods", "create", "get", "list", "patch", "watch"), rule("services", "*")],
        by_webhook=[rule("pods", "delete"), rule("pods/log", "get"), rule("configmaps", "list")],
    )
    checked = await check(cluster, tmp_path, KUBECTL=str(recording.path))
    assert checked.of("rights on pods") == "ok            rights on pods: create, delete, get, list, patch, watch"
    assert checked.of("rights on configmaps") == "ok            rights on configmaps: list"
    assert checked.of("rights on pods/log") == "ok            rights on pods/log: get"
    assert [line for line in checked.starting_with("FAIL") if line.startswith("rights")] == []
    leftovers = "leftovers of templates stay"
    of_claims = f"so the template persistent can't be used, and {leftovers}"
    assert checked.starting_with("not permitted")[1:3] == [
        f"rights on networkpolicies.networking.k8s.io: list; so {leftovers}",
        f"rights on persistentvolumeclaims: create, delete, get, list, patch; {of_claims}",
    ]
    assert checked.of("rights on events").startswith("not permitted rights on events: list; so diagnostics")
    claims = [f"{verb} persistentvolumeclaims" for verb in ("create", "delete", "get", "list", "patch")]
    assert sorted(recording.can_i_checks()) == sorted(
        [
            *("delete pods", "get pods --subresource=log", "list configmaps", "list events", *claims),
            "list networkpolicies.networking.k8s.io",
        ]
    )


def forbidden(cluster: Cluster) -> None:
    why = "selfsubjectrulesreviews.authorization.k8s.io is forbidden: no"
    cluster.kmock["POST", RULES] << once(kmock.KubernetesError(403, "Forbidden", why, {}))


def server_error(cluster: Cluster) -> None:
    cluster.faults.answer(500, verb="create", resource="selfsubjectrulesreviews")


def another_kind(cluster: Cluster) -> None:
    cluster.kmock["POST", RULES] << 201 << once({"kind": "Status", "apiVersion": "v1", "status": "Success"})


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize("no_review", [forbidden, server_error, another_kind])
async def test_rights_are_checked_one_by_one_when_the_rules_review_fails(
    cluster: Cluster, tmp_path: Path, recording: RecordingKubectl, no_review: Callable[[Cluster], None]
) -> None:
    granted = objects(new_kubectl(), ".")["Role"]["rules"]
    cluster.authorization.restrict(NS, granted[:1])
    with_review = await check(cluster, tmp_path)
    no_review(cluster)
    without = await check(cluster, tmp_path, KUBECTL=str(recording.path))
    assert without.lines[1:] == with_review.lines[1:]  # the first line has the path of kubectl
    assert without.returncode == with_review.returncode
    assert len(recording.can_i_checks()) == len(rights_of(granted))
    assert {"create pods", "watch services", "list events", "get pods --subresource=log"} <= {*recording.can_i_checks()}


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
async def test_an_unavailable_rights_check_fails(cluster: Cluster, tmp_path: Path) -> None:
    for resource in ("selfsubjectrulesreviews", "selfsubjectaccessreviews"):
        cluster.faults.answer(503, verb="create", resource=resource)
    checked = await check(cluster, tmp_path)
    assert checked.returncode == 1
    assert checked.of("rights on pods").startswith("FAIL          rights on pods: The cluster ")


async def test_a_missing_namespace_fails(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, K8S_NAMESPACE="wrong")
    assert checked.returncode == 1
    (failed,) = checked.starting_with("FAIL")
    assert failed.startswith("namespace: wrong does not exist")
    assert cluster.get("Namespace", "", "wrong") is None


async def test_an_unreachable_cluster_exits_with_2(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, K8S_API_SERVER=f"https://127.0.0.1:{free_port()}")
    assert checked.returncode == 2
    assert checked.lines[-1] == "FAIL          API server: The cluster can't be reached"


@pytest.mark.slow
async def test_a_certificate_of_another_name_exits_with_2(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, K8S_TLS_SERVER_NAME="nobody")
    assert checked.returncode == 2
    assert checked.lines[-1].startswith("FAIL          certificate: The connection to the cluster is not trusted")


async def test_rejected_credentials_exit_with_2(cluster: Cluster, tmp_path: Path) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"]["token"] = MARKER
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=str(tmp_path / "config"))
    assert checked.returncode == 2
    assert checked.lines[-1] == "FAIL          API server: The cluster refuses the provisioner's credentials"


@pytest.mark.slow
@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    ("call", "printed", "what", "returncode"),
    [
        ("/readyz", "", "API server", 2),
        ("get namespace", "namespace/another", "namespace", 1),
        ("resourcequotas", "", "quota", 1),
    ],
)
async def test_unreadable_kubectl_output_fails(
    cluster: Cluster, tmp_path: Path, call: str, printed: str, what: str, returncode: int
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!/bin/sh\ncase "$*" in *"{call}"*) echo "{printed}" ;; *) exec {new_kubectl()} "$@" ;; esac\n'
    )
    kubectl.chmod(0o755)
    checked = await check(cluster, tmp_path, KUBECTL=str(kubectl))
    assert (checked.returncode, checked.stderr) == (returncode, "")
    assert checked.of(what) == f"FAIL          {what}: The provisioner can't read kubectl's output"


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "{", ""])
async def test_an_unusable_kubeconfig_exits_with_2_and_its_path(
    cluster: Cluster, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=str(path))
    assert checked.returncode == 2
    assert checked.lines[0].startswith("ok            kubectl: v1.")
    assert checked.lines[-1].startswith("FAIL          kubeconfig: Kubeconfig")
    assert str(path) in checked.lines[-1]


@pytest.mark.slow
async def test_a_missing_kubectl_or_an_invalid_variable_exits_with_2(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, KUBECTL=str(tmp_path / "none"))
    assert (checked.returncode, len(checked.lines)) == (2, 1)
    assert checked.lines[0].startswith("FAIL          kubectl: KUBECTL names")
    checked = await check(cluster, tmp_path, PORT="x")
    assert (checked.returncode, checked.lines) == (2, [])
    assert "PORT holds 'x'" in checked.stderr
