"""Access to a cluster: an overridden address with verified TLS, a wrong certificate, a Pod's service account."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from devcluster import Cluster
from sandboxes.kubectl import config
from tests.contract.service import URL, Provisioner, StartProvisioner, create

pytestmark = pytest.mark.starts_in_full


def other_address(cluster: Cluster) -> str:
    """Return the server's URL by a name that is not in its certificate (record: server-override-name-mismatch)."""
    return cluster.url.replace("127.0.0.1", "localhost")


async def assert_untrusted(provisioner: Provisioner) -> None:
    response = await provisioner.get(URL)
    assert response.status == 503
    assert await response.json() == {
        "detail": "The connection to the cluster is not trusted: its certificate does not fit"
    }


async def test_k8s_api_server_overrides_the_address_with_verified_tls(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(K8S_API_SERVER=other_address(cluster))
    assert (await create(provisioner))["sandbox_id"] == "a"


@pytest.mark.slow
async def test_a_server_name_missing_from_the_certificate_is_503(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    await assert_untrusted(
        await start_provisioner(K8S_API_SERVER=other_address(cluster), K8S_TLS_SERVER_NAME="localhost")
    )


async def test_k8s_tls_server_name_overrides_the_verified_name(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(
        K8S_API_SERVER=other_address(cluster), K8S_TLS_SERVER_NAME="kubernetes.default.svc"
    )
    assert (await provisioner.get(URL)).status == 200


async def test_a_certificate_of_an_unknown_ca_is_503(start_provisioner: StartProvisioner, tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "other") as other:
        await assert_untrusted(await start_provisioner(K8S_API_SERVER=other.url))


async def test_skipping_tls_verification_works_and_is_logged(
    start_provisioner: StartProvisioner, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        provisioner = await start_provisioner(
            K8S_API_SERVER=other_address(cluster), K8S_INSECURE_SKIP_TLS_VERIFY="true", K8S_TLS_SERVER_NAME="nobody"
        )
    assert (await provisioner.get(URL)).status == 200
    assert "the API server's certificate is not checked" in caplog.text


async def test_in_a_pod_the_service_account_is_used(
    start_provisioner: StartProvisioner, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(cluster.token)
    (account / "ca.crt").write_text(cluster.ca_file.read_text())
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", account)
    _, _, port = cluster.url.rpartition(":")
    provisioner = await start_provisioner(
        KUBECONFIG_PATH=str(tmp_path / "none"), KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT=port
    )
    assert (await create(provisioner))["sandbox_id"] == "a"
