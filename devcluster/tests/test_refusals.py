"""What policies, rights, networks and kubeconfigs say: put on by a test as it was recorded, never worked out."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from devcluster import Cluster
from devcluster.tests.levels import level, printed
from devcluster.tests.pod_states import ARRANGED, SEEN
from devcluster.tests.stages import CASES, SPECIALS, UNAUTHORIZED, Stage, rec, sandboxes_b_c, staged
from devcluster.tests.test_raw import RAW
from tests.contract.faults import refuse_next
from tests.kubectl import Kubectl
from tests.record import case, case_names


async def quota_used_up(stage: Stage) -> None:
    refuse_next(stage.cluster, "PATCH", "pods", "apply-quota-exceeded")


async def pod_security_refuses(stage: Stage) -> None:
    refuse_next(stage.cluster, "PATCH", "pods", "apply-pod-security-violation")


async def pod_security_warns(stage: Stage) -> None:
    text = case("apply-pod-security-warning").stderr.removeprefix("Warning: ").rstrip("\n")
    stage.cluster.faults.warn(text, verb="patch", resource="pods", times=1)


async def no_right_to_patch(stage: Stage) -> None:
    for line, resource in enumerate(("pods", "services")):
        refuse_next(stage.cluster, "PATCH", resource, "apply-forbidden", line=line)


async def no_right_to_list_services(stage: Stage) -> None:
    refuse_next(stage.cluster, "list", "services", "get-forbidden")


async def no_right_to_list_services_but_pods(stage: Stage) -> None:
    await sandboxes_b_c(stage)
    warned = await stage.kubectl.apply(case("apply-pod-security-warning").stdin["items"][0])
    assert warned.rc == 0, warned.stderr
    await no_right_to_list_services(stage)


PUT_ON: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "apply-quota-exceeded": quota_used_up,
    "apply-pod-security-violation": pod_security_refuses,
    "apply-pod-security-warning": pod_security_warns,
    "apply-forbidden": no_right_to_patch,
    "get-forbidden": no_right_to_list_services,
    "get-half-forbidden": no_right_to_list_services_but_pods,
    "watch-forbidden": no_right_to_list_services,
}


@pytest.mark.parametrize("name", PUT_ON)
async def test_a_recorded_refusal_that_is_put_on_is_what_kubectl_says(name: str, tmp_path: Path) -> None:
    recorded = case(name)
    async with staged(tmp_path) as stage:
        await rec(stage)
        await PUT_ON[name](stage)
        result = await stage.play(recorded)
    assert level(result.stderr) == level(recorded.stderr)
    assert result.rc == recorded.returncode
    assert level(printed(result)) == level(recorded.stdout)


# The network, and the server as a whole.

MISUNDERSTANDINGS = ("server-plain-http", "unknown-authority")
PORT_OF_NOBODY = "54765"


async def distrust(stage: Stage, tmp_path: Path) -> None:
    """Leave kubectl with the certificate authority of another cluster."""
    async with Cluster(directory=tmp_path / "other") as other:
        theirs = re.search(r"certificate-authority-data: .*", other.kubeconfig.read_text(encoding="utf-8"))
    assert theirs is not None
    path = stage.cluster.kubeconfig
    text = re.sub(r"certificate-authority-data: .*", theirs[0], path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", MISUNDERSTANDINGS)
async def test_a_recorded_misunderstanding_with_the_server_happens_again(name: str, tmp_path: Path) -> None:
    recorded = case(name)
    async with staged(tmp_path) as stage:
        await rec(stage)
        assert (await stage.kubectl("get", "pods")).rc == 0  # the record was made with discovery in the cache
        if name == "unknown-authority":
            await distrust(stage, tmp_path)
        result = await stage.play(recorded)
    assert (result.rc, result.stderr, printed(result)) == (recorded.returncode, recorded.stderr, recorded.stdout)


async def test_a_server_that_hangs_is_given_up_after_as_many_tries_as_recorded(tmp_path: Path) -> None:
    recorded = case("server-hangs")
    async with staged(tmp_path) as stage:
        stage.cluster.faults.hang()
        stage.names[PORT_OF_NOBODY] = stage.cluster.url.rpartition(":")[2]
        result = await stage.play(recorded)
    assert result.rc == recorded.returncode
    assert printed(result) == recorded.stdout
    # How kubectl's own deadline is put differs from try to try, also within the record.
    tries, last = result.stderr.splitlines()[:-1], result.stderr.splitlines()[-1]
    assert len(tries) == len(recorded.stderr.splitlines()) - 1
    assert all("Couldn't get current server API group list" in line for line in tries)
    assert last.startswith("Unable to connect to the server: ")


async def test_a_server_that_hangs_is_waited_for_for_ever_without_a_request_timeout(tmp_path: Path) -> None:
    recorded = case("server-hangs-no-request-timeout")
    async with staged(tmp_path) as stage:
        stage.cluster.faults.hang()
        argv = [arg.replace(PORT_OF_NOBODY, stage.cluster.url.rpartition(":")[2]) for arg in recorded.argv[1:]]
        process = await stage.kubectl.start(*argv)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await process.wait()
        process.kill()
        stdout, stderr = await process.communicate()
    assert (stdout.decode(), stderr.decode()) == (recorded.stdout, recorded.stderr) == ("", "")


# kubeconfigs that are none.

UNUSABLE = ("kubeconfig-flag-missing", "kubeconfig-garbage", "kubeconfig-is-directory", "kubeconfig-no-user")


def kubeconfig(name: str, cluster: Cluster, tmp_path: Path) -> Path:
    """Return the path of what the recorded case had for a kubeconfig."""
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
async def test_a_recorded_kubeconfig_that_is_none_is_refused_by_kubectl_itself(
    name: str, cluster: Cluster, tmp_path: Path
) -> None:
    recorded = case(name)
    kubectl = Kubectl(kubeconfig(name, cluster, tmp_path), tmp_path / "home")
    result = await Stage(cluster, kubectl).play(recorded)
    assert result.stderr.replace(str(tmp_path), "") == recorded.stderr
    assert (result.rc, printed(result)) == (recorded.returncode, recorded.stdout)
    assert cluster.kmock.requests == []


# Nothing is left out.

KUBECTLS_OWN = (
    "no server is asked: test_withheld.py::test_a_recorded_fault_of_a_kubeconfig_is_told_without_kubectls_words"
)
A_PLUGINS = "no server is asked: test_withheld.py::test_what_is_not_about_the_kubeconfig_is_repeated"
BY_RIGHTS = "with the rights of a Role: test_without_patch.py"
# devcluster loses no node. That a force delete removes the Pod at once is tested in test_pods.py.
FORCE = "test_force.py::test_a_lost_sandbox_is_deleted_by_force"
ELSEWHERE = {
    "apply-annotation-only-stale-version": "test_full_quota.py::test_what_was_changed_meanwhile_is_not_marked",
    "delete-force-again": "test_force.py::test_a_lost_pod_that_is_gone_meanwhile_counts_as_deleted",
    "delete-force-node-lost": "test_force.py::test_the_force_delete_has_the_uid_and_no_grace_period",
    "delete-force-other-uid": "test_force.py::test_a_successor_of_the_lost_pod_is_not_deleted",
    "delete-force-successor": "test_force.py::test_a_successor_of_the_lost_pod_is_not_deleted",
    "pod-node-lost": FORCE,
    "pod-node-lost-terminating": FORCE,
    "apply-forbidden-no-create": f"{BY_RIGHTS}::test_a_create_that_fails_half_way_leaves_nothing",
    "apply-forbidden-no-patch": f"{BY_RIGHTS}::test_a_sandbox_is_made_read_listed_and_deleted",
    "create-without-patch": f"{BY_RIGHTS}::test_a_sandbox_is_made_read_listed_and_deleted",
    "kubeconfig-missing": "kubectl then asks port 8080 of this machine, which is not ours to keep free: "
    "test_process.py::test_a_missing_kubeconfig_stops_the_start_in_one_sentence_with_its_path",
    "kubeconfig-auth-provider-gcp": KUBECTLS_OWN,
    "kubeconfig-auth-provider-oidc-no-token": KUBECTLS_OWN,
    "kubeconfig-basic-and-token": KUBECTLS_OWN,
    "kubeconfig-ca-and-insecure": KUBECTLS_OWN,
    "kubeconfig-ca-missing": KUBECTLS_OWN,
    "kubeconfig-ca-no-pem": KUBECTLS_OWN,
    "kubeconfig-client-certificate-missing": KUBECTLS_OWN,
    "kubeconfig-client-certificate-no-base64": KUBECTLS_OWN,
    "kubeconfig-client-certificate-no-key": KUBECTLS_OWN,
    "kubeconfig-client-certificate-no-pem": KUBECTLS_OWN,
    "kubeconfig-context-without-user-entry-apply-two-lines": KUBECTLS_OWN,
    "kubeconfig-current-context-missing": KUBECTLS_OWN,
    "kubeconfig-proxy-no-scheme": KUBECTLS_OWN,
    "kubeconfig-proxy-no-scheme-name": KUBECTLS_OWN,
    "kubeconfig-proxy-scheme-unknown": KUBECTLS_OWN,
    "kubeconfig-server-garbage": KUBECTLS_OWN,
    "kubeconfig-token-file-missing": KUBECTLS_OWN,
    "kubeconfig-token-line-feed": KUBECTLS_OWN,
    "kubeconfig-user-twice": KUBECTLS_OWN,
    "kubeconfig-user-twice-other-order": KUBECTLS_OWN,
    "plugin-no-interactive-mode": KUBECTLS_OWN,
    "plugin-v1alpha1": KUBECTLS_OWN,
    "plugin-fails": A_PLUGINS,
    "plugin-missing-hint": A_PLUGINS,
    "plugin-not-json": "no server is asked: "
    "test_withheld.py::test_of_a_plugin_that_prints_no_credentials_kubectls_reading_is_not_repeated",
    "unknown-host": "asks the machine's DNS: test_stderr.py::test_a_recorded_failure_is_understood",
}
ALONE = (
    *("pod-left-without-service", "server-hangs", "server-hangs-no-request-timeout"),
    *("pod-nested-mount-read-only", "pod-nested-mount-read-only-never", "events-nested-mount-read-only"),
)
"""Cases that a test of their own replays, by `case(name)`."""


def test_every_recorded_call_is_replayed_or_named_here() -> None:
    replayed = {name for names in CASES.values() for name in names} | {special.case for special in SPECIALS}
    replayed |= {*UNAUTHORIZED, *SEEN, *ARRANGED, *PUT_ON, *MISUNDERSTANDINGS, *UNUSABLE, *ALONE, *RAW}
    assert replayed.isdisjoint(ELSEWHERE)
    assert replayed | ELSEWHERE.keys() == set(case_names())
    here = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    assert all(f'case("{name}")' in here for name in ALONE)


@pytest.mark.parametrize("where", ELSEWHERE.values())
def test_what_is_replayed_elsewhere_is_tested_there(where: str) -> None:
    file, _, test = where.rpartition(": ")[2].partition("::")
    found = [
        path for folder in ("tests", "devcluster/tests") for path in (Path(__file__).parents[2] / folder).rglob(file)
    ]
    assert any(f"def {test}(" in path.read_text(encoding="utf-8") for path in found)
