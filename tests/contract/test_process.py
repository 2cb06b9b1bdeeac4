"""The service as a process: when it starts, when it doesn't and what it says, and that it ends whole."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import kmock
import pytest
import yaml

from devcluster import Cluster, once
from sandboxes.kubectl.config import SERVICE_ACCOUNT
from tests.conftest import ROOT, VARIABLES
from tests.contract.faults import refuse_next
from tests.contract.processes import (
    PROVISIONER,
    environment,
    free_port,
    healthy,
    kill_each,
    processes_with,
    run,
    running,
)
from tests.contract.service import KUBECTL, URL, StartProvisioner, create, until
from tests.kubectl import Kubectl
from tests.record import case


async def refuses_to_start(environ: dict[str, str]) -> str:
    returncode, stdout, stderr = await run(*PROVISIONER, environ=environ)
    assert returncode == 1
    assert stdout == ""
    assert "Traceback" not in stderr
    return stderr


async def test_bad_variables_stop_the_start(tmp_path: Path) -> None:
    stderr = await refuses_to_start(environment(tmp_path, PORT="http", K8S_NAMESPACE="Bad"))
    assert "PORT holds 'http'" in stderr
    assert "K8S_NAMESPACE holds 'Bad'" in stderr


async def test_a_missing_kubeconfig_stops_the_start_in_one_sentence_with_its_path(tmp_path: Path) -> None:
    stderr = await refuses_to_start(environment(tmp_path, KUBECONFIG_PATH=str(tmp_path / "none")))
    assert stderr.splitlines()[-1].startswith(f"provisioner: Kubeconfig not found at {tmp_path}/none.")


@pytest.mark.parametrize("kind", ["directory", "unreadable", "garbage", "no context", "no user"])
async def test_a_kubeconfig_that_can_not_be_used_stops_the_start_with_its_path(
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
            # root reads everything, but nobody reads a file through a link to itself
            path.symlink_to(path)
    stderr = await refuses_to_start(environment(tmp_path, KUBECONFIG_PATH=str(path)))
    assert str(path) in stderr.splitlines()[-1]
    assert "Kubeconfig" in stderr


async def test_a_template_that_the_schema_refuses_stops_the_start(cluster: Cluster, tmp_path: Path) -> None:
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


async def test_a_port_that_is_taken_is_said(cluster: Cluster, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port))
        stderr = await refuses_to_start(environ)
        said = f"provisioner: Can't listen on 127.0.0.1:{port}: it is taken. Set {{}} to another."
        assert said.format("PORT") in stderr
        stderr = await refuses_to_start(environ | {"LISTEN_PORT": str(port), "PORT": "tcp://10.0.0.1:8002"})
        assert said.format("LISTEN_PORT") in stderr


@pytest.mark.parametrize("variable", ["HOST", "LISTEN_HOST"])
@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_a_host_that_is_not_this_machine_is_said(
    cluster: Cluster, tmp_path: Path, variable: str, host: str
) -> None:
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PROVISIONER_API_KEY="k3y")
    stderr = await refuses_to_start(environ | {variable: host})
    last = stderr.splitlines()[-1]
    assert last == f"provisioner: Can't listen on {host}:8002: {variable} names no address of this machine."


async def test_without_a_key_a_host_that_is_a_name_stops_the_start(tmp_path: Path) -> None:
    environ = environment(tmp_path, HOST="x86_64-conda-linux-gnu", ALLOW_UNAUTHENTICATED="")
    (line,) = (await refuses_to_start(environ)).splitlines()
    assert line.startswith("provisioner: HOST holds 'x86_64-conda-linux-gnu', which is neither an IP address nor")
    # With a key it is a host like others.
    stderr = await refuses_to_start(
        {**environ, "PROVISIONER_API_KEY": "k3y", "KUBECONFIG_PATH": str(tmp_path / "none")}
    )
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


async def test_it_serves_beside_services_of_the_names_that_it_is_deployed_by(cluster: Cluster, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    links: dict[str, str] = {}
    for number, name in enumerate(("provisioner", "gateway", "sandbox-provisioner")):
        links |= service_links(name, f"10.96.0.{number}", 8002)
    assert len(links) == 21
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), LISTEN_PORT=str(port), **links)
    async with running(*PROVISIONER, environ=environ, log=log):
        await until(healthy(port))
    assert "is ignored" not in log.read_text()
    # Nothing of it is a variable of the service's, so without LISTEN_PORT it is the default.
    assert not VARIABLES & links.keys()


async def test_a_port_of_another_program_moves_nothing_and_is_a_warning(cluster: Cluster, tmp_path: Path) -> None:
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
    said = [line["event"] for line in lines if line["level"] == "warning" and "is ignored" in line["event"]]
    assert said == [
        "HOST is ignored: LISTEN_HOST wins over it, and holds '127.0.0.1'.",
        f"PORT is ignored: LISTEN_PORT wins over it, and holds '{port}'.",
    ]


async def test_with_the_cluster_down_it_starts_and_says_so(cluster: Cluster, tmp_path: Path) -> None:
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


async def test_without_a_key_it_serves_this_machine_and_says_who_is_answered(
    start_provisioner: StartProvisioner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    provisioner = await start_provisioner()
    (warning,) = [one for one in caplog.records if "PROVISIONER_API_KEY is not set" in one.getMessage()]
    assert warning.levelname == "WARNING"
    answered = (
        "Callers that reach 127.0.0.1:8002 from a loopback or private address, without a proxy's forwarding headers"
    )
    assert answered in warning.getMessage()
    base = str(provisioner.client.make_url("")).rstrip("/")
    returncode, _, stderr = await smoke(base, tmp_path=tmp_path)
    assert returncode == 0, stderr


async def test_in_a_pod_it_answers_nothing_without_a_key_and_says_so(cluster: Cluster, tmp_path: Path) -> None:
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


@pytest.mark.skipif(
    (SERVICE_ACCOUNT / "token").exists(), reason="in a Pod run.sh serves on that Pod's cluster, and starts no stand-in"
)
async def test_run_sh_serves_on_a_stand_in_and_ctrl_c_ends_all_of_it(tmp_path: Path) -> None:
    port = free_port()
    log = tmp_path / "log"
    environ = environment(tmp_path, LISTEN_PORT=str(port), PYTHON=sys.executable)
    async with running(str(ROOT / "scripts" / "run.sh"), environ=environ, log=log) as process:
        await until(healthy(port), seconds=250)  # it may have to install first
        smoke = await run(str(ROOT / "scripts" / "smoke.sh"), f"http://127.0.0.1:{port}", environ=environ)
        assert smoke[0] == 0, smoke
        assert "smoke: all is well" in smoke[1]
        assert len(processes_with(str(tmp_path))) >= 2
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
        assert await asyncio.wait_for(process.wait(), 60) == 0
        assert processes_with(str(tmp_path)) == []
    assert "IT IS NOT KUBERNETES" in log.read_text()
    assert "Traceback" not in log.read_text()
    left = {path.name for path in tmp_path.iterdir()} - {"log", ".cache", "cluster"}
    assert left == set()


@pytest.fixture
async def served(cluster: Cluster, tmp_path: Path) -> AsyncIterator[str]:
    """The base URL of a running service with an API key."""
    port = free_port()
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        PORT=str(port),
        HOST="127.0.0.1",
        NODE_HOST="127.0.0.1",
        PROVISIONER_API_KEY="k3y",
        ALLOW_UNAUTHENTICATED="true",
    )
    async with running(*PROVISIONER, environ=environ, log=tmp_path / "log"):
        await until(healthy(port))
        yield f"http://127.0.0.1:{port}"


async def test_all_that_kubectl_said_is_in_the_log_under_the_requests_id(
    served: str, cluster: Cluster, tmp_path: Path
) -> None:
    refuse_next(cluster, "PATCH", "pods", "apply-quota-exceeded")
    headers = {"X-API-Key": "k3y", "X-Request-ID": "find-me"}
    async with aiohttp.ClientSession(headers=headers) as session:
        response = await session.post(f"{served}/api/sandboxes", json={"sandbox_id": "a"})
        assert response.status == 429
        assert response.headers["X-Request-ID"] == "find-me"
        assert await response.json() == {"detail": "The cluster's quota for sandboxes is used up"}

    async def logged() -> bool:
        return any(line["logger"] == "aiohttp.access" for line in lines_of("find-me", tmp_path / "log"))

    await until(logged)
    lines = lines_of("find-me", tmp_path / "log")
    (access,) = [line for line in lines if line["logger"] == "aiohttp.access"]
    assert access["event"].startswith("127.0.0.1 POST /api/sandboxes 429")
    assert {key: access[key] for key in ("level", "method", "path", "status", "sandbox_id")} == {
        "level": "info",
        "method": "POST",
        "path": "/api/sandboxes",
        "status": 429,
        "sandbox_id": "a",
    }
    (failed,) = [line for line in lines if line["event"].startswith("LimitReached")]
    assert (failed["level"], failed["logger"]) == ("warning", "sandboxes.api.middlewares")
    assert case("apply-quota-exceeded").stderr.strip() in failed["event"]


async def test_no_secret_is_ever_in_the_log(cluster: Cluster, tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        PORT=str(port),
        HOST="127.0.0.1",
        PROVISIONER_API_KEY="the-k3y,of-the-service",
        LOG_LEVEL="DEBUG",
    )
    secrets = {"PASSWORD": 'pass"w0rd-of-the-sandbox', "TOKEN": "t0ken of\nthe sandbox"}
    url = f"http://127.0.0.1:{port}/api/sandboxes"
    body = {"sandbox_id": "a", "env": secrets}
    async with (
        running(*PROVISIONER, environ=environ, log=log),
        aiohttp.ClientSession(headers={"X-API-Key": "the-k3y,of-the-service"}) as session,
    ):
        await until(healthy(port))
        # A webhook and the API server may say in their refusals what they were given.
        said = f"admission webhook denied the request: {secrets['PASSWORD']} and {json.dumps(secrets)}"
        said += " and the-k3y,of-the-service"
        refusal = kmock.KubernetesError(403, "Forbidden", said, {})
        cluster.kmock["PATCH", kmock.resource("v1/pods")] << once(refusal)
        assert (await session.post(url, json=body)).status == 502
        assert (await session.post(url, json=body)).status == 200
        assert (await session.post(url, json={**body, "thread_id": "another"})).status == 409
        assert (await session.post(url, json={**body, "sandbox_id": "-"})).status == 422
        assert (await session.post(url, json=body, headers={"X-API-Key": "wr0ng-k3y"})).status == 401
        bearer = {"X-API-Key": "x", "Authorization": "Bearer b3arer-t0ken"}
        assert (await session.get(f"{url}/a", headers=bearer)).status == 401
        assert (await session.get(f"{url}/a")).status == 200
        assert (await session.get(f"{url}/a/diagnostics")).status == 200
        cluster.faults.answer(500, verb="get", times=1)
        assert (await session.delete(f"{url}/a")).status == 200
        await until(lambda: cluster.objects("Pod") == [])
    text = log.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert any("admission webhook denied the request: (hidden)" in line["event"] for line in lines)
    assert any(line["event"].startswith("kubectl apply") and line["level"] == "debug" for line in lines)
    assert sum("PROVISIONER_API_KEY has a comma: it is one key since 0.2" in line["event"] for line in lines) == 1
    everything = "\n".join(str(value) for line in lines for value in line.values())
    hidden = (
        "the-k3y",
        "of-the-service",
        "w0rd-of-the",
        "t0ken of",
        'the sandbox"',
        "wr0ng-k3y",
        "b3arer-t0ken",
        cluster.token,
    )
    assert [one for one in hidden if one in everything or one in text] == []


def lines_of(request_id: str, log: Path) -> list[dict[str, Any]]:
    """Return the request's lines of the log, each of which must be JSON."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in lines if line.get("request_id") == request_id]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n", 400),
        (b"POST /api/sandboxes HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (
            b"GET /api/sandboxes/"
            + b"a" * 9_000
            + b" HTTP/1.1\r\nHost: x\r\nX-API-Key: k3y\r\nConnection: close\r\n\r\n",
            404,
        ),
    ],
    ids=["no HTTP", "bad header", "bad length", "too long a line", "long path", "long id"],
)
async def test_what_is_not_http_is_answered_in_json_without_a_word_of_it(
    served: str, tmp_path: Path, sent: bytes, status: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(served.rpartition(":")[2]))
    writer.write(sent)
    async with asyncio.timeout(60):
        answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    assert head.split()[1] == str(status)
    assert "Content-Type: application/json" in head
    assert set(json.loads(body)) <= {"detail", "status"}
    assert "Traceback" not in (tmp_path / "log").read_text()


