"""Which kubeconfig `run.sh` looks for, before it serves on it or on the stand-in. Its Python is a stub here."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

VENV = """VENV="$PWD/venv"
install_requirements() { :; }
"""
PYTHON = """#!/bin/sh
echo "$KUBECONFIG_PATH|$KUBECONFIG|$*"
if [ -n "$SANDBOX_GATEWAY_DIAL" ]; then echo "dials by $SANDBOX_GATEWAY_DIAL"; fi
"""

pytestmark = pytest.mark.skipif(
    Path("/var/run/secrets/kubernetes.io/serviceaccount/token").exists(), reason="in a Pod run.sh serves on its cluster"
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / "scripts").mkdir(parents=True)
    (project / "venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "run.sh", project / "scripts")
    (project / "scripts" / "venv.sh").write_text(VENV)
    python = project / "venv" / "bin" / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return project


def run_sh(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run it in the folder above the project, which is HOME, too."""
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(project.parent), **variables}
    script = project / "scripts" / "run.sh"
    return subprocess.run(
        [str(script), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=environ,
        cwd=project.parent,
    )


@pytest.mark.parametrize("listed", ["there", "none:there", ":none:there:"])
def test_it_serves_on_a_file_of_kubeconfig_relative_to_the_callers_folder(project: Path, listed: str) -> None:
    (project.parent / "there").touch()
    expected = ":".join(f"{project.parent}/{part}" if part else "" for part in listed.split(":"))
    done = run_sh(project, KUBECONFIG=listed)
    assert (done.returncode, done.stderr) == (0, "")
    path, kubeconfig, arguments = done.stdout.strip().split("|")
    assert (path, arguments) == ("", "provisioner.py")
    assert kubeconfig.rstrip(":") == expected.rstrip(":")


def test_kubeconfig_path_goes_before_kubeconfig(project: Path) -> None:
    (project.parent / "there").touch()
    done = run_sh(project, KUBECONFIG_PATH="~/there", KUBECONFIG="none")
    assert done.stdout == f"{project.parent}/there|{project.parent}/none|provisioner.py\n"
    done = run_sh(project, KUBECONFIG_PATH="none", KUBECONFIG="there")
    assert done.returncode == 1
    assert done.stderr == f"run.sh: KUBECONFIG_PATH is set, but there is no kubeconfig at {project.parent}/none\n"


@pytest.mark.parametrize("listed", ["none", "none:nor-this", ":"])
def test_a_kubeconfig_whose_files_are_missing_is_no_reason_for_the_stand_in(project: Path, listed: str) -> None:
    (project.parent / ".kube").mkdir()
    (project.parent / ".kube" / "config").touch()
    done = run_sh(project, KUBECONFIG=listed)
    assert done.returncode == 1
    assert done.stderr.startswith("run.sh: KUBECONFIG is set, but there is no kubeconfig at ")
    assert done.stdout == ""


def test_without_a_kubeconfig_it_serves_on_the_stand_in_and_names_both_variables(project: Path) -> None:
    done = run_sh(project)
    assert done.stdout == f"||-m devcluster -- {project}/venv/bin/python provisioner.py\n"
    assert "IT IS NOT KUBERNETES" in done.stderr
    assert "set KUBECONFIG (or KUBECONFIG_PATH, which wins)" in done.stderr


def test_clusters_are_stand_ins_of_that_number_whatever_kubeconfig_there_is(project: Path) -> None:
    (project.parent / ".kube").mkdir()
    (project.parent / ".kube" / "config").touch()
    done = run_sh(project, "--clusters", "2")
    command = f"-m devcluster --clusters 2 --directory .dev-clusters -- {project}/venv/bin/python provisioner.py"
    assert done.stdout == f"||{command}\n"
    assert "This runs on 2 clusters of devcluster" in done.stderr
    assert "IT IS NOT KUBERNETES" in done.stderr
    assert {len(line) for line in done.stderr.splitlines() if line} == {78}


@pytest.mark.parametrize("variable", ["CLUSTERS_FILE", "K8S_API_SERVER"])
def test_clusters_are_refused_beside_a_variable_that_names_others(project: Path, variable: str) -> None:
    done = run_sh(project, "--clusters", "2", **{variable: "x"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"run.sh: {variable} is set, but --clusters starts clusters of its own\n"


@pytest.mark.parametrize("arguments", [("--clusters",), ("--clusters", "0"), ("--clusters", "x"), ("2",), ("-h",)])
def test_other_arguments_are_answered_with_the_usage(project: Path, arguments: tuple[str, ...]) -> None:
    done = run_sh(project, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_it_serves_on_the_clusters_of_a_file_relative_to_the_callers_folder(project: Path) -> None:
    python = project / "venv" / "bin" / "python"
    python.write_text('#!/bin/sh\necho "$CLUSTERS_FILE|$*"\n')
    done = run_sh(project, CLUSTERS_FILE="clusters.yaml")
    assert done.stdout == f"{project.parent}/clusters.yaml|provisioner.py\n"
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [(), ("--clusters", "2")], ids=["one", "several"])
def test_the_gateway_dials_the_pods_of_the_stand_in_which_answer(project: Path, arguments: tuple[str, ...]) -> None:
    done = run_sh(project, *arguments, SANDBOX_ACCESS="gateway")
    assert "-m devcluster --pod-servers " in done.stdout
    assert done.stdout.endswith("dials by pod-ip\n")
    assert "dials by" not in run_sh(project, *arguments).stdout


def test_on_a_cluster_of_ones_own_the_gateway_dials_as_it_is_set(project: Path) -> None:
    (project.parent / "there").touch()
    assert "dials by" not in run_sh(project, SANDBOX_ACCESS="gateway", KUBECONFIG="there").stdout
