"""README and docs: what is generated is what the code says, links lead somewhere, and what is named exists."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import get_args

import pytest

from sandboxes.models.responses import Status
from sandboxes.ops.metrics import FAMILIES
from sandboxes.service.events import EVENT_TYPES
from sandboxes.settings import Settings
from sandboxes.status.advice import SUMMARIES
from sandboxes.status.reasons import HOPELESS
from sandboxes.variables import FALLBACKS
from scripts.docs import PARTS, changes, generated, table
from tests.conftest import ROOT, VARIABLES
from tests.pages import NOT_RUN, TEXTS, blocks, fits, path_of, steps

TOP_LEVEL = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "SECURITY.md")}
EVERYTHING = {**TEXTS, **TOP_LEVEL}
CONFIGURATION = TEXTS["docs/reference/configuration.md"]

# Names in capitals that are not variables of the service.
OTHER_NAMES = {
    "API_KEY", "OLD_KEY", "NEW_KEY", "SANDBOX_URL", "SANDBOX_REVISION", "KUBECONFIG", "PROVISIONER_USER",
    "PYTHON_IMAGE", "APT_MIRROR", "PYPI_MIRROR", "SSL_CERT_FILE", "SSL_CERT_DIR", "LARK_CLI_", "DEERFLOW_LARK_",
    "LARK_CLI_NPM_VERSION", "LARK_CLI_VERSION",
    "KUBECTL_KUBERC", "LC_ALL", "PIP_INDEX_URL", "DAC_OVERRIDE", "DEER_FLOW_HOME",
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_what_is_generated_is_what_the_code_says(name: str) -> None:
    assert generated(name) == (ROOT / name).read_text(encoding="utf-8"), "run: python -m scripts.docs"


def test_the_readme_can_be_read_at_once() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 120


def test_every_variable_has_a_row_and_its_fallback_is_named() -> None:
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in CONFIGURATION
    for name, fallback in FALLBACKS.items():
        assert f"`{fallback}`" in CONFIGURATION.partition(f"| `{name}` |")[2].partition("\n")[0]


def test_each_default_in_the_table_may_be_set_as_it_stands_there(make_settings: Callable[..., Settings]) -> None:
    told = CONFIGURATION.partition("<!-- configuration: begin -->")[2].partition("<!-- configuration: end -->")[0]
    defaults = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", told, re.MULTILINE))
    assert defaults.items() >= {"LIVE_VIEW": "true", "REAPER_DRY_RUN": "false", "LIVE_VIEW_MAX_AGE": "60"}.items()
    assert [value for value in defaults.values() if re.search(r"True|False|\d\.0$", value)] == []
    unset = make_settings()
    assert make_settings(**defaults) == unset


def test_the_table_of_values_has_the_least_and_the_most() -> None:
    assert re.search(r"^\| `LISTEN_PORT` \| `8002` \| 1 to 65535 \|", CONFIGURATION, re.MULTILINE)
    assert re.search(r"^\| `LOG_FORMAT` \| `auto` \| `auto`, `json`, `console` \|", CONFIGURATION, re.MULTILINE)
    assert re.search(r"^\| `REAPER_GRACE` \| `120` \| 1 to 86400, also fractions \|", CONFIGURATION, re.MULTILINE)


def test_the_table_of_metrics_names_each() -> None:
    assert FAMILIES
    for name in FAMILIES:
        assert f"| `{name}` |" in TEXTS["docs/reference/metrics.md"]


def test_the_table_of_reasons_names_each_and_those_that_end_a_wait() -> None:
    told = TEXTS["docs/reference/status-and-reasons.md"].partition("<!-- reasons: begin -->")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (yes|-) \|$", told, re.MULTILINE))
    assert rows == {reason: "yes" if reason in HOPELESS else "-" for reason in SUMMARIES}
    assert set(rows) >= HOPELESS


def test_the_table_of_status_words_has_each() -> None:
    told = TEXTS["docs/reference/status-and-reasons.md"].partition("| `status` | When |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE) == list(get_args(Status))


def test_the_table_of_events_has_each() -> None:
    told = TEXTS["docs/how-to/wait-list-events.md"].partition("| Event | When |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", told, re.MULTILINE)) == sorted(EVENT_TYPES)


def test_a_cell_of_a_table_ends_only_at_its_own_end() -> None:
    assert table(("a",), [("x | y",)]) == "| a |\n| --- |\n| x \\| y |"


def test_the_upgrade_guide_has_every_change_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    changed = changelog.partition("### Changed\n")[2].partition("\n### ")[0].strip()
    assert changed.count("\n- ") > 10
    assert changed in changes()


def _targets(name: str) -> list[str]:
    without_code = re.sub(r"^```.*?^```$|`[^`\n]*`", "", EVERYTHING[name], flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", without_code)


def _anchors(text: str) -> set[str]:
    found: set[str] = set()
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", without_code, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 1
        while (one := slug if number == 1 else f"{slug}-{number - 1}") in found:
            number += 1
        found.add(one)
    return found


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_link_leads_somewhere(name: str) -> None:
    for target in _targets(name):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (path_of(name).parent / file).resolve() if file else path_of(name)
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path.read_text(encoding="utf-8")), target


def test_the_index_and_the_readme_lead_to_every_page() -> None:
    pages = {name.removeprefix("docs/").removesuffix(".md") for name in TEXTS if name.startswith("docs/")} - {"index"}
    listed = re.findall(r"^((?:tutorial|how-to|reference|explanation)/[\w-]+)$", TEXTS["docs/index.md"], re.MULTILINE)
    assert sorted(listed) == sorted(pages)
    assert {target for target in _targets("README.md") if target.startswith("docs/")} == {
        f"docs/{page}.md" for page in pages
    }


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_file_that_is_named_exists(name: str) -> None:
    named = re.findall(
        r"(?<![\w/])((?:scripts|sandboxes|tests|manifests|devcluster|docs)/[\w./-]*[\w/])", EVERYTHING[name]
    )
    assert [one for one in named if not (ROOT / one).exists() and one != "docs/_build/html"] == []


def test_the_security_policy_is_found_and_names_only_variables_that_exist() -> None:
    assert "(SECURITY.md)" in TEXTS["README.md"]
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", TOP_LEVEL["SECURITY.md"]))
    assert named <= VARIABLES


def test_contributing_begins_with_the_architecture() -> None:
    assert _targets("CONTRIBUTING.md")[0] == "docs/explanation/architecture.md"


def test_troubleshooting_has_only_sentences_that_the_service_says() -> None:
    sources = [ROOT / "provisioner.py", *(ROOT / "sandboxes").rglob("*.py")]
    # a sentence may stand in two pieces of one literal, and a placeholder in its middle
    code = re.sub(r'"\s+f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    told = TEXTS["docs/how-to/troubleshoot.md"].partition("| It says | Look at |")[2].partition("\n\n")[0]
    sentences = re.findall(r"^\| `([^`]+)`", told, re.MULTILINE)
    assert len(sentences) > 15
    assert [sentence for sentence in sentences if sentence not in code] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_variable_that_is_named_exists(name: str) -> None:
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", TEXTS[name]))
    assert named - VARIABLES - OTHER_NAMES == set()


@pytest.mark.parametrize("name", TEXTS)
def test_each_block_is_run_by_a_test_or_says_that_it_is_not(name: str) -> None:
    # tests/contract/test_docs.py runs every block of `bash` that does not begin with NOT_RUN and a reason.
    for block in blocks(name):
        where = f"{name}:{block.line}"
        assert block.language in {"bash", "text", "", "{toctree}"}, where
        if block.language != "bash":
            assert not re.search(r"^(\$ |curl|kubectl|docker|\./|\.venv)", block.text, re.MULTILINE), where
        elif block.text.startswith(NOT_RUN):
            assert len(block.text.partition("\n")[0]) > len(NOT_RUN), where
        else:
            assert block.is_run, where
            assert "not run here" not in block.text, where
            assert "".join(step.commands for step in steps(block)).strip(), where


@pytest.mark.parametrize(
    ("printed", "told", "is_so"),
    [
        ('{"a":1}\n', '{"a":1}', True),
        ('{"a":2}\n', '{"a":1}', False),
        ('{"a":1,"b":2}', '{"a":1,…}', True),
        ('{"a":1}\n{"b":2}', '{"a":1}', False),
        ('{"a":1}\n{"b":2}', '{"b":2}', True),
        ("", '{"b":2}', False),
        ("http://127.0.0.1:31234", "http://127.0.0.1:30000", True),
        ("a  b\nc", "a b\nc", True),
    ],
)
def test_what_a_command_prints_is_compared(printed: str, told: str, *, is_so: bool) -> None:
    assert fits(printed, told) is is_so
