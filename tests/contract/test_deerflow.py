"""DeerFlow's own requests, in each of its setups, on a node that has only the folders that DeerFlow creates."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import kmock
import pytest

from devcluster import Cluster
from tests.conftest import ROOT
from tests.contract.service import URL, Provisioner, StartProvisioner
from tests.kubectl import SPEED
from tests.record import RECORDED
from tests.waiting import until

CASES = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (RECORDED / "deerflow").glob("*.json")}
ON_THE_NODE = sorted(
    name for name, case in CASES.items() if any(row[1] == "Directory" for row in case["mounts"].values())
)
QUICK = {"chart", "compose-pr-5077", "reference-today"}
SECRETS = "/var/run/secrets/kubernetes.io/serviceaccount"


def folders_of(case: dict[str, Any]) -> list[str]:
    """List the folders of the node that DeerFlow creates before its request."""
    return sorted({source for source, kind, _ in case["mounts"].values() if kind == "Directory"})


def node(case: dict[str, Any], tmp_path: Path, *, without: str = "") -> Cluster:
    folders = [folder for folder in folders_of(case) if folder != without]
    return Cluster(directory=tmp_path / "node", speed=SPEED, node_folders=folders)


def pod_of(cluster: Cluster, case: dict[str, Any]) -> dict[str, Any]:
    namespace = case["environment"].get("K8S_NAMESPACE", "deer-flow")
    found = cluster.get("Pod", namespace, f"sandbox-{case['request']['sandbox_id']}")
    assert found is not None
    return found


def mounts_of(pod: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the sandbox's mounts in the form of the record."""
    volumes = {one["name"]: one for one in pod["spec"]["volumes"]}
    [container] = pod["spec"]["containers"]
    found = {}
    for mount in container["volumeMounts"]:
        volume, read_only = volumes[mount["name"]], mount.get("readOnly", False)
        if "hostPath" in volume:
            source = [volume["hostPath"]["path"], volume["hostPath"]["type"]]
        elif "persistentVolumeClaim" in volume:
            source = [f"{volume['persistentVolumeClaim']['claimName']}:{mount['subPath']}", "claim"]
        elif mount["mountPath"] == SECRETS:
            continue
        else:
            source = ["", "emptyDir"]
        found[mount["mountPath"]] = [*source, read_only]
    return found


async def post(provisioner: Provisioner, case: dict[str, Any], **fields: Any) -> dict[str, Any]:
    response = await provisioner.post(URL, json={**case["request"], **fields})
    assert response.status == 200, await response.text()
    answer: dict[str, Any] = await response.json()
    return answer


