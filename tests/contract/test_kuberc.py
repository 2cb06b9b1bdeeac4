"""A user's kuberc, locale and plugins do not affect the service; with real kubectl binaries."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from tests.audit import TEMPLATES
from tests.conftest import ROOT
from tests.contract import kubectls
from tests.contract.configured import write_configured
from tests.contract.kuberc import write_kuberc
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, run, running
from tests.contract.service import KUBECTL, URL, StartProvisioner, create
from tests.kubectl import Kubectl, pod
from tests.waiting import until

pytestmark = pytest.mark.slow

NS = "deer-flow"
OBJECTS = [
    ("Pod", "sandbox-a"),
    ("Service", "sandbox-a-svc"),
    ("ConfigMap", "sandbox-a-config"),
    ("NetworkPolicy", "sandbox-a-policy"),
]
KUBERCS: dict[str, dict[str, dict[str, str]]] = {
    "as recorded": {"delete": {"interactive": "true"}, "apply": {"dry-run": "server"}},
    "dry runs": {command: {"dry-run": "server"} for command in ("apply", "create", "delete")},
    "reads": {"get": {"ignore-not-found": "true", "output": "name"}, "version": {"client": "false"}},
}
LOCALE = dict.fromkeys(("LANG", "LC_ALL", "LC_MESSAGES", "LANGUAGE"), "de_DE.UTF-8")


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder for PATH with a plugin for each kubectl command that the service uses."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    for command in ("apply", "create", "create-provisioner", "delete", "get", "logs", "version", "config", "auth"):
        plugin = folder / f"kubectl-{command}"
        plugin.write_text(f"#!/bin/sh\ntouch {tmp_path}/plugin-was-run\n")
        plugin.chmod(0o755)
    return folder


def users_environment(tmp_path: Path, cluster: Cluster, plugins: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a user with a kuberc, a locale and plugins."""
    return environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        PATH=f"{plugins}:{os.defpath}",
        KUBERC=str(tmp_path / ".kube" / "kuberc"),
        KUBECTL_KUBERC="true",
        KUBECTL_ENABLE_CMD_SHADOW="true",
        **{**LOCALE, **variables},
    )


@asynccontextmanager
async def served(tmp_path: Path, environ: dict[str, str]) -> AsyncIterator[aiohttp.ClientSession]:
    """Run the service in the user's environment, and yield a client session."""
    port = free_port()
    async with running(*PROVISIONER, environ={**environ, "PORT": str(port)}, log=tmp_path / "log"):
        await until(healthy(port))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            yield session


async def answer(session: aiohttp.ClientSession, method: str, path: str, **fields: Any) -> tuple[int, Any]:
    async with session.request(method, path, json=fields or None) as response:
        return response.status, await response.json()


def expiry(cluster: Cluster) -> str:
    sandbox = cluster.get("Pod", NS, "sandbox-a")
    assert sandbox is not None
    return str(sandbox["metadata"]["annotations"]["provisioner/expires-at"])


async def use_sandboxes(session: aiohttp.ClientSession, cluster: Cluster) -> None:
    """Create, renew and delete a sandbox with extra objects, let another one expire, and check the cluster."""
    assert (await answer(session, "GET", f"{URL}/a"))[0] == 404
    status, made = await answer(session, "POST", URL, sandbox_id="a", template="configured", ttl_seconds=3600)
    assert status == 200, made
    assert all(cluster.get(kind, NS, name) for kind, name in OBJECTS)
    before = expiry(cluster)
    assert (await answer(session, "POST", f"{URL}/a/renew", ttl_seconds=7200))[0] == 200
    assert before < expiry(cluster)
    assert (await answer(session, "GET", "/readyz"))[0] == 200

    assert await answer(session, "DELETE", f"{URL}/a") == (200, {"ok": True, "sandbox_id": "a"})
    await until(lambda: not any(cluster.get(kind, NS, name) for kind, name in OBJECTS))
    assert (await answer(session, "GET", f"{URL}/a"))[0] == 404

    assert (await answer(session, "POST", URL, sandbox_id="b", ttl_seconds=1))[0] == 200
    assert cluster.get("Pod", NS, "sandbox-b")
    await until(lambda: not cluster.objects("Pod", NS) and not cluster.get("Service", NS, "sandbox-b-svc"))


@pytest.mark.role(TEMPLATES)
@pytest.mark.parametrize("defaults", KUBERCS.values(), ids=KUBERCS)
async def test_a_users_kuberc_changes_nothing(
    cluster: Cluster, tmp_path: Path, plugins: Path, defaults: dict[str, dict[str, str]]
) -> None:
    write_kuberc(tmp_path, **defaults)
    templates = write_configured(tmp_path / "templates")
    environ = users_environment(tmp_path, cluster, plugins, SANDBOX_TEMPLATES_DIR=str(templates), REAPER_INTERVAL="0.2")
    async with served(tmp_path, environ) as session:
        await use_sandboxes(session, cluster)
    assert not (tmp_path / "plugin-was-run").exists()