async def test_a_signal_before_it_listens_ends_it_and_its_kubectl(tmp_path: Path) -> None:
    slow = tmp_path / "kubectl"
    slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    slow.chmod(0o755)
    environ = environment(tmp_path, KUBECTL=str(slow), KUBECONFIG_PATH=str(tmp_path / "none"))
    async with running(*PROVISIONER, environ=environ, log=tmp_path / "log") as process:

        async def started() -> bool:
            return (tmp_path / "pid").exists()

        await until(started)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    assert processes_with(str(tmp_path)) == []
    assert list(tmp_path.glob("sandbox-provisioner-*")) == []
    assert "Traceback" not in (tmp_path / "log").read_text()


async def smoke(base: str, *arguments: str, tmp_path: Path, **variables: str) -> tuple[int, str, str]:
    path = f"{KUBECTL.parent}:/usr/bin:/bin"
    environ = {**environment(tmp_path), "PATH": path, **variables}
    return await run(str(ROOT / "scripts" / "smoke.sh"), base, *arguments, environ=environ)


async def test_smoke_sh_with_a_key_and_kubectl(served: str, cluster: Cluster, kubectl: Kubectl, tmp_path: Path) -> None:
    kubeconfig = str(kubectl.kubeconfig)
    returncode, stdout, stderr = await smoke(
        served, "--kubectl", tmp_path=tmp_path, API_KEY="k3y", KUBECONFIG=kubeconfig
    )
    assert returncode == 0, stderr
    assert "pod/sandbox-smoke-" in stdout
    assert "service/sandbox-smoke-" in stdout
    assert stdout.splitlines()[-1] == "smoke: all is well"

    async def gone() -> bool:
        return cluster.objects("Pod") == []

    await until(gone)


