"""Recorded failures of policies, rights, networks and kubeconfigs, which tests inject as recorded."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.tests.normalize import normalize, parsed_stdout
from devcluster.tests.not_replayed import ELSEWHERE
from devcluster.tests.pod_states import POD_STATES, PREPARED
from devcluster.tests.replay import (
    CASES,
    SPECIAL_CASES,
    UNAUTHORIZED,
    Replay,
    namespace_rec,
    replay_cluster,
    sandboxes_b_c,
)
from devcluster.tests.test_raw import RAW
from tests.contract.faults import refuse_next
from tests.kubectl import Kubectl
from tests.record import case, case_names


async def quota_exceeded(replay: Replay) -> None:
    refuse_next(replay.cluster, "PATCH", "pods", "apply-quota-exceeded")


async def pod_security_refuses(replay: Replay) -> None:
    refuse_next(replay.cluster, "PATCH", "pods", "apply-pod-security-violation")


async def pod_security_warns(replay: Replay) -> None:
    text = case("apply-pod-security-warning").stderr.removeprefix("Warning: ").rstrip("\n")
    replay.cluster.faults.warn(text, verb="patch", resource="pods", times=1)


async def forbid_patch(replay: Replay) -> None:
    for line, resource in enumerate(("pods", "services")):
        refuse_next(replay.cluster, "PATCH", resource, "apply-forbidden", line=line)


async def forbid_list_services(replay: Replay) -> None:
    refuse_next(replay.cluster, "list", "services", "get-forbidden")


async def forbid_list_services_beside_pods(replay: Replay) -> None:
    await sandboxes_b_c(replay)
    warned = await replay.kubectl.apply(case("apply-pod-security-warning").stdin["items"][0])
    assert warned.rc == 0, warned.stderr
    await forbid_list_services(replay)


def inject(name: str, method: str = "PATCH") -> Callable[[Replay], Awaitable[None]]:
    """Return a function that lets the next request for a Pod fail as in the recorded case `name`."""

    async def refuse(replay: Replay) -> None:
        await replay.make_namespace("rec2-new")
        refuse_next(replay.cluster, method, "pods", name)

    return refuse


REJECTED_BY_POLICY = (
    *("apply-limit-range", "apply-priority-class-missing", "apply-quota-must-specify"),
    *("apply-pod-security-baseline-hostpath", "apply-pod-security-baseline-privileged"),
    *("apply-pod-security-baseline-unconfined", "apply-pod-security-baseline-unconfined-container"),
)
INJECTED: dict[str, Callable[[Replay], Awaitable[None]]] = {
    "apply-quota-exceeded": quota_exceeded,
    "apply-pod-security-violation": pod_security_refuses,
    "apply-pod-security-warning": pod_security_warns,
    "apply-forbidden": forbid_patch,
    "get-forbidden": forbid_list_services,
    "get-half-forbidden": forbid_list_services_beside_pods,
    "watch-forbidden": forbid_list_services,
    **{name: inject(name) for name in REJECTED_BY_POLICY},
}


@pytest.mark.parametrize("name", INJECTED)
async def test_an_injected_rejection_has_the_recorded_result(name: str, tmp_path: Path) -> None:
    recorded = case(name)
    async with replay_cluster(tmp_path) as replay:
        await namespace_rec(replay)
        await INJECTED[name](replay)
        result = await replay.run(recorded)
    assert normalize(result.stderr) == normalize(recorded.stderr)
    assert result.rc == recorded.returncode
    assert normalize(parsed_stdout(result)) == normalize(recorded.stdout)


# Network and TLS.

TLS_MISMATCHES = ("server-plain-http", "unknown-authority")
UNUSED_PORT = "54765"


async def trust_another_ca(replay: Replay, tmp_path: Path) -> None:
    """Put the certificate authority of another cluster into the kubeconfig."""
    async with Cluster(directory=tmp_path / "other") as other:
        other_ca = re.search(r"certificate-authority-data: .*", other.kubeconfig.read_text(encoding="utf-8"))
    assert other_ca is not None
    path = replay.cluster.kubeconfig
    text = re.sub(r"certificate-authority-data: .*", other_ca[0], path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", TLS_MISMATCHES)
async def test_a_recorded_tls_mismatch_has_the_recorded_result(name: str, tmp_path: Path) -> None:
    recorded = case(name)
    async with replay_cluster(tmp_path) as replay:
        await namespace_rec(replay)
        assert (await replay.kubectl("get", "pods")).rc == 0  # the record was made with discovery in the cache
        if name == "unknown-authority":
            await trust_another_ca(replay, tmp_path)
        result = await replay.run(recorded)
    assert (result.rc, result.stderr, parsed_stdout(result)) == (recorded.returncode, recorded.stderr, recorded.stdout)


async def test_kubectl_gives_up_on_a_hanging_server_after_the_recorded_retries(tmp_path: Path) -> None:
    recorded = case("server-hangs")
    async with replay_cluster(tmp_path) as replay:
        replay.cluster.faults.hang()
        replay.names[UNUSED_PORT] = replay.cluster.url.rpartition(":")[2]
        result = await replay.run(recorded)
    assert result.rc == recorded.returncode
    assert parsed_stdout(result) == recorded.stdout
    # kubectl words its own deadline differently from try to try, also within the record.
    tries, last = result.stderr.splitlines()[:-1], result.stderr.splitlines()[-1]
    assert len(tries) == len(recorded.stderr.splitlines()) - 1
    assert all("Couldn't get current server API group list" in line for line in tries)
    assert last.startswith("Unable to connect to the server: ")


async def test_without_a_request_timeout_kubectl_waits_for_a_hanging_server(tmp_path: Path) -> None:
    recorded = case("server-hangs-no-request-timeout")
    async with replay_cluster(tmp_path) as replay:
        replay.cluster.faults.hang()
        argv = [arg.replace(UNUSED_PORT, replay.cluster.url.rpartition(":")[2]) for arg in recorded.argv[1:]]
        process = await replay.kubectl.start(*argv)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await process.wait()
        process.kill()
        stdout, stderr = await process.communicate()
    assert (stdout.decode(), stderr.decode()) == (recorded.stdout, recorded.stderr) == ("", "")


# Unusable kubeconfigs.

UNUSABLE = ("kubeconfig-flag-missing", "kubeconfig-garbage", "kubeconfig-is-directory", "kubeconfig-no-user")


def kubeconfig(name: str, cluster: Cluster, tmp_path: Path) -> Path:
    """Make the kubeconfig of the recorded case, and return its path."""
    path = tmp_path / "path" / "to"
    path.mkdir(parents=True)
    if name == "kubeconfig-is-directory":
        return path
    path /= "garbage" if name == "kubeconfig-garbage" else "config"
    if name == "kubeconfig-garbage":
        path.write_text("{", encoding="utf-8")
    elif name == "kubeconfig-no-user":
        shutil.copy(cluster.kubeconfig, path)
        text = path.read_text(encoding="utf-8")
        path.write_text(text[: text.index("users:")] + text[text.index("contexts:") :].replace("user: devcluster", ""))
    return path


@pytest.mark.parametrize("name", UNUSABLE)
async def test_kubectl_rejects_a_recorded_unusable_kubeconfig_without_a_request(
    name: str, cluster: Cluster, tmp_path: Path
) -> None:
    recorded = case(name)
    kubectl = Kubectl(kubeconfig(name, cluster, tmp_path), tmp_path / "home")
    result = await Replay(cluster, kubectl).run(recorded)
    assert result.stderr.replace(str(tmp_path), "") == recorded.stderr
    assert (result.rc, parsed_stdout(result)) == (recorded.returncode, recorded.stdout)
    assert cluster.kmock.requests == []


# Completeness.

REPLAYED_BY_NAME = (
    *("pod-left-without-service", "server-hangs", "server-hangs-no-request-timeout"),
    *("pod-nested-mount-read-only", "pod-nested-mount-read-only-never", "events-nested-mount-read-only"),
)
"""Cases that have a test of their own, which calls `case(name)`."""


def test_every_recorded_call_is_replayed_or_excluded_with_a_reason() -> None:
    replayed = {name for names in CASES.values() for name in names} | {special.case for special in SPECIAL_CASES}
    replayed |= {*UNAUTHORIZED, *POD_STATES, *PREPARED, *INJECTED, *TLS_MISMATCHES, *UNUSABLE, *REPLAYED_BY_NAME, *RAW}
    assert replayed.isdisjoint(ELSEWHERE)
    assert replayed | ELSEWHERE.keys() == set(case_names())
    here = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert all(f'case("{name}")' in here for name in REPLAYED_BY_NAME)


@pytest.mark.parametrize("where", ELSEWHERE.values())
def test_each_excluded_call_names_an_existing_test(where: str) -> None:
    file, _, test = where.rpartition(": ")[2].partition("::")
    found = [
        path for folder in ("tests", "devcluster/tests") for path in (Path(__file__).parents[2] / folder).rglob(file)
    ]
    assert any(f"def {test}(" in path.read_text(encoding="utf-8") for path in found)
