"""A Role without `patch`, as in DeerFlow's chart: `kubectl create` works, and operations that need `patch` fail."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devcluster import Cluster
from devcluster.authorization import Right
from sandboxes.api.app_keys import SANDBOX_SERVICE
from tests.contract.faults import refuse_next
from tests.contract.lives import POD, SERVICE, annotations_of, nothing_left, pass_time, reaper_of, uid_of
from tests.contract.processes import PROVISIONER, environment, free_port, processes_with, running
from tests.contract.service import URL, Provisioner, StartProvisioner, create, until
from tests.kubectl import Kubectl

NS = "deer-flow"
BASIC = ("create", "delete", "get", "list", "watch")
LACKS = "The provisioner lacks the right to patch pods in the cluster"
CREATE_IN_PROGRESS = {"detail": "Another process is creating the sandbox"}

pytestmark = pytest.mark.usefixtures("without_reaper")


def rules(pods: Iterable[str] = BASIC, services: Iterable[str] = BASIC) -> list[dict[str, Any]]:
    return [
        {"apiGroups": [""], "resources": [resource], "verbs": list(verbs)}
        for resource, verbs in (("pods", pods), ("services", services), ("pods/log", ["get"]))
    ]


@pytest.fixture
async def role(cluster: Cluster) -> None:
    cluster.make_namespace(NS)
    cluster.authorization.restrict(NS, rules())


def grant_patch(cluster: Cluster) -> None:
    cluster.authorization.restrict(NS, rules((*BASIC, "patch"), (*BASIC, "patch")))


def used(cluster: Cluster) -> set[Right]:
    return {right for right in cluster.authorization.used if right.verb in {"create", "patch"}}


BOTH_CREATED = {Right("create", "", "pods"), Right("create", "", "services")}


async def post(provisioner: Provisioner, path: str = "", **body: Any) -> tuple[int, dict[str, Any]]:
    response = await provisioner.post(URL + path, json=body)
    return response.status, await response.json()


@pytest.mark.usefixtures("role")
async def test_a_sandbox_is_created_read_listed_and_deleted(
    provisioner: Provisioner, cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        made = await create(provisioner, user_id="u", thread_id="t", ttl_seconds=3600)
        await create(provisioner, "b")
    assert caplog.text.count("Sandboxes are made by `kubectl create`") == 1
    assert used(cluster) == BOTH_CREATED
    assert made["sandbox_url"] == (await (await provisioner.get(f"{URL}/a")).json())["sandbox_url"]
    assert (await (await provisioner.get(URL)).json())["count"] == 2
    assert (await provisioner.get("/readyz")).status == 200
    for one in "ab":
        assert (await provisioner.delete(f"{URL}/{one}")).status == 200
    await until(lambda: nothing_left(cluster))


@pytest.mark.usefixtures("role")
async def test_a_forbidden_apply_is_not_tried_again(provisioner: Provisioner, cluster: Cluster) -> None:
    def applies() -> int:
        return sum(request.method.value == "PATCH" for request in cluster.kmock.requests)

    await create(provisioner)
    before = applies()
    assert before > 0
    await create(provisioner, "b")
    await create(provisioner, "b")
    assert applies() == before


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize("by", ["the same process", pytest.param("another process", marks=pytest.mark.slow)])
async def test_a_repeated_create_returns_the_existing_sandbox(
    start_provisioner: StartProvisioner, cluster: Cluster, by: str
) -> None:
    first, second = [await start_provisioner() for _ in range(2)]
    asker = first if by == "the same process" else second
    made = await create(first, user_id="u", thread_id="t", ttl_seconds=3600)
    before = cluster.get(*POD)
    again = await create(asker, user_id="u", thread_id="t", ttl_seconds=3600)
    same = ("sandbox_url", "created_at", "expires_at")
    assert [again[field] for field in same] == [made[field] for field in same]
    assert cluster.get(*POD)["metadata"]["annotations"] == before["metadata"]["annotations"]  # type: ignore[index]
    status, _ = await post(asker, sandbox_id="a", user_id="other", thread_id="t")
    assert status == 409


@pytest.mark.usefixtures("role")
async def test_concurrent_creates_of_one_id_make_one_sandbox(provisioner: Provisioner, cluster: Cluster) -> None:
    answers = await asyncio.gather(*(create(provisioner) for _ in range(2)))
    assert answers[0]["sandbox_url"] == answers[1]["sandbox_url"]
    assert len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("role")
async def test_concurrent_creates_in_two_replicas_make_one_sandbox(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    replicas = [await start_provisioner() for _ in range(2)]
    await until(lambda: all(one.view.is_fresh for one in replicas))
    cluster.faults.slow(0.3, verb="create")
    for name in ("a", "b", "c"):
        answers = await asyncio.gather(*(create(one, name) for one in replicas))
        assert answers[0]["sandbox_url"] == answers[1]["sandbox_url"]
    assert len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 3


@pytest.mark.usefixtures("role")
async def test_of_two_concurrent_owners_one_gets_409(start_provisioner: StartProvisioner, cluster: Cluster) -> None:
    replicas = [await start_provisioner() for _ in range(2)]
    await until(lambda: all(one.view.is_fresh for one in replicas))
    cluster.faults.slow(0.3, verb="create")
    users = ["u", "v"]
    answers = await asyncio.gather(
        *(
            post(one, sandbox_id="a", user_id=user, thread_id="t", labels={"of": user})
            for one, user in zip(replicas, users, strict=True)
        )
    )
    assert sorted(status for status, _ in answers) == [200, 409]
    (winner,) = (user for (status, _), user in zip(answers, users, strict=True) if status == 200)
    for one in (POD, SERVICE):
        stored = cluster.get(*one)
        assert stored is not None
        assert stored["metadata"]["labels"]["of"] == winner


@pytest.mark.slow
@pytest.mark.usefixtures("role")
@pytest.mark.parametrize("case", ["create-quota", "right"])
async def test_a_create_that_fails_after_the_pod_leaves_nothing(
    provisioner: Provisioner, cluster: Cluster, case: str
) -> None:
    if case == "right":
        cluster.authorization.restrict(NS, rules(services=["delete", "get", "list", "watch"]))
    else:
        await create(provisioner, "b")
        refuse_next(cluster, "POST", "services", "apply-quota-exceeded")
    status, body = await post(provisioner, sandbox_id="a")
    assert status == (502 if case == "right" else 429), body
    await until(lambda: cluster.get(*POD) is None)
    assert cluster.get(*SERVICE) is None


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize("resource", ["pods", pytest.param("services", marks=pytest.mark.slow)])
async def test_a_lost_response_causes_no_second_object(
    provisioner: Provisioner, cluster: Cluster, resource: str
) -> None:
    await create(provisioner, "b")
    cluster.faults.cut(0, verb="create", resource=resource, times=1)
    await create(provisioner)
    assert len(cluster.objects("Pod")) == len(cluster.objects("Service")) == 2


async def test_a_leftover_service_is_replaced_with_the_pod(
    provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl
) -> None:
    await create(provisioner, user_id="u", thread_id="t", labels={"of": "u"})
    old = cluster.get(*SERVICE)
    await kubectl("delete", "pod/sandbox-a", "-n", NS, "--grace-period=0", "--force")
    cluster.authorization.restrict(NS, rules())
    await create(provisioner, user_id="v", thread_id="t", labels={"of": "v"})
    new = cluster.get(*SERVICE)
    assert old is not None
    assert new is not None
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert new["metadata"]["labels"]["of"] == "v"


@pytest.mark.slow
@pytest.mark.usefixtures("role")
@pytest.mark.deadlines(others_service=0.3)
async def test_an_incomplete_sandbox_of_a_killed_process_is_503_until_it_is_reaped(
    start_provisioner: StartProvisioner,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process that created the Pod is killed before it creates the Service."""
    port = free_port()
    home = tmp_path / "killed"
    home.mkdir()
    environ = environment(home, KUBECONFIG_PATH=str(cluster.kubeconfig), PORT=str(port), REAPER_INTERVAL="0")
    provisioner = await start_provisioner()
    cluster.faults.answer(503, verb="create", resource="services")
    async with (
        running(*PROVISIONER, environ=environ, log=tmp_path / "log") as process,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
    ):

        async def is_up() -> bool:
            try:
                return (await session.get("/health")).status == 200
            except aiohttp.ClientError:
                return False

        await until(is_up)
        lost = asyncio.create_task(session.post(URL, json={"sandbox_id": "a"}))
        await until(lambda: cluster.get(*POD) is not None)
        process.send_signal(signal.SIGKILL)
        await asyncio.wait({lost})
        assert lost.exception() is not None
    # Its kubectl outlives it, and would create the Service after the fault.
    await until(lambda: not processes_with(str(home)))
    cluster.faults.clear()
    incomplete = uid_of(cluster)
    response = await provisioner.post(URL, json={"sandbox_id": "a"})
    assert (response.status, await response.json()) == (503, CREATE_IN_PROGRESS)
    assert int(response.headers["Retry-After"]) > 0
    assert uid_of(cluster) == incomplete
    assert (await post(provisioner, sandbox_id="a", user_id="v", thread_id="t"))[0] == 409
    assert await reaper_of(provisioner).round(dry_run=False) == []
    with monkeypatch.context() as later:
        pass_time(later, hours=1)
        assert len(await reaper_of(provisioner).round(dry_run=False)) == 1
    await create(provisioner)
    assert uid_of(cluster) not in {None, incomplete}
    assert cluster.get(*SERVICE) is not None


