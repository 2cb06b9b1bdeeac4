"""`provisioner.py check` says that a thing was checked only if it was; else it shows kubectl's words, masked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from devcluster import Cluster
from tests.contract.test_check import check
from tests.kubectl import KUBECTL
from tests.marker import MARKER

pytestmark = pytest.mark.slow


def kubeconfig(cluster: Cluster, path: Path, *, user: Any = None, **changes: Any) -> str:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"] |= changes
    config["users"][0]["user"] = user or config["users"][0]["user"]
    path.write_text(yaml.safe_dump(config))
    return str(path)


async def test_a_certificate_that_the_kubeconfig_says_not_to_check_is_not_verified(
    cluster: Cluster, tmp_path: Path
) -> None:
    changes = {"insecure-skip-tls-verify": True, "certificate-authority-data": ""}
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=kubeconfig(cluster, tmp_path / "own", **changes))
    said = "ok            certificate: not checked (insecure-skip-tls-verify in the kubeconfig)"
    assert checked.of("certificate") == said
    # Also at another address, for which a name to verify would be given.
    other = cluster.url.replace("127.0.0.1", "localhost")
    checked = await check(
        cluster, tmp_path, KUBECONFIG_PATH=kubeconfig(cluster, tmp_path / "own", **changes), K8S_API_SERVER=other
    )
    assert checked.of("certificate") == said


async def test_a_certificate_that_the_setting_says_not_to_check_is_not_verified(
    cluster: Cluster, tmp_path: Path
) -> None:
    checked = await check(cluster, tmp_path, K8S_INSECURE_SKIP_TLS_VERIFY="true")
    assert checked.of("certificate") == "ok            certificate: not checked (K8S_INSECURE_SKIP_TLS_VERIFY)"


async def test_a_name_in_the_kubeconfig_is_the_one_that_was_verified(cluster: Cluster, tmp_path: Path) -> None:
    path = kubeconfig(cluster, tmp_path / "own", **{"tls-server-name": "kubernetes"})
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=path)
    assert checked.of("certificate") == "ok            certificate: verified, for the name kubernetes"


async def test_without_tls_there_is_no_certificate(tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "plain", tls=False) as plain:
        path = kubeconfig(plain, tmp_path / "own", server=plain.url.replace("http", "HTTP"))
        checked = await check(plain, tmp_path, KUBECONFIG_PATH=path)
    assert checked.of("certificate") == "ok            certificate: none, the address is plain http"


async def test_a_plugin_that_says_forbidden_is_not_the_api_server(cluster: Cluster, tmp_path: Path) -> None:
    exec_ = {"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never", "command": "/bin/sh"}
    script = "echo 'AccessDenied (Forbidden)' >&2; exit 1"
    path = kubeconfig(cluster, tmp_path / "own", user={"exec": {**exec_, "args": ["-c", script]}})
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=path)
    assert checked.returncode == 2
    assert checked.of("API server").startswith("FAIL")
    assert not any("certificate" in line or "reachable" in line for line in checked.lines)


async def test_a_fault_of_the_kubeconfig_that_only_a_request_shows_is_described(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = kubeconfig(cluster, tmp_path / "own", user={"token": f"{MARKER}\nx"})
    checked = await check(cluster, tmp_path, KUBECONFIG_PATH=path)
    assert checked.returncode == 2
    assert checked.of("API server") == "FAIL          API server: The provisioner's kubeconfig can't be used"
    assert "its token has a character that no header may have" in checked.lines[-1]


@pytest.mark.slow
async def test_what_stays_unknown_is_shown_in_kubectls_words_without_secrets(cluster: Cluster, tmp_path: Path) -> None:
    token = yaml.safe_load(cluster.kubeconfig.read_text())["users"][0]["user"]["token"]
    kubectl = tmp_path / "kubectl"
    odd = f"echo 'panic: {token} is odd' >&2; exit 2"
    kubectl.write_text(f'#!/bin/sh\ncase "$*" in *readyz*) {odd} ;; *) exec {KUBECTL} "$@" ;; esac\n')
    kubectl.chmod(0o755)
    checked = await check(cluster, tmp_path, KUBECTL=str(kubectl))
    assert checked.of("API server").endswith("API server: The cluster refused the request for an unknown reason")
    assert checked.lines[-1] == "panic: (hidden) is odd"
