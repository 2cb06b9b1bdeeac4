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


def put_on(name: str, method: str = "PATCH") -> Callable[[Stage], Awaitable[None]]:
    """Return what lets the next request for a Pod be refused as in the recorded case `name`."""

    async def refuse(stage: Stage) -> None:
        await stage.namespace("rec2-new")
        refuse_next(stage.cluster, method, "pods", name)

    return refuse


REFUSED_BY_POLICY = (
    *("apply-limit-range", "apply-priority-class-missing", "apply-quota-must-specify"),
    *("apply-pod-security-baseline-hostpath", "apply-pod-security-baseline-privileged"),
    *("apply-pod-security-baseline-unconfined", "apply-pod-security-baseline-unconfined-container"),
)
PUT_ON: dict[str, Callable[[Stage], Awaitable[None]]] = {
    "apply-quota-exceeded": quota_used_up,
    "apply-pod-security-violation": pod_security_refuses,
    "apply-pod-security-warning": pod_security_warns,
    "apply-forbidden": no_right_to_patch,
    "get-forbidden": no_right_to_list_services,
    "get-half-forbidden": no_right_to_list_services_but_pods,
    "watch-forbidden": no_right_to_list_services,
    **{name: put_on(name) for name in REFUSED_BY_POLICY},
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
PARSED = "test_stderr_record.py::test_a_recorded_failure_becomes_its_error"
ONLY_PARSED = (
    "api-gone-get",
    "apply-annotation-only-list-both-stale",
    "apply-annotation-only-list-first-stale",
    "apply-annotation-only-list-one-gone",
    "apply-annotation-only-list-one-stale",
    "apply-annotation-only-list-stale-and-gone",
    "apply-annotation-only-stale-uid",
    "apply-annotation-only-stale-version",
    "apply-annotation-only-terminating",
    "apply-exported-again",
    "apply-exported-list",
    "apply-exported-managed-fields",
    "apply-nodeport-headless",
    "apply-nodeport-on-cluster-ip",
    "apply-nodeport-on-headless-cluster-ip",
    "apply-nodeport-out-of-range",
    "apply-service-port-name-twice",
    "apply-wrong-type-map",
    "apply-wrong-type-string",
    "can-i-list-json",
    "context-apply-unknown",
    "context-current-unset",
    "context-unknown-of-two",
    "context-view-unknown",
    "create-env-twice",
    "create-list-exists-first",
    "create-one-exists",
    "create-quota-must-specify",
    "create-service-port-twice",
    "create-wrong-type-env-number",
    "delete-force-again",
    "delete-force-node-lost-after",
    "delete-force-other-uid",
    "delete-force-successor",
    "kubeconfig-context-without-cluster",
    "kubeconfig-context-without-user-entry-anonymous",
    "kubeconfig-context-without-user-entry-apply",
    "kubeconfig-context-without-user-entry",
    "kubeconfig-empty-file",
    "kubeconfig-impersonate-forbidden-name",
    "kubeconfig-no-current-context",
    "kubeconfig-proxy-refused",
    "kubeconfig-server-empty",
    "kubeconfig-server-http-to-https",
    "kubeconfig-server-no-scheme-no-ca",
    "kubeconfig-server-no-scheme",
    "kubeconfig-server-with-path",
    "kubeconfig-token-file-empty",
    "kubeconfig-token-line-feed-inside",
    "kubeconfig-user-twice-apply",
    "kuberc-apply-dry-run-after",
    "kuberc-delete-interactive-flag-raw",
    "kuberc-delete-raw",
    "kuberc-garbage",
    "kuberc-unknown-version",
    "logs-node-lost-early",
    "logs-node-lost",
    "plugin-answers-other-version",
    "plugin-bad-token",
    "plugin-fails-apply",
    "plugin-fails-silently",
    "plugin-interactive-always",
    "plugin-missing-path",
    "plugin-missing",
    "plugin-no-status",
    "plugin-not-executable",
    "plugin-notice-apply-invalid",
    "plugin-notice-apply",
    "plugin-notice-get-missing-ignored",
    "plugin-notice-get-missing",
    "plugin-notice-unauthorized",
    "plugin-notice-watch-none",
    "plugin-sleeps-kubectl-killed",
    "plugin-sleeps-request-timeout",
    "plugin-sleeps-silently",
    "plugin-sleeps",
    "port-forward-api-killed-open-connection",
    "port-forward-api-killed",
    "port-forward-container-restarted",
    "port-forward-crashed-container",
    "port-forward-create-and-get",
    "port-forward-create-only",
    "port-forward-forbidden",
    "port-forward-get-only",
    "port-forward-kubelet-gone",
    "port-forward-missing",
    "port-forward-no-get-pods",
    "port-forward-nothing-listens",
    "port-forward-pending-running-timeout",
    "port-forward-pending",
    "port-forward-pod-deleted-grace",
    "port-forward-pod-deleted-idle",
    "port-forward-pod-deleted-open-connection",
    "port-forward-pod-deleted",
    "port-forward-port-taken",
    "port-forward-refused",
    "port-forward-running-timeout",
    "port-forward-succeeded",
    "port-forward-terminating",
    "port-forward",
    "wait-delete-node-lost",
)
"""Cases of kubectl's own, of credential plugins, of a tunnel, or of a state that devcluster does not have."""
ELSEWHERE = {
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
    "unknown-host": f"asks the machine's DNS: {PARSED}",
    **dict.fromkeys(ONLY_PARSED, f"another state of the cluster than devcluster has: {PARSED}"),
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
