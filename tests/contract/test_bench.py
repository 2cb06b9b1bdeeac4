"""scripts/bench.py as a user runs it: its output, and that it deletes what it creates."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shlex
import signal
import ssl
import sys
from pathlib import Path

import pytest
import trustme
import yaml
from aiohttp import web
from aiohttp.test_utils import RawTestServer

from devcluster import Cluster
from scripts.bench_clients import SERVICE, Failed, direct_client, percentile
from tests.conftest import ROOT
from tests.contract.faults import refuse_next
from tests.contract.processes import PROVISIONER, environment, free_port, processes_with, run
from tests.contract.service import KUBECTL, Provisioner, StartProvisioner, create, until

pytestmark = pytest.mark.slow

BENCH = (sys.executable, str(ROOT / "scripts" / "bench.py"))
SMALL = ("--sandboxes", "4", "--callers", "3", "--rounds", "1")
PHASES = [(work, callers) for callers in ("1", "3") for work in SERVICE]


def base_url(provisioner: Provisioner) -> str:
    return str(provisioner.client.make_url("/"))


async def bench(tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, str, str]:
    return await run(*BENCH, *arguments, environ=environment(tmp_path, **variables))


def rows(stdout: str) -> dict[tuple[str, str], list[float]]:
    """Return the figures of the printed table by phase and number of callers."""
    lines = [line.split() for line in stdout.splitlines() if line.split()[0] in SERVICE]
    return {(work, callers): [float(cell) for cell in cells] for work, callers, *cells in lines}


def pods(cluster: Cluster) -> list[str]:
    return [pod["metadata"]["name"] for pod in cluster.objects("Pod", "deer-flow")]


async def until_empty(cluster: Cluster) -> None:
    await until(lambda: not pods(cluster) and not cluster.objects("Service", "deer-flow"))


async def test_a_run_prints_every_phase_and_deletes_only_its_own_sandboxes(
    cluster: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    provisioner = await start_provisioner()
    await create(provisioner, "bench-00000000-1")  # of another run
    returncode, stdout, stderr = await bench(tmp_path, base_url(provisioner), *SMALL)
    assert (returncode, stderr) == (0, "")
    table = rows(stdout)
    assert list(table) == PHASES
    for p50, p99, rate, failed in table.values():
        assert 0 < p50 <= p99
        assert rate > 0
        assert failed == 0
    # the service runs in the test's process, which the bench finds by the port
    assert re.search(rf"^memory of {os.getpid()}: [\d.]+ MB in \d+ processes, then [\d.]+ MB in", stdout, re.MULTILINE)
    await until(lambda: pods(cluster) == ["sandbox-bench-00000000-1"])


async def test_direct_prints_the_baseline_with_ratios_and_leaves_nothing(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    options = (base_url(provisioner), *SMALL, "--direct", str(cluster.kubeconfig))
    returncode, stdout, stderr = await bench(tmp_path, *options)
    assert (returncode, stderr) == (0, "")
    table = rows(stdout)
    assert list(table) == PHASES
    for ours_p50, _, ours_rate, _, p50, _, rate, failed, ratio_p50, ratio_rate in table.values():
        assert failed == 0
        assert ratio_p50 == pytest.approx(ours_p50 / p50, rel=0.05, abs=0.02)  # the printed figures are rounded
        assert ratio_rate == pytest.approx(ours_rate / rate, rel=0.05, abs=0.02)
    await until_empty(cluster)


async def test_direct_creates_nothing_outside_the_provisioners_namespace(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    options = (base_url(provisioner), *SMALL, "--direct", str(cluster.kubeconfig))
    returncode, stdout, stderr = await bench(tmp_path, *options, K8S_NAMESPACE="default")
    assert (returncode, stdout) == (1, "")
    assert "bench: direct: get was answered 404" in stderr
    assert not cluster.objects("Pod", "default")
    await until_empty(cluster)


async def test_the_api_key_is_sent_and_never_printed(start_provisioner: StartProvisioner, tmp_path: Path) -> None:
    url = base_url(await start_provisioner(PROVISIONER_API_KEY="k3y"))
    returncode, stdout, stderr = await bench(tmp_path, url, *SMALL, API_KEY="wr0ng", PROVISIONER_API_KEY="k3y")
    assert (returncode, stdout) == (1, "")
    assert stderr == "bench: provisioner: list was answered 401: set API_KEY to its key, or renew the kubeconfig\n"

    returncode, stdout, stderr = await bench(tmp_path, url, *SMALL, PROVISIONER_API_KEY="k3y")
    assert (returncode, stderr) == (0, "")
    assert "k3y" not in stdout


async def test_an_unreachable_provisioner_is_one_line_on_stderr(tmp_path: Path) -> None:
    returncode, stdout, stderr = await bench(tmp_path, f"http://127.0.0.1:{free_port()}", *SMALL)
    assert (returncode, stdout) == (1, "")
    assert re.fullmatch(r"bench: provisioner: no answer to list: Cannot connect to host 127\.0\.0\.1:.*\n", stderr)


@pytest.mark.parametrize(
    ("limits", "code", "reason"),
    [((), 130, "interrupted"), (("--max-seconds", "2"), 1, "--max-seconds are over")],
    ids=["Ctrl-C", "--max-seconds"],
)
async def test_an_interrupted_run_deletes_its_sandboxes(
    limits: tuple[str, ...], code: int, reason: str, cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    arguments = (base_url(provisioner), "--sandboxes", "100", "--direct", str(cluster.kubeconfig), *limits)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *BENCH, *arguments, env=environment(tmp_path), stdout=pipe, stderr=pipe
    )
    try:
        await until(lambda: len(pods(cluster)) > 5 or process.returncode is not None)
        if not limits:
            process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == code
    assert stderr.decode() == f"bench: {reason}: phases that had not ended are left out\n"
    await until_empty(cluster)


async def test_failed_creates_and_deletes_are_reported_and_nothing_is_left(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    refuse_next(cluster, "PATCH", "pods", "apply-quota-exceeded")
    refuse_next(cluster, "DELETE", "pods", "apply-quota-exceeded")
    returncode, stdout, stderr = await bench(tmp_path, base_url(provisioner), *SMALL)
    assert returncode == 1
    assert [rows(stdout)[work, "1"][-1] for work in ("create", "delete")] == [1, 1]
    assert "bench: provisioner: create was answered 429" in stderr
    assert "LEFT BEHIND" not in stderr
    await until_empty(cluster)


async def test_a_live_view_run_prints_its_figures_and_deletes_its_objects(
    cluster: Cluster, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    provisioner = await start_provisioner(SANDBOX_SERVICE_TYPE="ClusterIP")
    await create(provisioner, "bench-00000000-1")  # of another run
    options = ("--direct", str(cluster.kubeconfig), "--fill", "60", "--idle", "1", "--changes", "200")
    returncode, stdout, stderr = await bench(
        tmp_path, base_url(provisioner), *options, SANDBOX_SERVICE_TYPE="ClusterIP"
    )
    assert (returncode, stderr) == (0, "")
    listed, idle, held, seen = stdout.splitlines()
    percentiles = r"p50 [\d.]+ ms, p99 [\d.]+ ms"
    assert re.fullmatch(rf"list: 61 sandboxes, {percentiles}", listed)
    assert re.fullmatch(r"idle: [\d.]+ s, CPU [\d.]+ % of one core: the service [\d.]+ %, its children [\d.]+ %", idle)
    megabytes = r"[\d.]+ MB PSS \([\d.]+ RSS\)"
    assert re.fullmatch(rf"memory of {os.getpid()}: {megabytes}; its largest child: {megabytes}", held)
    counts = r"1000 of 1000 changes, [\d.]+/s"
    assert re.fullmatch(rf"seen after: {percentiles}; {counts}; answered after {percentiles}", seen)
    await until(lambda: pods(cluster) == ["sandbox-bench-00000000-1"])


async def test_a_service_started_by_the_bench_is_stopped(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    await create(provisioner)  # creates the namespace before the service starts
    port = free_port()
    options = ("--direct", str(cluster.kubeconfig), "--fill", "3", "--start", shlex.join(PROVISIONER))
    service = {"KUBECONFIG_PATH": str(cluster.kubeconfig), "LISTEN_PORT": str(port)}
    returncode, stdout, stderr = await bench(tmp_path, f"http://127.0.0.1:{port}", *options, **service)
    assert (returncode, "bench:" in stderr) == (0, False), stderr
    assert re.match(r"start to ready: [\d.]+ s\nlist: 4 sandboxes, ", stdout)
    await until(lambda: not processes_with(f"LISTEN_PORT={port}"))
    await until(lambda: pods(cluster) == ["sandbox-a"])


async def test_a_service_that_exits_before_it_is_ready_is_reported(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    returncode, stdout, stderr = await bench(tmp_path, url, "--start", f"{sys.executable} -c exit(3)")
    assert (returncode, stdout) == (1, "")
    assert stderr == "bench: the service ended with 3 before it was ready\n"


async def test_an_interrupted_live_view_run_deletes_its_objects(
    cluster: Cluster, provisioner: Provisioner, tmp_path: Path
) -> None:
    options = ("--direct", str(cluster.kubeconfig), "--fill", "5", "--idle", "600", "--max-seconds", "3")
    returncode, _, stderr = await bench(tmp_path, base_url(provisioner), *options)
    assert returncode == 1
    assert stderr == "bench: --max-seconds are over: phases that had not ended are left out\n"
    await until_empty(cluster)


async def test_changes_require_direct(tmp_path: Path) -> None:
    returncode, _, stderr = await bench(tmp_path, "http://127.0.0.1:1", "--changes", "50")
    assert returncode == 2
    assert "--fill and --changes need --direct" in stderr


async def test_direct_sends_the_client_certificate_and_verifies_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECTL", str(KUBECTL))
    ours, other = trustme.CA(), trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.verify_mode = ssl.CERT_REQUIRED
    ours.issue_cert("127.0.0.1").configure_cert(context)
    ours.configure_trust(context)
    client = ours.issue_cert("admin@example.org")

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response({})

    def kubeconfig(port: int | None, authority: trustme.CA) -> str:
        def encoded(blob: trustme.Blob) -> str:
            return base64.b64encode(blob.bytes()).decode()

        server = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": encoded(authority.cert_pem)}
        user = {
            "client-certificate-data": encoded(client.cert_chain_pems[0]),
            "client-key-data": encoded(client.private_key_pem),
        }
        config = {
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(config))
        return str(tmp_path / "config")

    server = RawTestServer(answer, scheme="https")
    await server.start_server(ssl=context)
    trusting, distrusting = (direct_client(kubeconfig(server.port, authority), set()) for authority in (ours, other))
    try:
        await trusting.do("health")
        with pytest.raises(Failed, match="certificate verify failed"):
            await distrusting.do("health")
    finally:
        await trusting.session.close()
        await distrusting.session.close()
        await server.close()


async def test_a_run_with_several_clusters_prints_their_figures_and_ends_all_of_it(tmp_path: Path) -> None:
    port = free_port()
    options = ("--clusters", "2", "--fill", "3", "--sandboxes", "3", "--rounds", "1", "--idle", "1")
    # A short age, so that the list soon says that it lacks the cluster that hangs.
    environ = environment(tmp_path, LIVE_VIEW_MAX_AGE="2")
    url = f"http://127.0.0.1:{port}"
    returncode, stdout, stderr = await run(*BENCH, url, *options, environ=environ, seconds=600)
    assert (returncode, "bench:" in stderr) == (0, False), stderr
    percentiles, megabytes = r"p50 [\d.]+ ms, p99 [\d.]+ ms", r"\d+ children [\d.]+ MB PSS"
    one, two = (
        rf"{count} clusters?, load [\d.]+:\nstart to ready: [\d.]+ s\nstart to all ready: [\d.]+ s\n"
        rf"list: {3 * count} sandboxes, {percentiles}\n"
        rf"CPU of the service for a list: [\d.]+ ms\nfirst get of a sandbox: {percentiles}\n"
        rf"get of a sandbox: {percentiles}\nidle: .*\nmemory: the service [\d.]+ MB RSS, {megabytes}\n"
        for count in (1, 2)
    )
    further = r"memory of a further cluster: the service [-\d.]+ MB RSS, [-\d.]+ children [-\d.]+ MB PSS\n"
    phase = r"p50 [\d.]+, p99 [\d.]+"
    rows = "".join(
        rf"{work}: before {phase}; at once {phase}, ratio [\d.]+; later {phase}, ratio [\d.]+\n"
        for work in ("get", "list", "create", "delete")
    )
    assert re.fullmatch(rf"{one}{two}{further}c2 hangs, 1 rounds?, load [\d.]+; others, ms:\n{rows}", stdout), stdout
    await until(lambda: not processes_with(f"LISTEN_PORT={port}"))
    # devcluster's folders are below TMPDIR, and its processes have it in their environment.
    await until(lambda: not processes_with(f"TMPDIR={tmp_path}"))
    assert not list(tmp_path.glob("bench-*"))


async def test_an_interrupted_run_with_several_clusters_ends_also_the_one_that_hangs(tmp_path: Path) -> None:
    options = ("--clusters", "2", "--fill", "1", "--sandboxes", "1", "--rounds", "9")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *BENCH, f"http://127.0.0.1:{free_port()}", *options, env=environment(tmp_path), stdout=pipe, stderr=pipe
    )
    reading = asyncio.create_task(process.communicate())

    def is_stopped(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
        except OSError:  # it has exited
            return False

    try:
        await until(lambda: any(map(is_stopped, processes_with(f"TMPDIR={tmp_path}"))) or reading.done(), 120)
        process.send_signal(signal.SIGINT)
        _, stderr = await asyncio.wait_for(reading, 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 130, stderr.decode()
    assert "bench: interrupted: phases that had not ended are left out\n" in stderr.decode()
    await until(lambda: not processes_with(f"TMPDIR={tmp_path}"))


async def test_several_clusters_are_not_measured_on_a_cluster_of_the_user(tmp_path: Path) -> None:
    returncode, _, stderr = await bench(tmp_path, "http://127.0.0.1:1", "--clusters", "2", "--direct", "kubeconfig")
    assert returncode == 2
    assert "--clusters is without --direct" in stderr


def test_percentiles_are_by_nearest_rank() -> None:
    assert [percentile([3, 1, 2, 4], percent) for percent in (25, 50, 51, 95, 99, 100)] == [1, 2, 3, 4, 4, 4]
    assert [percentile(range(1, 101), percent) for percent in (50, 95, 99)] == [50, 95, 99]


async def test_the_gateway_is_measured_against_direct_without_a_service(tmp_path: Path) -> None:
    options = ("--callers", "2", "--rounds", "1", "--seconds", "1", "--megabytes", "2", "--sockets", "3")
    returncode, stdout, stderr = await bench(tmp_path, "--gateway", *options)
    assert (returncode, stderr) == (0, "")
    both = r"[\d.]+ and [\d.]+, ratio [\d.]+\n"
    assert re.fullmatch(
        r"1 rounds, \d+ processors, load [\d.]+; direct and through the gateway:\n"
        rf"requests/s, 2 callers: {both}alone, p50 ms: {both}down, MB/s: {both}up, MB/s: {both}"
        r"memory of the gateway, 2 MB each way at a time: at most [\d.]+ MB more\n"
        rf"WebSocket messages/s, 2 callers: {both}3 idle WebSockets: -?[\d.]+ MB more\n",
        stdout,
    ), stdout
    await until(lambda: not processes_with(f"TMPDIR={tmp_path}"))


async def test_the_gateway_is_not_measured_together_with_a_service(tmp_path: Path) -> None:
    for arguments in (("http://127.0.0.1:1", "--gateway"), ()):
        returncode, _, stderr = await bench(tmp_path, *arguments)
        assert (returncode, "either BASE_URL or --gateway is needed" in stderr) == (2, True), stderr
    returncode, _, stderr = await bench(tmp_path, "--gateway", "--clusters", "2")
    assert (returncode, "--gateway is without" in stderr) == (2, True), stderr