async def test_a_key_wins_over_allow_unauthenticated_which_is_said(served: str, tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{served}/api/sandboxes") as response:
        assert response.status == 401
    said = [line["event"] for line in map(json.loads, (tmp_path / "log").read_text().splitlines())]
    assert said.count("ALLOW_UNAUTHENTICATED has no effect: an API key is set, and every request needs it.") == 1


async def test_smoke_sh_says_what_is_off_and_cleans_up(served: str, cluster: Cluster, tmp_path: Path) -> None:
    returncode, _, stderr = await smoke(served, tmp_path=tmp_path, API_KEY="wrong")
    assert returncode == 1
    assert "smoke: the create answered 401: set API_KEY" in stderr

    cluster.server_takes(3600)
    returncode, _, stderr = await smoke(served, tmp_path=tmp_path, API_KEY="k3y", SMOKE_TIMEOUT="1")
    assert returncode == 1
    assert "/v1/sandbox did not answer within 1 s" in stderr

    async def gone() -> bool:
        return cluster.objects("Pod") == []

    await until(gone)


async def test_smoke_sh_without_a_service_says_so(tmp_path: Path) -> None:
    returncode, _, stderr = await smoke(f"http://127.0.0.1:{free_port()}", tmp_path=tmp_path)
    assert returncode == 1
    assert "smoke: GET /health got no answer" in stderr


async def test_the_next_create_completes_the_half_of_a_process_killed_between_pod_and_service(
    cluster: Cluster, tmp_path: Path, start_provisioner: StartProvisioner
) -> None:
    port = free_port()
    environ = environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port))
    async with running(*PROVISIONER, environ=environ, log=tmp_path / "log"):
        await until(healthy(port))
        held = asyncio.Event()
        asked = iter([held.wait()])
        cluster.kmock["PATCH", kmock.resource("v1/services")] << (lambda: next(asked, NotImplemented))
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port}/api/sandboxes"
            request = asyncio.create_task(session.post(url, json={"sandbox_id": "a"}))

            async def pod_is_made() -> bool:
                return bool(cluster.objects("Pod"))

            await until(pod_is_made)
            kill_each(processes_with(str(tmp_path)))
            with pytest.raises(aiohttp.ClientError):
                await request
    held.set()
    assert cluster.objects("Service") == []
    (half,) = cluster.objects("Pod")

    other = await start_provisioner()
    assert (await other.get(f"{URL}/a")).status == 404
    await create(other)
    assert (await other.get(f"{URL}/a")).status == 200
    assert [pod["metadata"]["uid"] for pod in cluster.objects("Pod")] == [half["metadata"]["uid"]]
