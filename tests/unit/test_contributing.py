"""CONTRIBUTING's table "Where a change goes" names only what its files contain, and comments cite facts that exist."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

ROWS = [
    line
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and re.search(r"`(sandboxes|devcluster|manifests)/", line)
]
CHANGES = [row for row in ROWS if not row.startswith(("| **", "| `"))]


@pytest.mark.parametrize("row", CHANGES, ids=[row.split(" | ")[0][2:] for row in CHANGES])
def test_each_name_in_a_row_is_in_one_of_its_files(row: str) -> None:
    quoted = re.findall(r"`([^`]+)`", row.partition(" | ")[2])
    files = [ROOT / one for one in quoted if "/" in one and " " not in one]
    texts = [one.read_text(encoding="utf-8") for one in files if one.is_file()]
    names = [word for one in quoted if re.fullmatch(r"[A-Za-z_][\w.]*", one) for word in one.split(".")]
    missing = [name for name in names if not any(re.search(rf"(?i)\b{name}\b", text) for text in texts)]
    assert [one for one in files if not one.exists()] == []
    assert missing == []


def test_the_table_of_changes_was_found() -> None:
    assert len(CHANGES) > 15


def test_each_fact_about_kubectl_that_a_comment_cites_is_documented() -> None:
    page = (ROOT / "docs" / "explanation" / "kubectl.md").read_text(encoding="utf-8")
    facts = set(re.findall(r"^\| (\d+) \|", page, re.MULTILINE))
    code = [*(ROOT / "sandboxes").rglob("*.py"), *(ROOT / "devcluster").rglob("*.py")]
    cited = {one for path in code for one in re.findall(r"kubectl\.md\s+(\d+)", path.read_text(encoding="utf-8"))}
    assert cited
    assert cited <= facts
