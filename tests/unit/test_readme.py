"""The README: what is generated stands as the code says, and its links lead somewhere."""

from __future__ import annotations

import re

from sandboxes.settings import Settings
from scripts.readme import with_generated
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_configuration_table_is_what_settings_say() -> None:
    assert with_generated(README) == README, "run: python -m scripts.readme"
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in README


def test_every_link_leads_somewhere() -> None:
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_script_that_is_named_exists() -> None:
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        for script in re.findall(r"scripts/\w+\.(?:sh|py)", text):
            assert (ROOT / script).exists(), script
