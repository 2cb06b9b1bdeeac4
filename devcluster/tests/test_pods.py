"""The life cycle of Pods in devcluster and their node ports, as seen through kubectl and HTTP."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import aiohttp

from devcluster import Cluster
from tests.kubectl import Kubectl, pod, service
from tests.waiting import until

READINESS = {"httpGet": {"path": "/v1/sandbox", "port": 8080}, "periodSeconds": 5}
STARTUP = {"httpGet": {"path": "/v1/sandbox", "port": 8080}, "periodSeconds": 1, "failureThreshold": 3}


def phase(cluster: Cluster, name: str = "x") -> str:
    found = cluster.get("Pod", "default", name)
    return str(found["status"]["phase"]) if found else ""


def container(cluster: Cluster) -> dict[str, Any]:
    found = cluster.get("Pod", "default", "x")
    statuses: list[dict[str, Any]] = found["status"].get("containerStatuses") or [{}] if found else [{}]
    return statuses[0]


def node_port(cluster: Cluster, name: str = "x-svc") -> int:
    found = cluster.get("Service", "default", name)
    assert found is not None
    return int(found["spec"]["ports"][0]["nodePort"])


async def answers(port: int) -> bool:
    async with aiohttp.ClientSession() as session:
        try:
            async with session.get(f"http://127.0.0.1:{port}/v1/sandbox") as response:
                return response.status == 200
        except aiohttp.ClientConnectorError:
            return False


async def test_a_pod_goes_from_pending_to_ready(cluster: Cluster, kubectl: Kubectl) -> None:
    made = (await kubectl.apply(pod(readinessProbe=READINESS))).json
    assert made["status"]["phase"] == "Pending"
    waited = await kubectl("wait", "--for=condition=Ready", "pod/x", "--timeout=20s")
    assert waited.rc == 0, waited.stderr
    reasons = [event["reason"] for event in cluster.objects("Event", "default")]
    assert sorted(reasons) == ["Created", "Pulled", "Scheduled", "Started"]


async def test_a_node_port_refuses_connections_until_the_server_is_up(tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "c", start_after=0.2) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
        made = (await kubectl.apply(service(publishNotReadyAddresses=True))).json
        port = made["spec"]["ports"][0]["nodePort"]
        assert not await answers(port)
        assert (await kubectl.apply(pod(readinessProbe={**READINESS, "initialDelaySeconds": 1000}))).rc == 0
        assert not await answers(port)
        await until(lambda: answers(port))
        assert container(cluster)["ready"] is False


async def test_a_node_port_answers_only_once_its_pod_is_ready(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(readinessProbe=READINESS), service())
    port = node_port(cluster)
    await until(lambda: phase(cluster) == "Running")
    assert not await answers(port)
    await until(lambda: answers(port))
    assert container(cluster)["ready"] is True


async def test_a_node_port_closes_with_its_pod_and_is_freed_with_its_service(tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "c", node_port_range=[32099], speed=10) as cluster:
        kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
        await kubectl.apply(pod(), service())
        await until(lambda: answers(node_port(cluster)))
        assert (await kubectl("delete", "pod/x")).rc == 0
        await until(lambda: not_answers(32099))
        full = await kubectl.apply(service("y"))
        assert "range is full" in full.stderr
        assert (await kubectl("delete", "service/x-svc")).rc == 0
        assert (await kubectl.apply(service("y"))).rc == 0


async def not_answers(port: int) -> bool:
    return not await answers(port)


async def test_a_node_port_in_use_on_this_machine_is_skipped(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with Cluster(directory=tmp_path / "c", node_port_range=[port, 32098]) as cluster:
            kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
            made = (await kubectl.apply(service())).json
            assert made["spec"]["ports"][0]["nodePort"] == 32098


async def test_a_pod_becomes_ready_when_its_startup_probe_succeeds(tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "c", speed=20) as cluster:
        cluster.server_takes(1.5)
        kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
        await kubectl.apply(pod(startupProbe=STARTUP, readinessProbe=READINESS))
        await until(lambda: phase(cluster) == "Running")
        assert container(cluster)["started"] is False
        await until(lambda: container(cluster).get("ready"))
        assert container(cluster)["started"] is True
        assert container(cluster)["restartCount"] == 0


async def test_a_failed_startup_probe_restarts_the_container_with_back_off(tmp_path: Path) -> None:
    async with Cluster(directory=tmp_path / "c", speed=50) as cluster:
        cluster.server_takes(60, image="slow:1")
        kubectl = Kubectl(cluster.kubeconfig, tmp_path / "home")
        await kubectl.apply(pod(image="slow:1", startupProbe=STARTUP))
        await until(lambda: container(cluster).get("restartCount") == 1)
        assert container(cluster)["lastState"]["terminated"]["exitCode"] == 137
        await until(lambda: "waiting" in container(cluster)["state"])
        waiting = container(cluster)["state"]["waiting"]
        assert waiting["reason"] == "CrashLoopBackOff"
        assert waiting["message"].startswith("back-off 10s restarting failed container=sandbox pod=x_default(")
        assert phase(cluster) == "Running"


async def test_a_deleted_pod_terminates_and_disappears(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.stopping_takes(10)
    await kubectl.apply(pod(terminationGracePeriodSeconds=20))
    await until(lambda: phase(cluster) == "Running")
    assert (await kubectl("delete", "pod/x", "--wait=false")).rc == 0
    terminating = cluster.get("Pod", "default", "x")
    assert terminating is not None
    assert terminating["metadata"]["deletionGracePeriodSeconds"] == 20
    waited = await kubectl("wait", "--for=delete", "pod/x", "--timeout=10s")
    assert waited.rc == 0, waited.stderr


async def test_a_forced_delete_removes_a_pod_at_once(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.stopping_takes(1000)
    await kubectl.apply(pod())
    await until(lambda: phase(cluster) == "Running")
    assert (await kubectl("delete", "pod/x", "--grace-period=0", "--force", "--wait=false")).rc == 0
    assert cluster.get("Pod", "default", "x") is None


async def test_a_recreated_pod_runs_with_a_new_uid(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod())
    await until(lambda: phase(cluster) == "Running")
    first = cluster.get("Pod", "default", "x")
    await kubectl("delete", "pod/x")
    await kubectl.apply(pod())
    await until(lambda: phase(cluster) == "Running")
    second = cluster.get("Pod", "default", "x")
    assert first is not None
    assert second is not None
    assert first["metadata"]["uid"] != second["metadata"]["uid"]


async def test_set_pod_puts_a_pod_into_a_lasting_state(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod())
    await until(lambda: phase(cluster) == "Running")
    cluster.set_pod("default", "x", phase="Failed", exit_code=7)
    shown = (await kubectl("get", "pod/x", "-o", "json")).json
    assert shown["status"]["phase"] == "Failed"
    assert shown["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    cluster.set_pod("default", "x", waiting="CrashLoopBackOff", message="back-off 10s", restarts=3)
    assert container(cluster)["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}
    assert container(cluster)["restartCount"] == 3
