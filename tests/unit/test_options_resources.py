"""The option `resources` of a create: validation, and the resulting requests and limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sandboxes.settings import Settings
from sandboxes.spec.options import CreateOptions
from sandboxes.spec.templates import Template
from tests.unit.validator import ALL, Validator

MakeSettings = Callable[..., Settings]


def test_resources_override_those_of_the_template(validator: Validator) -> None:
    resources = {"requests": {"cpu": "250m"}, "limits": {"memory": "2Gi", "cpu": 2}}
    assert validator.container(resources=resources)["resources"] == {
        "requests": {"cpu": "250m", "memory": "256Mi", "ephemeral-storage": "500Mi"},
        "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "500Mi"},
    }


def test_a_template_without_resources_gets_only_the_requested_ones(validator: Validator) -> None:
    del validator.template.pod["spec"]["containers"][0]["resources"]
    assert validator.container(resources={"requests": {"cpu": 0.5}})["resources"] == {"requests": {"cpu": "0.5"}}
    assert "resources" not in validator.container(resources={"requests": None, "limits": {}})


def test_a_limit_lowers_a_higher_request_of_the_template(validator: Validator) -> None:
    validator.set_template(requests={"cpu": "1", "memory": "1Gi"}, limits={"cpu": "2"})
    assert validator.container(resources={"limits": {"cpu": "0.5", "memory": "1024Mi"}})["resources"] == {
        "requests": {"cpu": "0.5", "memory": "1Gi"},
        "limits": {"cpu": "0.5", "memory": "1024Mi"},
    }


def test_a_request_above_the_resulting_limit_is_rejected(validator: Validator) -> None:
    sentence = "The request must be at most the limit, which is "
    location = ["resources", "requests", "cpu"]
    validator.set_template(limits={"cpu": "1"})
    assert validator.problems(resources={"requests": {"cpu": "1001m"}}) == [(location, sentence + "1")]
    both = {"requests": {"cpu": "2"}, "limits": {"cpu": "1999m"}}
    assert validator.problems(resources=both) == [(location, sentence + "1999m")]
    assert validator(resources={"requests": {"cpu": "1000m"}}).requests == (("cpu", "1000m"),)


def test_invalid_resources_of_a_template_do_not_reject_a_request(validator: Validator) -> None:
    validator.set_template(requests={"cpu": "a lot"}, limits={"memory": "none"})
    asked = {"requests": {"memory": "1Gi"}, "limits": {"cpu": "1"}}
    assert validator(resources=asked) == CreateOptions(requests=(("memory", "1Gi"),), limits=(("cpu", "1"),))


@pytest.mark.parametrize("kind", ["requests", "limits"])
@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("cpu", "2001m"),
        ("cpu", "0"),
        ("cpu", "-1"),
        ("cpu", "1 core"),
        ("cpu", "1e999"),
        ("memory", "5Gi"),
        ("memory", "0.0Gi"),
        ("memory", "8Ei"),
        ("memory", "1e19"),
        ("ephemeral-storage", "10241Mi"),
        ("ephemeral-storage", ""),
        ("nvidia.com/gpu", "1"),
        ("hugepages-2Mi", "1"),
        ("CPU", "1"),
        ("", "1"),
    ],
)
def test_invalid_or_excessive_amounts_are_rejected(validator: Validator, kind: str, name: str, amount: str) -> None:
    assert validator.locations(resources={kind: {name: amount}}) == [["resources", kind, name]]


def test_amounts_up_to_the_operators_limit_are_accepted(make_settings: MakeSettings, template: Template) -> None:
    validator = Validator(make_settings, template)
    most = {"cpu": "2000m", "memory": "4096Mi", "ephemeral-storage": "10Gi"}
    assert dict(validator(resources={"limits": most}).limits) == most
    validator.settings = make_settings(ALLOW_FIELDS=ALL, MAX_CPU="500m")
    assert validator.problems(resources={"limits": {"cpu": "501m"}}) == [
        (["resources", "limits", "cpu"], "The amount must be at most 500m, which is the operator's limit")
    ]
