"""`provisioner.py check`, and the start, in a cluster that refuses some of the templates, with a real kubectl."""

from __future__ import annotations

import sys
from pathlib import Path

import kmock
import pytest

from devcluster import Cluster, once
from tests.conftest import ROOT
from tests.contract.processes import environment, run

pytestmark = pytest.mark.slow

PROVISIONER = (sys.executable, str(ROOT / "provisioner.py"))
WORDS = 'pods "sandbox-template-check" is forbidden: on Sundays no Pod may start'
# What is replaced in the manifest of the Pod, by the name of the template.
CHANGES = {
    "robot": ("  restartPolicy: Always\n", "  restartPolicy: Always\n  serviceAccountName: robot\n"),
    "twice": ("      imagePullPolicy:", "      env: [{name: X, value: s3cret}, {name: X}]\n      imagePullPolicy:"),
    "typo": ("imagePullPolicy", "imagePulPolicy"),
}


@pytest.fixture
async def environ(cluster: Cluster, tmp_path: Path) -> dict[str, str]:
    """Return variables with a template for each of CHANGES."""
    cluster.make_namespace("deer-flow")
    for name, (old, new) in CHANGES.items():
        folder = tmp_path / "templates" / name
        folder.mkdir(parents=True)
        for source in (ROOT / "manifests" / "sandbox").iterdir():
            text = source.read_text(encoding="utf-8")
            (folder / source.name).write_text(text.replace(old, new), encoding="utf-8")
    templates = str(tmp_path / "templates")
    return environment(tmp_path, KUBECONFIG_PATH=str(cluster.kubeconfig), SANDBOX_TEMPLATES_DIR=templates)


async def test_check_has_a_line_for_each_refused_template(cluster: Cluster, environ: dict[str, str]) -> None:
    refusal = kmock.KubernetesError(403, "Forbidden", WORDS, {})
    cluster.kmock["PATCH", kmock.resource("v1/pods")] << once(refusal)
    returncode, stdout, _ = await run(*PROVISIONER, "check", environ=environ)
    lines = stdout.splitlines()
    assert returncode == 1
    assert any("template robot: There is no service account robot, which the template" in line for line in lines)
    assert any('template twice: The sandbox has name="X" twice in spec.' in line for line in lines)
    assert any("template typo: The cluster does not know the field spec.containers" in line for line in lines)
    # The API server's own words, where the reason is unknown
    default = next(number for number, line in enumerate(lines) if "template default: " in line)
    assert lines[default].endswith("for a reason that the provisioner does not know; the log has its words")
    assert lines[default + 1] == f"Error from server (Forbidden): {WORDS}"


async def test_the_start_names_each_template_that_the_schema_refuses(environ: dict[str, str]) -> None:
    returncode, _, stderr = await run(*PROVISIONER, environ=environ)
    assert returncode == 1
    assert 'The sandbox has name="X" twice in spec.containers[name="sandbox"].env. Its name is twice.' in stderr
    assert "imagePulPolicy of the sandbox. Its name is typo." in stderr
    assert "The cluster refuses the template robot at the moment: There is no service account robot" in stderr
