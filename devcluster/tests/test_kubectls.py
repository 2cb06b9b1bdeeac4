"""The kubectl calls of the service, with the newest kubectl and with one older than 1.30."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from tests.contract import kubectls
from tests.kubectl import Kubectl, pod, service
from tests.waiting import until

PARKED: dict[str, Any] = {"nodeSelector": {"park": "here"}}


@pytest.fixture(scope="session")
def binaries() -> dict[str, Path]:
    return {"newest": kubectls.new_kubectl(), "old": kubectls.old_kubectl()}


@pytest.fixture(params=["newest", "old"])
def kubectl(request: pytest.FixtureRequest, binaries: dict[str, Path], cluster: Cluster, tmp_path: Path) -> Kubectl:
    return Kubectl(cluster.kubeconfig, tmp_path / "home", binaries[request.param])


def listed(*objects: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


async def test_the_kubectls_are_one_older_than_1_30_and_a_newer_one(binaries: dict[str, Path], tmp_path: Path) -> None:
    minors = {}
    for name, binary in binaries.items():
        shown = await Kubectl(tmp_path / "none", tmp_path / "home", binary)("version", "--client", "-o", "json")
        minors[name] = int(shown.json["clientVersion"]["minor"])
    assert minors["old"] < 30 <= minors["newest"]


async def test_apply_get_and_delete_by_stdin(cluster: Cluster, kubectl: Kubectl) -> None:
    applied = await kubectl.apply(pod(), service())
    assert applied.rc == 0, applied.stderr
    assert [item["kind"] for item in applied.json["items"]] == ["Pod", "Service"]
    assert applied.json["items"][1]["spec"]["ports"][0]["nodePort"]
    got = await kubectl("get", "--ignore-not-found", "-o", "json", "-f", "-", stdin=listed(pod(), service()))
    assert [item["metadata"]["name"] for item in got.json["items"]] == ["x", "x-svc"]
    deleted = await kubectl(
        *("delete", "--wait=false", "--ignore-not-found", "-o", "name", "-f", "-"), stdin=listed(pod(), service())
    )
    assert (deleted.rc, deleted.stdout) == (0, "pod/x\nservice/x-svc\n")
    await until(lambda: not cluster.objects("Pod"))
    assert cluster.objects("Service") == []


async def test_a_missing_pod_is_not_found_unless_ignored(kubectl: Kubectl) -> None:
    missing = await kubectl("get", "pod/nobody", "-o", "json")
    assert (missing.rc, missing.stderr) == (1, 'Error from server (NotFound): pods "nobody" not found\n')
    ignored = await kubectl("get", "pod/nobody", "--ignore-not-found", "-o", "json")
    assert (ignored.rc, ignored.stdout) == (0, "")
    gone = await kubectl("delete", "--ignore-not-found", "-o", "name", "-f", "-", stdin=listed(pod()))
    assert (gone.rc, gone.stdout) == (0, "")


async def test_a_strict_dry_run_rejects_an_unknown_field(cluster: Cluster, kubectl: Kubectl) -> None:
    dry = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "json", "-f", "-")
    good = await kubectl(*dry, stdin=listed(pod(), service()))
    assert good.rc == 0, good.stderr
    bad = await kubectl(*dry, stdin=listed(pod(imagePulPolicy="Always")))
    assert bad.rc == 1
    assert "imagePulPolicy" in bad.stderr
    assert cluster.objects("Pod") == []


async def test_a_delete_obeys_its_preconditions(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(**PARKED))
    path = "/api/v1/namespaces/default/pods/x"
    known = (await kubectl("get", "pod/x", "-o", "json")).json["metadata"]
    renewed = await kubectl("annotate", "pod/x", "a/b=c")
    assert renewed.rc == 0, renewed.stderr
    head = {"apiVersion": "v1", "kind": "DeleteOptions"}
    stale = {**head, "preconditions": {"uid": known["uid"], "resourceVersion": known["resourceVersion"]}}
    refused = await kubectl("delete", "--raw", path, "-f", "-", stdin=stale)
    assert refused.rc == 1
    assert "(Conflict)" in refused.stderr
    right = {**head, "preconditions": {"uid": known["uid"]}}
    deleted = await kubectl("delete", "--raw", path, "-f", "-", stdin=right)
    assert deleted.rc == 0, deleted.stderr
    assert cluster.get("Pod", "default", "x") is None


async def test_one_list_by_selector_returns_two_kinds(kubectl: Kubectl) -> None:
    await kubectl.apply(pod("a", **PARKED), service("a"), pod("b", **PARKED))
    found = await kubectl("get", "pods,services", "-l", "sandbox-id in (a)", "-o", "json")
    assert [item["metadata"]["name"] for item in found.json["items"]] == ["a", "a-svc"]


async def test_a_watch_prints_events_and_ends_cleanly(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod("a", **PARKED))
    watch = await kubectl.start("get", "pods", "--watch", "--output-watch-events", "-o", "json", "--chunk-size=0")
    assert watch.stdout is not None
    first = json.loads(await watch.stdout.readline())
    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
    await kubectl.apply(pod("b", **PARKED))
    while (event := json.loads(await watch.stdout.readline()))["object"]["metadata"]["name"] != "b":
        assert event["type"] == "MODIFIED"
    assert event["type"] == "ADDED"
    cluster.end_watches()
    async with asyncio.timeout(60):
        _, stderr = await watch.communicate()
    assert (watch.returncode, stderr) == (0, b"")


async def test_wait_logs_and_events_of_a_pod(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(), service())
    ready = await kubectl("wait", "--for=condition=Ready", "pod/x", "--timeout=10s")
    assert ready.rc == 0, ready.stderr
    cluster.set_log("default", "x", "one\ntwo\n")
    assert (await kubectl("logs", "x", "--tail=1")).stdout == "two\n"
    events = await kubectl("get", "events", "--field-selector", "involvedObject.name=x", "-o", "json")
    assert [event["reason"] for event in events.json["items"]] == ["Scheduled", "Pulled", "Created", "Started"]
    assert (await kubectl("delete", "pod/x", "--timeout=10s")).rc == 0
    gone = await kubectl("wait", "--for=delete", "pod/x", "--timeout=10s")
    assert gone.rc == 0, gone.stderr


async def test_kubectl_retries_a_503_and_reports_a_refused_connection(cluster: Cluster, kubectl: Kubectl) -> None:
    cluster.faults.answer(503, retry_after=1, verb="list", resource="pods", times=1)
    assert (await kubectl("get", "pods", "-o", "json")).rc == 0
    cluster.faults.refuse()
    refused = await kubectl("get", "pods", "-o", "json")
    assert refused.rc == 1
    assert "was refused" in refused.stderr
