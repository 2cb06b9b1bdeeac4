"""The start of the service: errors that stop it, and its warnings."""

from __future__ import annotations

import json
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest
import yaml

from devcluster import Cluster
from tests.conftest import ROOT, VARIABLES
from tests.contract.processes import (
    PROVISIONER,
    environment,
    free_port,
    healthy,
    run,
    running,
    smoke,
)
from tests.contract.service import StartProvisioner, until


async def failed_start(environ: dict[str, str]) -> str:
    returncode, stdout, stderr = await run(*PROVISIONER, environ=environ)
    assert returncode == 1
    assert stdout == ""
    assert "Traceback" not in stderr
    return stderr


async def test_invalid_variables_stop_the_start(tmp_path: Path) -> None:
    stderr = await failed_start(environment(tmp_path, PORT="http", K8S_NAMESPACE="Bad"))
    assert "PORT holds 'http'" in stderr
    assert "K8S_NAMESPACE holds 'Bad'" in stderr


async def test_a_missing_kubeconfig_stops_the_start_with_its_path(tmp_path: Path) -> None:
    stderr = await failed_start(environment(tmp_path, KUBECONFIG_PATH=str(tmp_path / "none")))
    assert stderr.splitlines()[-1].startswith(f"provisioner: Kubeconfig not found at {tmp_path}/none.")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["directory", "unreadable", "garbage", "no context", "no user"])
async def test_an_unusable_kubeconfig_stops_the_start_with_its_path(
    cluster: Cluster, tmp_path: Path, kind: str
) -> None:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    path = tmp_path / "config"
    match kind:
        case "directory":
            path.mkdir()
        case "garbage":
            path.write_text("{")
        case "no context":
            path.write_text(yaml.safe_dump({**config, "current-context": "nope"}))
        case "no user":
            path.write_text(yaml.safe_dump({**config, "users": []}))
        case "unreadable":
            # root can read every file, but not a symlink to itself
            path.symlink_to(path)
    stderr = await failed_start(environment(tmp_path, KUBECONFIG_PATH=str(path)))
    assert str(path) in stderr.splitlines()[-1]
    assert "Kubeconfig" in stderr


async def test_a_template_with_an_unknown_field_stops_the_start(cluster: Cluster, tmp_path: Path) -> None:
    copy = tmp_path / "templates" / "misspelt"
    copy.mkdir(parents=True)
    for source in (ROOT / "manifests" / "sandbox").iterdir():
        (copy / source.name).write_text(source.read_text().replace("imagePullPolicy", "imagePulPolicy"))
    environ = environment(
        tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), SANDBOX_TEMPLATES_DIR=str(tmp_path / "templates")
    )
    returncode, _, stderr = await run(sys.executable, str(ROOT / "provisioner.py"), environ=environ)
    assert returncode == 1
    assert "provisioner: The sandbox template can't be used. The cluster does not know the field" in stderr
    assert "imagePulPolicy" in stderr
    assert cluster.objects("Pod") == []


async def test_a_port_in_use_stops_the_start(cluster: Cluster, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port))
        stderr = await failed_start(environ)
        error = f"provisioner: Can't listen on 127.0.0.1:{port}: it is taken. Set {{}} to another."
        assert error.format("PORT") in stderr
        stderr = await failed_start(environ | {"LISTEN_PORT": str(port), "PORT": "tcp://10.0.0.1:8002"})
        assert error.format("LISTEN_PORT") in stderr


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["HOST", "LISTEN_HOST"])
@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_a_host_of_another_machine_stops_the_start(
    cluster: Cluster, tmp_path: Path, variable: str, host: str
) -> None:
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PROVISIONER_API_KEY="k3y")
    stderr = await failed_start(environ | {variable: host})
    last = stderr.splitlines()[-1]
    assert last == f"provisioner: Can't listen on {host}:8002: {variable} names no address of this machine."


@pytest.mark.slow
async def test_without_a_key_a_host_name_stops_the_start(tmp_path: Path) -> None:
    environ = environment(tmp_path, HOST="x86_64-conda-linux-gnu", ALLOW_UNAUTHENTICATED="")
    (line,) = (await failed_start(environ)).splitlines()
    assert line.startswith("provisioner: HOST holds 'x86_64-conda-linux-gnu', which is neither an IP address nor")
    # With a key the host name is accepted.
    stderr = await failed_start({**environ, "PROVISIONER_API_KEY": "k3y", "KUBECONFIG_PATH": str(tmp_path / "none")})
    assert "Kubeconfig not found" in stderr


def service_links(name: str, address: str, port: int) -> dict[str, str]:
    """Return the variables that Kubernetes sets in a Pod for a Service.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
    """
    prefix, url = name.upper().replace("-", "_"), f"tcp://{address}:{port}"
    return {
        f"{prefix}_SERVICE_HOST": address,
        f"{prefix}_SERVICE_PORT": str(port),
        f"{prefix}_PORT": url,
        f"{prefix}_PORT_{port}_TCP": url,
        f"{prefix}_PORT_{port}_TCP_PROTO": "tcp",
        f"{prefix}_PORT_{port}_TCP_PORT": str(port),
        f"{prefix}_PORT_{port}_TCP_ADDR": address,
    }


