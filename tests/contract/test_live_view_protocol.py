"""The live view's own list and watch: what they cost, after bad input, and with each kind of server and kubectl."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from devcluster import Cluster
from sandboxes.api.app_keys import SANDBOX_SERVICE
from sandboxes.objects import sandbox_id_of
from sandboxes.spec.templates import Template
from tests.contract import kubectls
from tests.contract.service import URL, Provisioner, StartProvisioner, create
from tests.contract.views import (
    QUICK_VIEW,
    TamperedKubectl,
    create_manually,
    delete_manually,
    ids,
    until_fresh,
)
from tests.kubectl import Kubectl
from tests.waiting import until

pytestmark = QUICK_VIEW

STATUS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "no"}
BAD_LINES = {
    "no JSON": "no JSON at all",
    "no object": json.dumps({"type": "ADDED"}),
    "an ERROR other than 410": json.dumps(
        {"type": "ERROR", "object": STATUS | {"code": 500, "reason": "InternalError"}}
    ),
}


def shown(provisioner: Provisioner) -> set[str | None]:
    """Return the ids in the live view, fresh or not."""
    return {sandbox_id_of(pod) for pod, _ in provisioner.view.sandboxes()}


@pytest.mark.slow
@pytest.mark.parametrize("line", BAD_LINES)
async def test_a_bad_line_costs_one_warning_and_one_list_and_loses_nothing(
    start_provisioner: StartProvisioner,
    tampered: TamperedKubectl,
    kubectl: Kubectl,
    template: Template,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    line: str,
) -> None:
    provisioner = await start_provisioner(KUBECTL=str(tampered.path), LIVE_VIEW_MAX_AGE="4")
    for sandbox_id in ("old", "kept"):
        await create(provisioner, sandbox_id)
    await until_fresh(provisioner)
    lists = tampered.calls()["list"]
    (tmp_path / "said").write_text(BAD_LINES[line] + "\n")
    tampered.set_mode("watch-once")  # applies to the next watch of either kind, but not to the one after it
    await create_manually(kubectl, template, "new")
    await delete_manually(kubectl, "old")
    # Not by reads of the service, which list while the view is not fresh.
    await until(lambda: tampered.calls()["list"] > lists)
    await until(lambda: shown(provisioner) == {"kept", "new"})
    await until_fresh(provisioner)
    assert tampered.calls()["list"] == lists + 1
    assert await ids(provisioner) == {"kept", "new"}
    said = [record for record in caplog.records if record.name == "sandboxes.cluster.reflector"]
    assert [record.levelname for record in said if record.levelname != "INFO"] == ["WARNING"]
    assert "returned invalid data, listing again" in said[0].getMessage()


@pytest.fixture(params=[False, True], ids=["without sendInitialEvents", "with sendInitialEvents"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Cluster]:
    """Return a server of 1.27 to 1.31 or of 1.33, then one of 1.32 or of 1.34 and later."""
    async with Cluster(directory=tmp_path / "server", watch_list=request.param) as cluster:
        yield cluster


@pytest.mark.slow
@pytest.mark.parametrize("age", ["old", "newest"])
async def test_each_kubectl_resumes_watches_at_each_server_and_lists_again_only_after_410(
    start_provisioner: StartProvisioner, server: Cluster, template: Template, tmp_path: Path, age: str
) -> None:
    binary = kubectls.old_kubectl() if age == "old" else kubectls.new_kubectl()
    tampered = TamperedKubectl(tmp_path, binary)
    kubectl = Kubectl(server.kubeconfig, tmp_path / "home")
    provisioner = await start_provisioner(server, KUBECTL=str(tampered.path))
    await create(provisioner, "old")
    await until_fresh(provisioner)
    await until(lambda: server.open_watches() == 2)
    lists = tampered.calls()["list"]
    assert lists == 2
    server.faults.cut_watches()
    await create_manually(kubectl, template, "new")
    await delete_manually(kubectl, "old")
    await until(lambda: shown(provisioner) == {"new"})
    await until_fresh(provisioner)
    await until(lambda: server.open_watches() == 2)
    assert tampered.calls()["list"] == lists
    server.faults.expire_watches()
    await until(lambda: tampered.calls()["list"] == lists + 2)
    await until_fresh(provisioner)
    assert await ids(provisioner) == {"new"}


@pytest.mark.starts_in_full
async def test_no_kubectl_call_decodes_more_than_the_objects_that_are_named_to_it(
    start_provisioner: StartProvisioner, tampered: TamperedKubectl, cluster: Cluster
) -> None:
    """`-o json` of a list is 30 times as expensive as its bytes (record: raw-list-one)."""
    for live_view in ("true", "false"):
        before = len(tampered.lines())
        variables: dict[str, Any] = {"KUBECTL": str(tampered.path), "LIVE_VIEW": live_view, "REAPER_INTERVAL": "0"}
        provisioner = await start_provisioner(**variables)
        await create(provisioner)
        for path in (URL, f"{URL}/a", f"{URL}/none", f"{URL}/a/diagnostics", "/readyz"):
            await provisioner.get(path)
        service = provisioner.client.app[SANDBOX_SERVICE]
        await service.reaper.round(dry_run=False)
        await service.extras.remove_leftovers(0)
        assert (await provisioner.delete(f"{URL}/a")).status == 200
        await until(lambda: cluster.objects("Pod") == [])
        calls = [line.split() for line in tampered.lines()[before:]]
        reads = [args for args in calls if "get" in args]
        assert any("--raw" in args and "limit=" in " ".join(args) for args in reads)
        for args in reads:
            is_by_name = "-f" in args or "namespace" in args
            assert is_by_name or "--raw" in args, args