# tests/unit/test_deerflow.py has the mounts of all setups; these run each on a node.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(CASES)]
)
async def test_the_sandbox_runs_with_the_recorded_mounts(
    name: str, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    case = CASES[name]
    async with node(case, tmp_path) as cluster:
        provisioner = await start_provisioner(cluster=cluster, **case["environment"])
        await post(provisioner, case)
        own = f"{URL}/{case['request']['sandbox_id']}"

        async def runs() -> bool:
            return bool((await (await provisioner.get(own)).json())["status"] == "Running")

        await until(runs)
        [container] = pod_of(cluster, case)["status"]["containerStatuses"]
        assert "running" in container["state"]
        assert mounts_of(pod_of(cluster, case)) == case["mounts"]
        reasons = {event["reason"] for event in cluster.objects("Event")}
        assert reasons == {"Scheduled", "Pulled", "Created", "Started"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_THE_NODE)
async def test_a_missing_host_folder_ends_the_wait_and_is_named(
    name: str, start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    case = CASES[name]
    missing = folders_of(case)[-1]
    async with node(case, tmp_path, without=missing) as cluster:
        provisioner = await start_provisioner(cluster=cluster, **case["environment"])
        answer = await post(provisioner, case, wait_seconds=20)
        assert (answer["status"], answer["ready"], answer["reason"]) == ("Pending", False, "FailedMount")
        assert answer["message"].endswith(f"hostPath type check failed: {missing} is not a directory")
        diagnostics = await (await provisioner.get(f"{URL}/{case['request']['sandbox_id']}/diagnostics")).json()
        assert diagnostics["summary"].startswith(
            f"A volume can't be mounted: {missing} is not a directory on node node1"
        )


NESTED = """      volumeMounts:
        - {name: skills, mountPath: /mnt/skills, readOnly: true}
        - {name: inner, mountPath: /mnt/skills/custom}
"""
VOLUMES = """  volumes:
    - {name: skills, emptyDir: {}}
    - {name: inner, emptyDir: {}}
"""


async def test_a_mount_point_missing_in_a_read_only_mount_ends_the_wait_and_is_named(
    start_provisioner: StartProvisioner, tmp_path: Path
) -> None:
    """Only a template can have such mounts; no request can."""
    folder = tmp_path / "templates" / "default"
    folder.mkdir(parents=True)
    for shipped in (ROOT / "manifests" / "sandbox").iterdir():
        text = shipped.read_text(encoding="utf-8").replace("      volumeMounts:\n", NESTED)
        (folder / shipped.name).write_text(text.replace("  volumes:\n", VOLUMES), encoding="utf-8")
    provisioner = await start_provisioner(SANDBOX_TEMPLATES_DIR=str(folder.parent))
    answer = await post(provisioner, {"request": {"sandbox_id": "a"}}, wait_seconds=20)
    assert (answer["ready"], answer["reason"]) == (False, "StartError")
    assert answer["message"].endswith("/mnt/skills/custom: read-only file system")
    diagnostics = await (await provisioner.get(f"{URL}/a/diagnostics")).json()
    assert (
        "the mount point /mnt/skills/custom can't be made in /mnt/skills, which is read-only" in diagnostics["summary"]
    )
    assert "image" not in diagnostics["summary"]


BASE = "/srv/deer-flow"


def mounted(path: str = "/mnt/acp-workspace", source: str = f"{BASE}/a", **fields: Any) -> dict[str, Any]:
    return {"host_path": source, "container_path": path, **fields}


MANY = [mounted(f"/mnt/skills/{number}", f"{BASE}/{number}") for number in range(11)]
# the mistake: (the fields of the request, a part of the error)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "outside": ({"extra_mounts": [mounted(source="/etc")]}, "outside the directory that the operator allows"),
    "the base itself": ({"extra_mounts": [mounted(source=BASE)]}, "outside the directory"),
    "beside the base": ({"extra_mounts": [mounted(source=f"{BASE}-2/a")]}, "outside the directory"),
    "path not allowed": ({"extra_mounts": [mounted("/opt/tools")]}, "a container path that is not one of"),
    "reserved root": ({"extra_mounts": [mounted("/mnt/user-data")]}, "a container path that is not one of"),
    "proc": ({"extra_mounts": [mounted("/proc")]}, "a container path that is not one of"),
    "twice": ({"extra_mounts": [mounted(), mounted(source=f"{BASE}/b")]}, "/mnt/acp-workspace twice"),
    "twice, written otherwise": ({"extra_mounts": [mounted(), mounted("/mnt//acp-workspace/")]}, "twice"),
    "eleven": ({"extra_mounts": MANY}, "at most 10"),
    "source with ..": ({"extra_mounts": [mounted(source=f"{BASE}/a/../../etc")]}, "outside the directory"),
    "path with ..": ({"extra_mounts": [mounted("/mnt/x/../acp-workspace")]}, "a container path that is not one of"),
    "relative source": ({"extra_mounts": [mounted(source="srv/deer-flow/a")]}, "not an absolute path"),
    "relative path": ({"extra_mounts": [mounted("mnt/acp-workspace")]}, "a container path that is not one of"),
    "below another read-only one": (
        {
            "extra_mounts": [
                mounted("/mnt/integrations/lark-cli/config", read_only=True),
                mounted("/mnt/integrations/lark-cli/config/locks", f"{BASE}/b"),
            ]
        },
        "whose host path does not contain it",
    ),
    **{
        f"skills at {path}": ({"skills_container_path": path}, "overlaps a reserved directory")
        for path in ("/", "/mnt", "/mnt/user-data/skills", "/mnt/acp-workspace", "/proc/skills", "/dev")
    },
    "relative skills": ({"skills_container_path": "skills"}, "not an absolute path"),
    "skills with ..": ({"skills_container_path": "/mnt/skills/../user-data"}, "not an absolute path"),
}


async def test_forbidden_mounts_are_400_with_one_sentence_and_write_nothing(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(DEER_FLOW_HOST_BASE_DIR=BASE)
    for name, (fields, sentence) in BAD.items():
        request = copy.deepcopy(fields)
        response = await provisioner.post(URL, json={"sandbox_id": "a", "thread_id": "t", **request})
        answer = await response.json()
        assert (name, response.status) == (name, 400), answer
        assert list(answer) == ["detail"]
        detail = answer["detail"]
        assert isinstance(detail, str), name
        assert sentence in detail, name
        assert "\n" not in detail
        assert ". " not in detail.rstrip(".")
    assert cluster.objects("Pod") == cluster.objects("Service") == []
    assert not [
        request for request in cluster.kmock.requests if request.method is not kmock.method.GET
    ]  # a read is the view's
