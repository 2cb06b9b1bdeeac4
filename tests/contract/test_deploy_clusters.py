"""manifests/deploy/components/clusters: what it adds to a deployment, and whether the service can use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from devcluster.authorization import Right, rights_of
from sandboxes.clusters_file import parse
from sandboxes.settings import Settings
from tests.contract.kubectls import new_kubectl, old_kubectl
from tests.deploy import Objects, built, objects, overlay_with
from tests.pages import blocks

COMPONENT = {"resources": ["../../base"], "components": ["../../components/clusters"]}
CONFIGMAPS = {Right(verb, "", "configmaps") for verb in ("create", "delete", "get", "update", "watch")}


@pytest.fixture
def made(tmp_path: Path) -> Objects:
    return objects(new_kubectl(), overlay_with(tmp_path, COMPONENT))


def mounts(made: Objects) -> dict[str, dict[str, Any]]:
    """Return the volume of each mounted folder, by its path."""
    pod = made["Deployment"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    (container,) = pod["containers"]
    found = {}
    for mount in container["volumeMounts"]:
        assert "subPath" not in mount  # a changed file would not reach the container
        assert mount.get("readOnly", False) is (mount["mountPath"] != "/tmp")
        found[mount["mountPath"]] = volumes.pop(mount["name"])
    assert volumes == {}
    return found


def variables(made: Objects) -> dict[str, Any]:
    (container,) = made["Deployment"]["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one.get("value") for one in container["env"]}


def test_the_list_is_mounted_from_a_config_map_and_kubeconfigs_from_a_secret(made: Objects) -> None:
    assert Path(variables(made)["CLUSTERS_FILE"]) == Path("/etc/provisioner/clusters/clusters.yaml")
    assert "clusters_file" in Settings.model_fields
    found = mounts(made)
    assert set(found) == {"/tmp", "/etc/provisioner/clusters", "/etc/provisioner/kubeconfigs"}
    assert found["/etc/provisioner/clusters"]["configMap"] == {"name": "provisioner-clusters"}
    secret = found["/etc/provisioner/kubeconfigs"]["secret"]
    assert secret == {"secretName": "provisioner-kubeconfigs", "defaultMode": 0o440}


def test_everything_else_of_the_deployment_stays(made: Objects) -> None:
    base = objects(new_kubectl(), ".")
    assert set(made) == set(base)
    for kind in set(base) - {"Deployment", "Role"}:
        assert made[kind] == base[kind]
    assert set(variables(made)) == set(variables(base)) | {"CLUSTERS_FILE"}
    assert mounts(made)["/tmp"] == mounts(base)["/tmp"]


def test_its_role_adds_only_the_config_maps_of_the_directory(made: Objects) -> None:
    base = rights_of(objects(new_kubectl(), ".")["Role"]["rules"])
    assert rights_of(made["Role"]["rules"]) - base == CONFIGMAPS


@pytest.mark.slow
def test_old_and_new_kubectl_build_the_same_with_the_component(tmp_path: Path) -> None:
    overlay = overlay_with(tmp_path, COMPONENT)
    assert built(old_kubectl(), overlay) == built(new_kubectl(), overlay)


def test_the_list_on_the_page_is_valid_and_names_mounted_kubeconfigs(made: Objects) -> None:
    (block,) = (one for one in blocks("docs/how-to/several-clusters.md") if "/etc/provisioner" in one.text)
    text = block.text.partition("<<'END'\n")[2].partition("END\n")[0]
    found = parse(text.encode())
    assert (found.problems, len(found.entries)) == ((), 2)
    paths = [path for entry in found.entries if (path := entry.settings.get("kubeconfig_path"))]
    assert paths
    assert {str(Path(path).parent) for path in paths} <= set(mounts(made))
