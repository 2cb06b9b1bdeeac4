"""The contract tests named by `repeats` marks exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

TEXTS = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
NAMED = sorted({name for text in TEXTS for name in re.findall(r'mark\.repeats\(\s*"([^"]+)"', text)})


@pytest.mark.parametrize("name", NAMED)
def test_a_repeated_contract_test_exists(name: str) -> None:
    file, _, test = name.partition("::")
    assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8")