async def test_service_link_variables_change_nothing(cluster: Cluster, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    links: dict[str, str] = {}
    for number, name in enumerate(("provisioner", "gateway", "sandbox-provisioner")):
        links |= service_links(name, f"10.96.0.{number}", 8002)
    assert len(links) == 21
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), LISTEN_PORT=str(port), **links)
    async with running(*PROVISIONER, environ=environ, log=log):
        await until(healthy(port))
    assert "is ignored" not in log.read_text()
    # None of them is a variable of the service, so the default port applies without LISTEN_PORT.
    assert not VARIABLES & links.keys()


@pytest.mark.slow
async def test_host_and_port_overridden_by_listen_variables_are_warnings(cluster: Cluster, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        LISTEN_HOST="127.0.0.1",
        LISTEN_PORT=str(port),
        HOST="x86_64-conda-linux-gnu",
        PORT="tcp://10.0.0.1:8002",
    )
    async with running(*PROVISIONER, environ=environ, log=log):
        await until(healthy(port))
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    warnings = [line["event"] for line in lines if line["level"] == "warning" and "is ignored" in line["event"]]
    assert warnings == [
        "HOST is ignored: LISTEN_HOST wins over it, and holds '127.0.0.1'.",
        f"PORT is ignored: LISTEN_PORT wins over it, and holds '{port}'.",
    ]


async def test_the_service_starts_with_a_warning_while_the_cluster_is_down(cluster: Cluster, tmp_path: Path) -> None:
    port = free_port()
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        K8S_API_SERVER=f"https://127.0.0.1:{free_port()}",
        PORT=str(port),
    )
    log = tmp_path / "log"
    async with running(*PROVISIONER, environ=environ, log=log) as process:
        await until(healthy(port))
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/api/sandboxes") as response,
        ):
            assert response.status == 503
            assert (await response.json()) == {"detail": "The cluster can't be reached"}
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert "The cluster can't be reached. Serving anyway: requests get 503 until it can." in log.read_text()
    assert "PROVISIONER_API_KEY is not set. ALLOW_UNAUTHENTICATED is true: every caller that reaches" in log.read_text()
    assert "Neither THREADS_HOST_PATH nor USERDATA_PVC_NAME is set" in log.read_text()
    assert log.read_text().count("SANDBOX_SECCOMP is not set") == 1
    assert list(tmp_path.glob("sandbox-provisioner-*")) == []


async def test_without_a_key_local_callers_are_served_and_a_warning_names_them(
    start_provisioner: StartProvisioner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provisioner = await start_provisioner()
    (warning,) = [one for one in caplog.records if "PROVISIONER_API_KEY is not set" in one.getMessage()]
    assert warning.levelname == "WARNING"
    callers = (
        "Callers that reach 127.0.0.1:8002, [::1]:8002 from a loopback or private address, without a proxy's "
        "forwarding headers"
    )
    assert callers in warning.getMessage()
    base = str(provisioner.client.make_url("")).rstrip("/")
    returncode, _, stderr = await smoke(base, tmp_path=tmp_path)
    assert returncode == 0, stderr


@pytest.mark.slow
async def test_in_a_pod_without_a_key_api_requests_are_401_with_a_warning(cluster: Cluster, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        LISTEN_PORT=str(port),
        KUBERNETES_SERVICE_HOST="10.96.0.1",
        ALLOW_UNAUTHENTICATED="",
    )
    async with running(*PROVISIONER, environ=environ, log=log), aiohttp.ClientSession() as session:
        await until(healthy(port))
        for path in ("/api/sandboxes", "/api/none"):
            async with session.get(f"http://127.0.0.1:{port}{path}") as response:
                assert response.status == 401
                assert "in a Pod" in (await response.json())["detail"]
    (warning,) = (json.loads(line) for line in log.read_text().splitlines() if "This is a Pod" in line)
    assert warning["level"] == "warning"
    assert warning["event"] == (
        "PROVISIONER_API_KEY is not set. This is a Pod, so every request under /api/ gets 401: "
        "set PROVISIONER_API_KEY, or ALLOW_UNAUTHENTICATED=true to answer every address."
    )


@pytest.mark.slow
async def test_a_key_overrides_allow_unauthenticated_and_this_is_logged(service_url: str, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{service_url}/api/sandboxes") as response:
        assert response.status == 401
    warnings = [line["event"] for line in map(json.loads, (tmp_path / "log").read_text().splitlines())]
    assert warnings.count("ALLOW_UNAUTHENTICATED has no effect: an API key is set, and every request needs it.") == 1
