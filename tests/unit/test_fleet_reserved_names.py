"""The templates of each of several clusters, and objects of theirs that would take the names of the directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.app import load_all_templates, plan_cluster
from sandboxes.clusters_file import parse
from sandboxes.errors import StartupError
from sandboxes.settings import Settings
from tests.conftest import ROOT

MakeSettings = Callable[..., Settings]

OBJECT = "apiVersion: v1\nkind: {kind}\nmetadata: {{name: sandbox-example-{suffix}}}\n{rest}\n"
CLAIM = "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}"


def template(tmp_path: Path, name: str, kind: str, suffix: str) -> Path:
    """Write a template that brings such an object; return the object's file."""
    folder = tmp_path / "templates" / name
    shutil.copytree(ROOT / "manifests" / "sandbox", folder)
    file = folder / "more.yaml"
    file.write_text(OBJECT.format(kind=kind, suffix=suffix, rest=CLAIM if kind != "ConfigMap" else "data: {a: b}"))
    return file


def load(tmp_path: Path, make_settings: MakeSettings, **variables: str) -> None:
    load_all_templates(make_settings(SANDBOX_TEMPLATES_DIR=str(tmp_path / "templates"), **variables))


def test_config_maps_with_names_of_the_directory_are_refused_with_their_files(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    files = [template(tmp_path, f"t{number}", "ConfigMap", suffix) for number, suffix in enumerate(
        ("clusters", "elsewhere")
    )]  # fmt: skip
    with pytest.raises(StartupError) as caught:
        load(tmp_path, make_settings, CLUSTERS_FILE=str(tmp_path / "clusters.yaml"))
    first, second = str(caught.value).splitlines()
    assert first == (
        f"The template {files[0]} has a ConfigMap 'sandbox-example-clusters': with CLUSTERS_FILE, the records of the "
        "names of clusters need this name. Choose another suffix."
    )
    assert second.startswith(f"The template {files[1]} has a ConfigMap 'sandbox-example-elsewhere': ")


@pytest.mark.parametrize(
    ("kind", "suffix", "variables"),
    [
        ("ConfigMap", "elsewhere", {}),
        ("PersistentVolumeClaim", "elsewhere", {"CLUSTERS_FILE": "clusters.yaml"}),
        ("ConfigMap", "elsewhere2", {"CLUSTERS_FILE": "clusters.yaml"}),
    ],
)
def test_names_that_the_directory_does_not_need_are_no_problem(
    kind: str, suffix: str, variables: dict[str, str], tmp_path: Path, make_settings: MakeSettings
) -> None:
    template(tmp_path, "t", kind, suffix)
    load(tmp_path, make_settings, **variables)


def test_each_cluster_has_the_templates_and_the_policy_of_its_entry(
    tmp_path: Path, make_settings: MakeSettings
) -> None:
    template(tmp_path, "mine", "PersistentVolumeClaim", "data")
    file = f"- {{name: a}}\n- {{name: b, network_policy: isolated, templates_dir: {tmp_path / 'templates'}}}\n"
    settings = make_settings(CLUSTERS_FILE=str(tmp_path / "clusters.yaml"))
    plans = [plan_cluster(entry, settings) for entry in parse(file.encode()).entries]
    assert [len(plan.policies) for plan in plans] == [0, 1]
    assert ["mine" in plan.templates for plan in plans] == [False, True]
