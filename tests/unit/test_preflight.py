"""The check of the templates at the start: each is tried, and each one that is refused is named."""

from __future__ import annotations

import copy
import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sandboxes import errors
from sandboxes.deadlines import Deadlines
from sandboxes.errors import StartupError
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.process import Completed
from sandboxes.ops.preflight import AT_ONCE, check_cluster
from sandboxes.settings import Settings
from sandboxes.spec.templates import Template
from tests.fakes import FakeCluster
from tests.record import case


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (errors.ConnectionFailed, errors.ServerFailed, errors.ServiceAccountMissing):
        monkeypatch.setattr(error, "pauses", ())


class Start:
    """Starts with templates that the cluster refuses as in the record: {template: case}."""

    def __init__(self, template: Template, settings: Settings, deadlines: Deadlines) -> None:
        self._template = template
        self._settings = settings
        self._deadlines = deadlines
        self.tried: list[list[str]] = []
        # Whether a message about several templates names the Pod of the refused one.
        self.is_named = False

    async def __call__(self, **refusals: str | None) -> None:
        """Check the cluster. A template without a refusal is accepted."""
        templates = {}
        for name in refusals:
            pod = copy.deepcopy(self._template.pod)
            pod["metadata"].setdefault("annotations", {})["name"] = name
            templates[name] = Template(pod, self._template.service)
        cluster = FakeCluster()

        async def runner(args: Sequence[str], *, stdin: bytes | None) -> Completed:
            if "--dry-run=server" not in args:
                return await cluster(args, stdin=stdin)
            assert stdin is not None
            pods = [one for one in json.loads(stdin)["items"] if one["kind"] == "Pod"]
            names = [pod["metadata"]["annotations"]["name"] for pod in pods]
            self.tried.append(names)
            refusal = next(filter(None, (refusals[name] for name in names)), None)
            if refusal is None:
                return await cluster(args, stdin=stdin)
            stderr = case(refusal).stderr
            if self.is_named and len(names) > 1:
                refused = next(pod for pod in pods if refusals[pod["metadata"]["annotations"]["name"]] is not None)
                stderr = re.sub(r'pods "[^"]+"', f'pods "{refused["metadata"]["name"]}"', stderr)
            return Completed(1, b"", stderr)

        kubectl = Kubectl(runner, max_processes=2, max_waiting=100)
        await check_cluster(kubectl, templates, self._settings, self._deadlines)


@pytest.fixture
def start(template: Template, make_settings: Callable[..., Settings], deadlines: Deadlines) -> Start:
    return Start(template, make_settings(), deadlines)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage().splitlines()[0] for record in caplog.records if record.levelno == logging.WARNING]


async def test_the_start_names_every_template_that_breaks_the_schema(start: Start) -> None:
    with pytest.raises(StartupError) as caught:
        await start(one="apply-env-twice", two=None, three="apply-unknown-field-ignored", four="apply-limit-range")
    said = str(caught.value)
    assert 'The sandbox has name="A" twice in spec.containers[name="sandbox"].env. Its name is one.' in said
    assert ".imagePulPolicy of the sandbox. Its name is three." in said
    assert "Its name is two" not in said
    assert "Its name is four" not in said


@pytest.mark.parametrize(
    "refusal",
    ["apply-service-account-missing", "apply-right-after-namespace", "apply-quota-exceeded", "refused", "server-hangs"],
)
async def test_no_refusal_of_a_template_spares_the_later_ones_their_check(
    start: Start, caplog: pytest.LogCaptureFixture, refusal: str
) -> None:
    names: dict[str, Any] = {f"t{number}": None for number in range(AT_ONCE + 1)}
    with pytest.raises(StartupError, match="Its name is last"):
        await start(first=refusal, **names, last="apply-wrong-type-map")
    assert {names[0] for names in start.tried if len(names) == 1} >= {"first", "last"}
    assert {name for names in start.tried for name in names} == {"first", "last", *names}
    assert len(warnings(caplog)) == 1


async def test_each_template_that_is_refused_for_now_has_its_warning(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    await start(one="apply-service-account-missing", two="apply-priority-class-missing", three=None)
    refused = "The cluster refuses the template {} at the moment: There is no {}, which the template asks for"
    assert sorted(warnings(caplog)) == sorted(
        [
            refused.format("one", "service account no-such-account"),
            refused.format("two", "PriorityClass no-such-class"),
        ]
    )


async def test_a_cluster_that_is_down_is_told_once_for_all_templates(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    await start(one="refused", two="refused", three="refused")
    assert warnings(caplog) == ["The cluster can't be reached. Serving anyway: requests get 503 until it can."]


async def test_templates_that_are_accepted_are_tried_together(start: Start) -> None:
    await start(one=None, two=None, three=None)
    assert start.tried == [["one", "two", "three"]]


async def test_only_a_template_that_a_common_dry_run_names_as_refused_is_tried_alone(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    start.is_named = True
    await start(one=None, two="apply-quota-exceeded", three=None)
    assert start.tried == [["one", "two", "three"], ["two"]]
    assert len(warnings(caplog)) == 1


async def test_all_templates_are_tried_alone_where_a_common_dry_run_names_none(start: Start) -> None:
    await start(one=None, two="apply-quota-exceeded", three=None)
    assert start.tried[0] == ["one", "two", "three"]
    assert sorted(start.tried[1:]) == [["one"], ["three"], ["two"]]
