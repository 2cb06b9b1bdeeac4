"""The version is defined once, and every mention of it is the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from sandboxes import __version__
from sandboxes.api.openapi.document import document
from sandboxes.cli import main
from tests.conftest import ROOT

ONE_PLACE = ROOT / "sandboxes" / "__init__.py"


def files() -> list[Path]:
    """Return the shipped files and those that describe them, except the changelog."""
    named = ["provisioner.py", "pyproject.toml", "Dockerfile", "docker-compose.yaml", "README.md", "SECURITY.md"]
    found = [path for folder in ("sandboxes", "manifests", "scripts") for path in (ROOT / folder).rglob("*.*")]
    return [ROOT / name for name in named] + [path for path in found if path.suffix in {".py", ".sh", ".yaml"}]


def test_only_one_file_holds_the_version() -> None:
    alone = re.compile(rf"(?<![\d.]){re.escape(__version__)}(?![\d.])")
    assert [path for path in files() if alone.search(path.read_text(encoding="utf-8"))] == [ONE_PLACE]


def test_pyproject_reads_the_version_from_the_package() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in pyproject["project"]
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "sandboxes.__version__"}


def test_the_top_of_the_changelog_is_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[(.*?)\]", text, re.MULTILINE)[0] == __version__


def test_the_openapi_document_has_the_version() -> None:
    assert document()["info"]["version"] == __version__


def test_version_is_printed_whatever_the_environment_holds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PORT", "no port")
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, *capsys.readouterr()) == (0, f"sandbox-provisioner {__version__}\n", "")
