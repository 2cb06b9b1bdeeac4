"""`provisioner.py check`, as a process: what it says of a cluster that is ready, and of each that isn't."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from devcluster.authorization import rights_of
from sandboxes.app import load_all_templates
from sandboxes.ops.doctor import RIGHTS_WANTED, rights_needed
from sandboxes.settings import Settings
from tests.conftest import ROOT
from tests.contract.conftest import Kubectl
from tests.contract.kubectls import new_kubectl
from tests.contract.processes import environment, free_port, run
from tests.deploy import objects
from tests.marker import MARKER

NS = "deer-flow"


class Checked:
    """What came of it; `of` is the one line about something."""

    def __init__(self, returncode: int | None, stdout: str, stderr: str) -> None:
        self.returncode = returncode
        self.lines = stdout.splitlines()
        self.stderr = stderr

    def of(self, what: str) -> str:
        (line,) = (line for line in self.lines if f" {what}:" in line)
        return line

    def begin_with(self, word: str) -> list[str]:
        return [line.removeprefix(word).strip() for line in self.lines if line.startswith(word)]


async def check(cluster: Cluster, tmp_path: Path, **variables: str) -> Checked:
    environ = environment(tmp_path, **{"KUBECONFIG_PATH": str(cluster.kubeconfig), **variables})
    return Checked(*await run(sys.executable, str(ROOT / "provisioner.py"), "check", environ=environ))


@pytest.fixture
async def namespace(kubectl: Kubectl) -> None:
    assert (await kubectl("create", "namespace", NS)).rc == 0


@pytest.mark.usefixtures("namespace")
async def test_of_a_cluster_that_is_ready_every_line_says_ok(
    cluster: Cluster, kubectl: Kubectl, tmp_path: Path
) -> None:
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


@pytest.mark.usefixtures("namespace")
async def test_with_the_role_that_is_shipped_all_is_well_and_what_may_not_be_asked_is_said(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.authorization.restrict(NS, objects(new_kubectl(), ".")["Role"]["rules"])
    checked = await check(cluster, tmp_path)
    assert (checked.returncode, checked.begin_with("FAIL")) == (0, [])
    assert [line.partition(":")[0] for line in checked.begin_with("not permitted")] == [
        "namespace", "quota", "template isolated",
    ]  # fmt: skip


def test_what_it_asks_for_is_the_role_that_is_shipped(make_settings: Any) -> None:
    def asked(settings: Settings) -> set[tuple[str, str]]:
        needed = rights_needed(load_all_templates(settings), settings)
        wanted = {resource: verbs for resource, (verbs, _) in RIGHTS_WANTED.items()}
        return {(verb, resource) for resource, verbs in {**needed, **wanted}.items() for verb in verbs}

    def granted(folder: str) -> set[tuple[str, str]]:
        rights = rights_of(objects(new_kubectl(), folder)["Role"]["rules"])
        return {(one.verb, f"{one.resource}.{one.group}" if one.group else one.resource) for one in rights}

    assert asked(make_settings()) == granted(".")
    assert asked(make_settings(SANDBOX_NETWORK_POLICY="isolated")) == granted("overlays/production")


@pytest.mark.usefixtures("namespace")
async def test_each_missing_right_is_named(cluster: Cluster, tmp_path: Path) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
    cluster.authorization.restrict(NS, rules)
    checked = await check(cluster, tmp_path)
    assert checked.returncode == 1
    assert checked.of("rights on pods") == "FAIL          rights on pods: missing create, delete, patch, watch"
    assert checked.of("rights on services").startswith("FAIL")
    assert checked.of("rights on events").startswith("not permitted rights on events: list; so diagnostics")
    assert "lacks the right to patch" in checked.of("template default")


async def test_a_namespace_that_does_not_exist_fails(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, K8S_NAMESPACE="wrong")
    assert checked.returncode == 1
    (failed,) = checked.begin_with("FAIL")
    assert failed.startswith("namespace: wrong does not exist")
    assert cluster.get("Namespace", "", "wrong") is None


async def test_a_cluster_that_is_down_can_not_be_asked(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, K8S_API_SERVER=f"https://127.0.0.1:{free_port()}")
    assert checked.returncode == 2
    assert checked.lines[-1] == "FAIL          API server: The cluster can't be reached"


async def test_a_certificate_of_another_name_is_said(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, K8S_TLS_SERVER_NAME="nobody")
    assert checked.returncode == 2
    assert checked.lines[-1].startswith("FAIL          certificate: The connection to the cluster is not trusted")


async def test_credentials_that_are_refused_are_said(cluster: Cluster, tmp_path: Path) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"]["token"] = MARKER
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=str(tmp_path / "config"))
    assert checked.returncode == 2
    assert checked.lines[-1] == "FAIL          API server: The cluster refuses the provisioner's credentials"


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(
    ("call", "printed", "what", "returncode"),
    [
        ("/readyz", "", "API server", 2),
        ("get namespace", "namespace/another", "namespace", 1),
        ("resourcequotas", "", "quota", 1),
    ],
)
async def test_what_kubectl_does_not_prove_fails(
    cluster: Cluster, tmp_path: Path, call: str, printed: str, what: str, returncode: int
) -> None:
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!/bin/sh\ncase "$*" in *"{call}"*) echo "{printed}" ;; *) exec {new_kubectl()} "$@" ;; esac\n'
    )
    kubectl.chmod(0o755)
    checked = await check(cluster, tmp_path, KUBECTL=str(kubectl))
    assert (checked.returncode, checked.stderr) == (returncode, "")
    assert checked.of(what) == f"FAIL          {what}: The provisioner can't read what kubectl answers"


@pytest.mark.parametrize("content", [None, "{", ""])
async def test_a_bad_kubeconfig_can_not_be_asked_with(cluster: Cluster, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config"
    if content is not None:
        path.write_text(content)
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=str(path))
    assert checked.returncode == 2
    assert checked.lines[0].startswith("ok            kubectl: v1.")
    assert checked.lines[-1].startswith("FAIL          kubeconfig: Kubeconfig")
    assert str(path) in checked.lines[-1]


async def test_without_a_kubectl_and_with_a_bad_variable_nothing_can_be_asked(cluster: Cluster, tmp_path: Path) -> None:
    checked = await check(cluster, tmp_path, KUBECTL=str(tmp_path / "none"))
    assert (checked.returncode, len(checked.lines)) == (2, 1)
    assert checked.lines[0].startswith("FAIL          kubectl: KUBECTL names")
    checked = await check(cluster, tmp_path, PORT="x")
    assert (checked.returncode, checked.lines) == (2, [])
    assert "PORT holds 'x'" in checked.stderr