@pytest.mark.slow
@pytest.mark.usefixtures("role")
@pytest.mark.deadlines(undo=0.3, settle_pause=0.1)
async def test_a_failed_create_that_was_applied_is_kept(start_provisioner: StartProvisioner, cluster: Cluster) -> None:
    maker, other = [await start_provisioner() for _ in range(2)]
    await create(maker, "b")
    await until(lambda: maker.view.is_fresh and other.view.is_fresh)
    maker.set_deadlines(create=5.0)
    cluster.faults.hang(verb="get", resource="pods")
    cluster.faults.cut(0, verb="create", resource="services")
    status, _ = await post(maker, sandbox_id="a")
    assert status in {503, 504}
    await until(lambda: None not in other.view.sandbox("a"))
    made = uid_of(cluster)
    await create(other)
    cluster.faults.clear()
    await until(lambda: not maker.client.app[SANDBOX_SERVICE].is_settling)
    assert uid_of(cluster) == made
    assert (await maker.get(f"{URL}/a")).status == 200


@pytest.mark.usefixtures("role")
async def test_renewals_and_idle_timeouts_are_502_with_the_missing_right(
    provisioner: Provisioner, cluster: Cluster
) -> None:
    need = "which renewing, touching and adopting a sandbox need"
    await create(provisioner, ttl_seconds=3600)
    assert await post(provisioner, "/a/renew", ttl_seconds=7200) == (502, {"detail": f"{LACKS}, {need}"})
    ending = {"detail": f"{LACKS}, so none can end idle"}
    assert await post(provisioner, sandbox_id="b", idle_timeout_seconds=60) == (502, ending)
    assert cluster.get("Pod", NS, "sandbox-b") is None


