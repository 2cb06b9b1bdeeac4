"""Errors of the cluster: quota, credentials, outage and certificate; and another address of the API server."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.e2e.conftest import StartService, Target, wait_for
from tests.e2e.service import URL

QUOTA = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "no-services"},
    "spec": {"hard": {"services": "0"}},
}


def server_of(target: Target) -> str:
    return target.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")


def test_an_exceeded_service_quota_is_429_and_leaves_no_pod(
    start_service: StartService, target: Target, sandbox_id: str
) -> None:
    if not target.is_real:
        pytest.skip("devcluster has no quotas; tests/contract uses the recorded rejection. Run with E2E_KUBECONFIG")
    service = start_service()
    target.kubectl("apply", "-f", "-", stdin=json.dumps(QUOTA))
    try:
        wait_for(
            lambda: "hard" in json.loads(target.kubectl("get", "resourcequota/no-services", "-o", "json"))["status"],
            "the quota is active",
        )
        answer = service.call("POST", URL, {"sandbox_id": sandbox_id})
        assert answer.status == 429
        assert answer.headers["Retry-After"]
        wait_for(lambda: not target.objects(sandbox_id), "the objects of the create are deleted")
    finally:
        target.kubectl("delete", "resourcequota/no-services")


def test_rejected_credentials_are_502(
    start_service: StartService, target: Target, tmp_path: Path, sandbox_id: str
) -> None:
    config = yaml.safe_load(target.kubectl("config", "view", "--minify", "--raw"))
    config["users"][0]["user"] = {"token": "wrong"}
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(yaml.safe_dump(config))
    service = start_service(KUBECONFIG_PATH=str(kubeconfig))
    answer = service.call("POST", URL, {"sandbox_id": sandbox_id})
    assert (answer.status, answer.body) == (502, {"detail": "The cluster refuses the provisioner's credentials"})


@pytest.mark.repeats("tests/contract/test_startup.py::test_the_service_starts_with_a_warning_while_the_cluster_is_down")
def test_an_unreachable_cluster_is_503(start_service: StartService, sandbox_id: str) -> None:
    service = start_service(K8S_API_SERVER="https://127.0.0.1:1")
    answer = service.call("POST", URL, {"sandbox_id": sandbox_id})
    assert (answer.status, answer.body) == (503, {"detail": "The cluster can't be reached"})
    assert service.call("GET", "/health").status == 200


@pytest.mark.repeats("tests/contract/test_access.py::test_k8s_api_server_overrides_the_address_with_verified_tls")
def test_another_address_of_the_api_server_works_with_its_certificate_verified(
    start_service: StartService, target: Target, sandbox_id: str
) -> None:
    url = urlsplit(server_of(target))
    assert url.hostname is not None
    if url.scheme != "https":
        pytest.skip("this cluster uses plain HTTP")
    other = "localhost" if url.hostname == "127.0.0.1" else socket.gethostbyname(url.hostname)
    if other == url.hostname:
        pytest.skip(f"this test knows no second address of {url.hostname}")
    service = start_service(K8S_API_SERVER=f"https://{other}:{url.port or 443}")
    service.create(sandbox_id)
    assert service.get(sandbox_id).status == 200


@pytest.mark.repeats("tests/contract/test_access.py::test_a_server_name_missing_from_the_certificate_is_503")
def test_a_tls_server_name_that_is_not_in_the_certificate_is_503(start_service: StartService, sandbox_id: str) -> None:
    service = start_service(K8S_TLS_SERVER_NAME="somebody.else.example")
    answer = service.call("POST", URL, {"sandbox_id": sandbox_id})
    assert answer.status == 503
    assert "certificate does not fit" in answer.body["detail"]
