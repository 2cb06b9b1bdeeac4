"""scripts/bench.py as a user runs it: what it prints, what it refuses, and that it leaves nothing behind."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
import yaml
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from devcluster import Cluster
from scripts.bench.client import Client
from scripts.bench.figures import DIRECT, PROVISIONER, Phase, Sample, percentile, ratios_of, summarise
from scripts.bench.kubeconfig import read_kubeconfig
from tests.conftest import ROOT
from tests.contract.faults import refuse_next
from tests.contract.processes import environment, free_port, run
from tests.contract.service import Provisioner, StartProvisioner, create, until
from tests.marker import MARKER

BENCH = (sys.executable, str(ROOT / "scripts" / "bench.py"))
SMALL = ("--count", "5", "--callers", "3", "--rounds", "1", "--reads", "6")
WORK = ("create", "get", "list", "delete")


def base_url(provisioner: Provisioner) -> str:
    return str(provisioner.client.make_url("/"))


async def bench(tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    return await run(*BENCH, *arguments, environ=environment(tmp_path, **variables))


@asynccontextmanager
async def started(tmp_path: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    environ = environment(tmp_path)
    process = await asyncio.create_subprocess_exec(*BENCH, *arguments, env=environ, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def is_empty(cluster: Cluster) -> None:
    async def gone() -> bool:
        return not cluster.objects("Pod", "deer-flow") and not sandbox_services(cluster)

    await until(gone)


def sandbox_services(cluster: Cluster) -> Sequence[Any]:
    return cluster.objects("Service", "deer-flow")


async def test_every_phase_is_measured_and_compared_with_the_api_server_and_nothing_is_left(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    options = (*SMALL, "--direct", str(cluster.kubeconfig), "--list-size", "7", "--json", "-")
    returncode, stdout, stderr = await bench(tmp_path, base_url(provisioner), *options)
    assert returncode == 0, stderr
    report = json.loads(stdout)

    measured = {(one["target"], one["work"], one["callers"]): one for one in report["phases"]}
    both = {(target, work, callers) for target in (PROVISIONER, DIRECT) for work in WORK for callers in (1, 3)}
    health = {(PROVISIONER, "health", callers) for callers in (1, 3)}
    assert set(measured) == both | health | {(target, "list of 7", 1) for target in (PROVISIONER, DIRECT)}
    for one in measured.values():
        assert one["errors"] == 0
        assert one["requests"] >= 5
        assert 0 < one["p50_ms"] <= one["p95_ms"] <= one["p99_ms"]
        assert one["rate_per_s"] > 0

    compared = {(one["work"], one["callers"], one["to"]): one for one in report["ratios"]}
    to_direct = {(work, callers, "direct") for work in WORK for callers in (1, 3)} | {("list of 7", 1, "direct")}
    assert set(compared) == to_direct | {("get", callers, "health") for callers in (1, 3)}
    ours, direct = measured[PROVISIONER, "create", 3], measured[DIRECT, "create", 3]
    assert compared["create", 3, "direct"]["p50"] == pytest.approx(ours["p50_ms"] / direct["p50_ms"])
    assert compared["create", 3, "direct"]["rate"] == pytest.approx(ours["rate_per_s"] / direct["rate_per_s"])

    assert report["errors"] == 0
    assert report["problem"] is None
    assert "all answered as they should be; nothing left behind" in stderr
    await is_empty(cluster)


async def test_without_direct_and_with_an_api_key_it_prints_a_table_and_writes_a_file(
    cluster: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(PROVISIONER_API_KEY="k3y")
    url = base_url(provisioner)
    returncode, stdout, stderr = await bench(
        tmp_path, url, *SMALL, "--json", str(tmp_path / "figures.json"), API_KEY="k3y"
    )
    assert returncode == 0, stderr
    assert [line.split()[:2] for line in stdout.splitlines() if line.startswith(("create", "health"))] == [
        ["health", "1"],
        ["create", "1"],
        ["health", "3"],
        ["create", "3"],
    ]
    report = json.loads((tmp_path / "figures.json").read_text())
    assert {one["to"] for one in report["ratios"]} == {"health"}
    assert "k3y" not in stdout + stderr + json.dumps(report)
    await is_empty(cluster)


async def test_a_wrong_key_is_said(start_provisioner: StartProvisioner, tmp_path: Path) -> None:
    provisioner = await start_provisioner(PROVISIONER_API_KEY="k3y")
    returncode, stdout, _ = await bench(tmp_path, base_url(provisioner), *SMALL, API_KEY="wrong")
    assert returncode == 1
    assert "The provisioner answered 401: set API_KEY to its PROVISIONER_API_KEY." in stdout


async def test_requests_that_fail_are_counted_and_shown(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    refuse_next(cluster, "PATCH", "pods", "apply-quota-exceeded", times=4)
    returncode, stdout, stderr = await bench(tmp_path, base_url(provisioner), *SMALL)
    assert returncode == 1, stderr
    assert "4 of 50 requests failed" in stdout
    assert "4 x provisioner, create, 1 at once: POST /api/sandboxes answered 429" in stdout
    assert "The cluster's quota for sandboxes is used up" in stdout
    await is_empty(cluster)


async def test_a_delete_that_fails_is_made_good_at_the_end(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    refuse_next(cluster, "DELETE", "pods", "apply-quota-exceeded")
    returncode, stdout, _ = await bench(tmp_path, base_url(provisioner), *SMALL)
    assert returncode == 1
    assert "1 of" in stdout
    assert "LEFT BEHIND" not in stdout
    await is_empty(cluster)


async def test_other_sandboxes_are_left_alone(cluster: Cluster, provisioner: Provisioner, tmp_path: Path) -> None:
    await create(provisioner, "mine")
    options = (*SMALL, "--direct", str(cluster.kubeconfig))
    returncode, _, stderr = await bench(tmp_path, base_url(provisioner), *options)
    assert returncode == 0, stderr
    assert [pod["metadata"]["name"] for pod in cluster.objects("Pod", "deer-flow")] == ["sandbox-mine"]


async def test_ctrl_c_and_the_time_limit_end_it_early_and_leave_nothing(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    many = (base_url(provisioner), "--count", "500", "--callers", "8", "--direct", str(cluster.kubeconfig))
    async with started(tmp_path, *many) as process:

        async def at_work() -> bool:
            return len(cluster.objects("Pod", "deer-flow")) > 5

        await until(at_work, seconds=60)
        process.send_signal(signal.SIGINT)
        stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 130
        assert b"Stopped early: interrupted." in stdout
        assert b"cleaning up" in stderr
        assert b"Traceback" not in stderr
    await is_empty(cluster)

    returncode, out, _ = await bench(tmp_path, *many, "--max-seconds", "2")
    assert returncode == 1
    assert "Stopped early: the 2 s of --max-seconds are over." in out
    await is_empty(cluster)


async def test_objects_that_are_not_the_provisioners_are_not_compared(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    options = (base_url(provisioner), *SMALL, "--direct", str(cluster.kubeconfig))
    returncode, stdout, _ = await bench(tmp_path, *options, SANDBOX_IMAGE="another:1")
    assert returncode == 1
    assert "The provisioner makes other objects than --direct would" in stdout
    await is_empty(cluster)

    returncode, stdout, _ = await bench(tmp_path, *options, K8S_NAMESPACE="another")
    assert returncode == 1
    assert "that the API server of --direct does not show" in stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["http://192.0.2.1:8002"], "http://192.0.2.1:8002 is not this machine"),
        (["http://provisioner.example"], "is not this machine"),
        (["http://127.0.0.1.example"], "is not this machine"),
        (["127.0.0.1:8002"], "BASE_URL must be like"),
        (["http://127.0.0.1:8002", "--direct", "/none"], "The kubeconfig /none can't be used"),
        (["http://127.0.0.1:8002", "--count", "0"], "must be from 1 to"),
        (["http://127.0.0.1:8002", "--list-size", "5000"], "5000 node ports at once, and a cluster has 2,768"),
        (["http://127.0.0.1:8002", "--pid", "4194304"], "There is no process 4194304"),
        (["http://127.0.0.1:8002", "--json", "/none/x"], "There is no folder for /none/x"),
    ],
)
async def test_what_can_not_or_must_not_be_done_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    returncode, stdout, stderr = await bench(tmp_path, *arguments)
    assert returncode == 2
    assert stdout == ""
    assert said in stderr


async def test_a_kubeconfig_of_another_machine_is_refused_and_shows_no_token(tmp_path: Path) -> None:
    config = {
        "clusters": [{"name": "far", "cluster": {"server": "https://192.0.2.1:6443"}}],
        "users": [{"name": "far", "user": {"token": MARKER}}],
        "contexts": [{"name": "far", "context": {"cluster": "far", "user": "far"}}],
        "current-context": "far",
    }
    (tmp_path / "config").write_text(yaml.safe_dump(config))
    direct = ("--direct", str(tmp_path / "config"))
    returncode, _, stderr = await bench(tmp_path, "http://127.0.0.1:8002", *direct)
    assert returncode == 2
    assert "https://192.0.2.1:6443 is not this machine" in stderr
    assert MARKER not in stderr


async def test_a_kubeconfigs_client_certificate_is_used_and_the_servers_checked(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.example").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    client = authority.issue_cert("admin@example.org")
    certificate = client.cert_chain_pems[0].bytes()
    key = client.private_key_pem.bytes()

    async def version(request: web.BaseRequest) -> web.Response:
        return web.json_response({"encrypted": request.transport is not None and request.secure})

    async with AsyncExitStack() as stack:
        server = RawTestServer(version, scheme="https")
        await server.start_server(ssl=context)
        stack.push_async_callback(server.close)
        cluster = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": "ca.crt"}
        user = {
            "client-certificate-data": base64.b64encode(certificate).decode(),
            "client-key-data": base64.b64encode(key).decode(),
        }
        config: dict[str, Any] = {
            "clusters": [{"name": "c", "cluster": {**cluster, "tls-server-name": "api.example"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        async with Client(read_kubeconfig(tmp_path / "config")) as direct:
            assert (await direct.send("GET", "/version")).json() == {"encrypted": True}

        config["clusters"][0]["cluster"] = cluster
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        async with Client(read_kubeconfig(tmp_path / "config")) as direct:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await direct.send("GET", "/version")


async def test_without_a_service_it_says_so(tmp_path: Path) -> None:
    returncode, stdout, stderr = await bench(tmp_path, f"http://127.0.0.1:{free_port()}", *SMALL)
    assert returncode == 1
    assert "The run can't begin: Cannot connect to host 127.0.0.1" in stdout
    assert "Traceback" not in stderr


def test_percentiles_are_by_nearest_rank_and_figures_medians_over_the_rounds() -> None:
    assert [percentile([3, 1, 2, 4], percent) for percent in (25, 50, 51, 95, 99, 100)] == [1, 2, 3, 4, 4, 4]
    assert [percentile(range(1, 101), percent) for percent in (50, 95, 99)] == [50, 95, 99]
    rounds = [Sample((seconds,) * 10, 10 * seconds, errors=1) for seconds in (0.001, 0.003, 0.1)]
    figures = summarise(rounds)
    assert (figures.requests, figures.errors) == (33, 3)
    assert figures.p50_ms == pytest.approx(3)
    assert figures.p99_ms == pytest.approx(3)
    assert figures.rate_per_s == pytest.approx(1000 / 3)


def test_a_phase_in_which_all_failed_has_no_figures_and_no_ratio() -> None:
    nothing, something = summarise([Sample((), 1.0, errors=5)]), summarise([Sample((0.1,), 0.1, errors=0)])
    assert (nothing.errors, nothing.p50_ms, nothing.rate_per_s) == (5, None, None)
    phase = Phase("create", 1)
    assert ratios_of({PROVISIONER: {phase: nothing}, DIRECT: {phase: something}}) == []
