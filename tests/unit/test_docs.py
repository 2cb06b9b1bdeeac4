"""README and docs: generated parts match the code, links resolve, and named files and variables exist."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import get_args

import pytest

from sandboxes.environment import FALLBACKS
from sandboxes.models.responses import Status
from sandboxes.ops.metrics import FAMILIES
from sandboxes.service.events import EVENT_TYPES
from sandboxes.settings import Settings
from sandboxes.status.advice import SUMMARIES
from sandboxes.status.reasons import HOPELESS
from scripts.docs import PARTS, generated
from scripts.docs_markdown import table
from scripts.docs_project import changes
from tests.conftest import ROOT, VARIABLES
from tests.pages import NOT_RUN, TEXTS, blocks, fits, path_of, steps

TOP_LEVEL = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "SECURITY.md")}
EVERYTHING = {**TEXTS, **TOP_LEVEL}
CONFIGURATION = TEXTS["docs/reference/configuration.md"]

# Upper-case names that are no variables of the service.
OTHER_NAMES = {
    "API_KEY", "OLD_KEY", "NEW_KEY", "SANDBOX_URL", "SANDBOX_REVISION", "KUBECONFIG", "PROVISIONER_USER",
    "PYTHON_IMAGE", "APT_MIRROR", "PYPI_MIRROR", "SSL_CERT_FILE", "SSL_CERT_DIR", "LARK_CLI_", "DEERFLOW_LARK_",
    "LARK_CLI_NPM_VERSION", "LARK_CLI_VERSION",
    "KUBECTL_KUBERC", "LC_ALL", "PIP_INDEX_URL", "DAC_OVERRIDE", "DEER_FLOW_HOME",
    "OLD_URL", "SANDBOX_GATEWAY_",
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_generated_parts_match_the_code(name: str) -> None:
    assert generated(name) == (ROOT / name).read_text(encoding="utf-8"), "run: python -m scripts.docs"


def test_the_readme_has_at_most_120_lines() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 120


def test_every_variable_has_a_row_that_names_its_fallback() -> None:
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in CONFIGURATION
    for name, fallback in FALLBACKS.items():
        assert f"`{fallback}`" in CONFIGURATION.partition(f"| `{name}` |")[2].partition("\n")[0]


def test_each_documented_default_is_a_valid_value(make_settings: Callable[..., Settings]) -> None:
    documented = CONFIGURATION.partition("<!-- configuration: begin -->")[2].partition("<!-- configuration: end -->")[0]
    defaults = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", documented, re.MULTILINE))
    assert defaults.items() >= {"LIVE_VIEW": "true", "REAPER_DRY_RUN": "false", "LIVE_VIEW_MAX_AGE": "60"}.items()
    assert [value for value in defaults.values() if re.search(r"True|False|\d\.0$", value)] == []
    unset = make_settings()
    assert make_settings(**defaults) == unset


def test_the_configuration_table_has_minimum_and_maximum() -> None:
    assert re.search(r"^\| `LISTEN_PORT` \| `8002` \| 1 to 65535 \|", CONFIGURATION, re.MULTILINE)
    assert re.search(r"^\| `LOG_FORMAT` \| `auto` \| `auto`, `json`, `console` \|", CONFIGURATION, re.MULTILINE)
    assert re.search(r"^\| `REAPER_GRACE` \| `120` \| 1 to 86400, also fractions \|", CONFIGURATION, re.MULTILINE)


def test_the_metrics_table_is_complete() -> None:
    assert FAMILIES
    for name in FAMILIES:
        assert f"| `{name}` |" in TEXTS["docs/reference/metrics.md"]


def test_the_reasons_table_is_complete_and_marks_those_that_end_a_wait() -> None:
    documented = TEXTS["docs/reference/status-and-reasons.md"].partition("<!-- reasons: begin -->")[2]
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (yes|-) \|$", documented, re.MULTILINE))
    assert rows == {reason: "yes" if reason in HOPELESS else "-" for reason in SUMMARIES}
    assert set(rows) >= HOPELESS


def test_the_status_table_is_complete() -> None:
    documented = TEXTS["docs/reference/status-and-reasons.md"].partition("| `status` | When |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", documented, re.MULTILINE) == list(get_args(Status))


def test_the_events_table_is_complete() -> None:
    documented = TEXTS["docs/how-to/wait-list-events.md"].partition("| Event | When |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", documented, re.MULTILINE)) == sorted(EVENT_TYPES)


def test_pipes_in_table_cells_are_escaped() -> None:
    assert table(("a",), [("x | y",)]) == "| a |\n| --- |\n| x \\| y |"


def test_the_upgrade_guide_has_all_changes_of_the_changelog() -> None:
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
def test_every_relative_link_resolves(name: str) -> None:
    for target in _targets(name):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (path_of(name).parent / file).resolve() if file else path_of(name)
        assert path.exists(), target
        assert not anchor or anchor in _anchors(path.read_text(encoding="utf-8")), target


def test_index_and_readme_link_to_every_page() -> None:
    pages = {name.removeprefix("docs/").removesuffix(".md") for name in TEXTS if name.startswith("docs/")} - {"index"}
    listed = re.findall(r"^((?:tutorial|how-to|reference|explanation)/[\w-]+)$", TEXTS["docs/index.md"], re.MULTILINE)
    assert sorted(listed) == sorted(pages)
    assert {target for target in _targets("README.md") if target.startswith("docs/")} == {
        f"docs/{page}.md" for page in pages
    }


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_named_file_exists(name: str) -> None:
    named = re.findall(
        r"(?<![\w/])((?:scripts|sandboxes|tests|manifests|devcluster|docs)/[\w./-]*[\w/])", EVERYTHING[name]
    )
    assert [one for one in named if not (ROOT / one).exists() and one != "docs/_build/html"] == []


def test_the_security_policy_is_linked_and_names_only_existing_variables() -> None:
    assert "(SECURITY.md)" in TEXTS["README.md"]
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", TOP_LEVEL["SECURITY.md"]))
    assert named <= VARIABLES


def test_contributing_links_to_the_architecture_first() -> None:
    assert _targets("CONTRIBUTING.md")[0] == "docs/explanation/architecture.md"


def test_troubleshooting_quotes_only_messages_in_the_code() -> None:
    sources = [ROOT / "provisioner.py", *(ROOT / "sandboxes").rglob("*.py")]
    # A message may be split across two literals, with a placeholder between them.
    code = re.sub(r'"\s+f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    documented = TEXTS["docs/how-to/troubleshoot.md"].partition("| It says | Look at |")[2].partition("\n\n")[0]
    sentences = re.findall(r"^\| `([^`]+)`", documented, re.MULTILINE)
    assert len(sentences) > 15
    assert [sentence for sentence in sentences if sentence not in code] == []


@pytest.mark.parametrize("name", TEXTS)
def test_every_named_variable_exists(name: str) -> None:
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", TEXTS[name]))
    assert named - VARIABLES - OTHER_NAMES == set()


@pytest.mark.parametrize("name", TEXTS)
def test_each_bash_block_is_run_by_a_test_or_says_why_not(name: str) -> None:
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
    ("printed", "documented", "is_so"),
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
def test_command_output_is_compared_with_the_documented_output(printed: str, documented: str, *, is_so: bool) -> None:
    assert fits(printed, documented) is is_so


@pytest.mark.parametrize("name", TEXTS)
def test_a_block_that_starts_the_service_has_no_commands_for_a_second_terminal(name: str) -> None:
    # run.sh holds its terminal: what follows it in a block would not run, and no variable reaches another terminal.
    for block in blocks(name):
        before, start, after = block.text.partition("./scripts/run.sh")
        if block.is_run and start:
            where = f"{name}:{block.line}"
            assert not re.search(r"^(curl|kubectl|grep|scripts/smoke\.sh|[A-Z_]+=)", after, re.MULTILINE), where
            assert not re.search(r"^[A-Z_]+=(\$\(.*\)|\S*)$", before, re.MULTILINE), where