async def test_adopting_a_pod_is_502(provisioner: Provisioner, cluster: Cluster, kubectl: Kubectl) -> None:
    await create(provisioner)
    marks = [f"{name}-" for name in annotations_of(cluster)]
    assert (await kubectl("annotate", "pod/sandbox-a", "-n", NS, *marks)).rc == 0

    async def view_has_no_owner() -> bool:
        pod = provisioner.view.sandbox("a")[0]
        return pod is not None and not pod["metadata"].get("annotations")

    await until(view_has_no_owner)
    cluster.authorization.restrict(NS, rules())
    need = "which adopting a sandbox needs"
    for _ in range(2):
        status, body = await post(provisioner, sandbox_id="a")
        assert (status, body["detail"].endswith(need)) == (502, True), body
    assert annotations_of(cluster) == {}
    assert cluster.get(*SERVICE) is not None


@pytest.mark.slow
@pytest.mark.usefixtures("role")
async def test_a_touch_that_cannot_be_written_is_502(provisioner: Provisioner, cluster: Cluster) -> None:
    grant_patch(cluster)
    await create(provisioner, idle_timeout_seconds=5)
    cluster.authorization.restrict(NS, rules())
    status, body = await post(provisioner, "/a/touch")
    assert (status, body["detail"].startswith(LACKS)) == (502, True)
    await create(provisioner)


@pytest.mark.usefixtures("role")
@pytest.mark.deadlines(patch_forbidden=0.0)
async def test_apply_is_used_again_once_patch_is_granted(provisioner: Provisioner, cluster: Cluster) -> None:
    await create(provisioner)
    assert used(cluster) == BOTH_CREATED
    grant_patch(cluster)
    await create(provisioner, "b", idle_timeout_seconds=60)
    assert Right("patch", "", "pods") in used(cluster)
    await create(provisioner, ttl_seconds=7200)
    assert (await post(provisioner, "/a/renew", ttl_seconds=100))[0] == 200


@pytest.mark.usefixtures("role")
@pytest.mark.parametrize("may", ["pods", pytest.param("services", marks=pytest.mark.slow)])
async def test_patch_on_pods_or_services_alone_suffices_for_a_create(
    provisioner: Provisioner, cluster: Cluster, may: str
) -> None:
    cluster.authorization.restrict(NS, rules(**{may: (*BASIC, "patch")}))
    await create(provisioner)
    await create(provisioner)
    assert cluster.get(*POD) is not None
    assert cluster.get(*SERVICE) is not None