@pytest.mark.role(TEMPLATES)
async def test_an_old_kubectl_accepts_the_flags_and_variables_against_a_kuberc(
    cluster: Cluster, tmp_path: Path, plugins: Path
) -> None:
    templates = write_configured(tmp_path / "templates")
    old = str(kubectls.old_kubectl())
    environ = users_environment(
        tmp_path, cluster, plugins, SANDBOX_TEMPLATES_DIR=str(templates), REAPER_INTERVAL="0.2", KUBECTL=old
    )
    async with served(tmp_path, environ) as session:
        await use_sandboxes(session, cluster)
    assert not (tmp_path / "plugin-was-run").exists()


async def test_the_kubercs_of_these_tests_change_what_a_plain_kubectl_does(cluster: Cluster, tmp_path: Path) -> None:
    """Otherwise the tests of this module could not fail."""
    mine = Kubectl(cluster.kubeconfig, tmp_path / "mine")
    assert (await mine.apply(pod("there"))).rc == 0

    write_kuberc(tmp_path / "recorded", **KUBERCS["as recorded"])
    kubectl = Kubectl(cluster.kubeconfig, tmp_path / "recorded")
    applied = await kubectl.apply(pod("x"))
    assert (applied.rc, "resourceVersion" in applied.json["metadata"]) == (0, False)
    deleted = await kubectl("delete", "-o", "name", "-f", "-", stdin=pod("there"))
    assert (deleted.rc, deleted.stdout.splitlines()[-1]) == (0, "Do you want to continue? (y/N): deletion is cancelled")

    write_kuberc(tmp_path / "dry", **KUBERCS["dry runs"])
    kubectl = Kubectl(cluster.kubeconfig, tmp_path / "dry")
    created = await kubectl("create", "-o", "json", "-f", "-", stdin=pod("x"))
    assert (created.rc, "resourceVersion" in created.json["metadata"]) == (0, False)
    assert (await kubectl("delete", "-o", "name", "-f", "-", stdin=pod("there"))).stdout == "pod/there\n"

    write_kuberc(tmp_path / "reads", **KUBERCS["reads"])
    kubectl = Kubectl(cluster.kubeconfig, tmp_path / "reads")
    missing = await kubectl("get", "-f", "-", stdin=pod("x"))
    assert (missing.rc, missing.stdout) == (0, "")
    assert "mutually exclusive" in (await kubectl("get", "--raw", "/readyz")).stderr

    assert [obj["metadata"]["name"] for obj in cluster.objects("Pod")] == ["there"]


async def test_dry_run_none_alone_overrides_a_kuberc(cluster: Cluster, tmp_path: Path) -> None:
    """For a kubectl that reads the kuberc in spite of KUBERC=off."""
    write_kuberc(tmp_path / "dry", **KUBERCS["dry runs"])
    kubectl = Kubectl(cluster.kubeconfig, tmp_path / "dry")
    for call in (("apply", "--server-side"), ("create",)):
        name = call[0]
        assert (await kubectl(*call, "--dry-run=none", "-f", "-", stdin=pod(name))).rc == 0
        assert cluster.get("Pod", "default", name)
        assert (await kubectl("delete", "--dry-run=none", "--now", "-f", "-", stdin=pod(name))).rc == 0
    await until(lambda: not cluster.objects("Pod"))


@pytest.fixture
def recording_kubectl(tmp_path: Path) -> Path:
    """A kubectl that records its arguments and environment in a file for each start."""
    (tmp_path / "starts").mkdir()
    script = tmp_path / "noting-kubectl"
    script.write_text(
        f'#!/bin/sh\n{{ echo "$*"; /usr/bin/env; }} > {tmp_path}/starts/$$\nexec {KUBECTL} "$@"\n', encoding="utf-8"
    )
    script.chmod(0o755)
    return script


async def test_every_kubectl_is_started_without_the_users_kuberc_and_locale(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, plugins: Path, recording_kubectl: Path
) -> None:
    write_kuberc(tmp_path, **KUBERCS["as recorded"])
    environ = users_environment(
        tmp_path, cluster, plugins, KUBECTL=str(recording_kubectl), KUBECTL_PASS_ENV="LANG,LC_ALL"
    )
    provisioner = await start_provisioner(**environ)
    await create(provisioner)
    assert (await provisioner.get(f"{URL}/a/diagnostics")).status == 200
    assert (await provisioner.delete(f"{URL}/a")).status == 200
    for command in ("check", "reap", "render --sandbox-id b"):
        returncode, _, stderr = await run(
            sys.executable, str(ROOT / "provisioner.py"), *command.split(), environ=environ
        )
        assert returncode in {0, 1}, stderr
    await provisioner.client.close()

    starts = [path.read_text(encoding="utf-8").splitlines() for path in (tmp_path / "starts").iterdir()]
    calls = " ".join(arguments for arguments, *_ in starts)
    verbs = (
        "version --client",
        "config view",
        "apply",
        "get -o json -f -",
        "watch=1",
        "limit=1000",
        "delete",
        "get --raw /readyz",
        "create --raw",
        "logs",
        "/events?",
    )
    assert [verb for verb in verbs if verb not in calls] == []
    for arguments, *variables in starts:
        assert {"KUBERC=off", "KUBECTL_KUBERC=false", "LC_ALL=C.UTF-8"} <= set(variables), arguments
        assert not [one for one in variables if one.startswith(("LC_MESSAGES=", "LANGUAGE="))], arguments
