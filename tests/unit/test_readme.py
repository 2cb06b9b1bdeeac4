"""The README: what is generated stands as the code says, and its links lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Callable

from sandboxes.ops.metrics import FAMILIES
from sandboxes.settings import Settings
from sandboxes.variables import FALLBACKS
from scripts.readme import with_generated, with_map
from tests.conftest import ROOT, VARIABLES

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_configuration_table_is_what_settings_say() -> None:
    assert with_generated(README) == README, "run: python -m scripts.readme"


def test_the_map_of_modules_is_the_modules_own_words() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert with_map(contributing) == contributing, "run: python -m scripts.readme"
    named = set(re.findall(r"`(sandboxes/[\w/]+\.py|tests/[\w/]+\.py|manifests/[\w./-]+)`", contributing))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []
    for name in Settings.model_fields:
        assert f"| `{name.upper()}` |" in README
    for name, fallback in FALLBACKS.items():
        assert f"`{fallback}`" in README.partition(f"| `{name}` |")[2].partition("\n")[0]


def test_each_default_in_the_table_may_be_set_as_it_stands_there(make_settings: Callable[..., Settings]) -> None:
    table = README.partition("<!-- configuration: begin -->")[2].partition("<!-- configuration: end -->")[0]
    defaults = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", table, re.MULTILINE))
    assert defaults.items() >= {"LIVE_VIEW": "true", "REAPER_DRY_RUN": "false", "LIVE_VIEW_MAX_AGE": "60"}.items()
    assert [value for value in defaults.values() if re.search(r"True|False|\d\.0$", value)] == []
    unset = make_settings()
    assert make_settings(**defaults) == unset


def test_the_table_of_metrics_names_each() -> None:
    assert FAMILIES
    for name in FAMILIES:
        assert f"| `{name}` |" in README


def test_every_link_leads_somewhere() -> None:
    for text in (README, *((ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "SECURITY.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("https://") or (ROOT / target).exists(), target


def test_every_script_that_is_named_exists() -> None:
    for text in (README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")):
        for script in re.findall(r"scripts/\w+\.(?:sh|py)", text):
            assert (ROOT / script).exists(), script


def test_the_security_policy_is_found_and_names_only_variables_that_exist() -> None:
    assert "(SECURITY.md)" in README
    policy = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", policy))
    assert named <= VARIABLES


def test_troubleshooting_has_only_sentences_that_the_service_says() -> None:
    sources = [ROOT / "provisioner.py", *(ROOT / "sandboxes").rglob("*.py")]
    # a sentence may stand in two pieces of one literal, and a placeholder in its middle
    code = re.sub(r'"\s+f?"', "", "\n".join(path.read_text(encoding="utf-8") for path in sources))
    table = README.partition("| It says | Look at |")[2].partition("\n\n")[0]
    sentences = re.findall(r"^\| `([^`]+)`", table, re.MULTILINE)
    assert len(sentences) > 15
    assert [sentence for sentence in sentences if sentence not in code] == []


def test_every_variable_that_the_readme_names_exists() -> None:
    known = VARIABLES | {
        "API_KEY", "SANDBOX_URL", "SANDBOX_REVISION", "KUBECONFIG", "PROVISIONER_USER", "SMOKE_TIMEOUT",
        "PYTHON_IMAGE", "APT_MIRROR", "PYPI_MIRROR", "SSL_CERT_FILE", "SSL_CERT_DIR", "LARK_CLI_", "DEERFLOW_LARK_",
        "KUBECTL_KUBERC", "LC_ALL",
    }  # fmt: skip
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", README))
    assert named - known == set()
