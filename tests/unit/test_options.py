"""The options of a create: permissions, images and env, and all options together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from devcluster import names, pods
from sandboxes.errors import FieldNotAllowed, Unprocessable
from sandboxes.models.requests import OPTIONAL_FIELDS
from sandboxes.settings import Settings
from sandboxes.spec.options import NO_OPTIONS, check_allowed
from tests.unit.manifests import revision_of
from tests.unit.validator import INVALID_KEYS, VALID_KEYS, Validator

MakeSettings = Callable[..., Settings]


# Permissions


def test_without_optional_fields_there_are_no_options(validator: Validator) -> None:
    assert validator() == NO_OPTIONS
    assert validator(**dict.fromkeys(OPTIONAL_FIELDS)) == NO_OPTIONS


def test_all_fields_that_are_not_allowed_are_named(make_settings: MakeSettings) -> None:
    fields = {"sandbox_id": "a", "image": "x", "env": {"A": "b"}, "ttl_seconds": 0, "annotations": {}, "labels": None}
    with pytest.raises(FieldNotAllowed) as caught:
        check_allowed(fields, make_settings(ALLOW_FIELDS="env"))
    assert caught.value.public == "The operator does not allow these fields: annotations, image, ttl_seconds"


# Templates


def test_a_template_is_selected_by_name(validator: Validator) -> None:
    assert validator(template="other").template == "other"
    assert validator.problems(template="../x") == [(["template"], "There is no template of this name")]
    assert validator.locations(template="") == [["template"]]


# Images


def test_a_requested_image_replaces_the_configured_one(validator: Validator) -> None:
    image = "registry.local:5000/team/sandbox:1@sha256:" + "0" * 64
    assert validator.container(image=image)["image"] == image
    assert validator.container()["image"] == validator.settings.sandbox_image


@pytest.mark.parametrize("image", ["", " ", "a b", "a\n", "\ta", "a\0", "bild:ä", "x" * 513])
def test_an_invalid_image_reference_is_rejected(validator: Validator, image: str) -> None:
    assert validator.locations(image=image) == [["image"]]


# Environment


def test_variables_override_those_of_the_template(validator: Validator) -> None:
    validator.template.pod["spec"]["containers"][0]["env"] = [
        {"name": "KEPT", "value": "k"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
    ]
    env = validator.container(env={"SECRET": "mine", "NEW": ""})["env"]
    assert env[:-1] == [
        {"name": "KEPT", "value": "k"},
        {"name": "SECRET", "value": "mine"},
        {"name": "NEW", "value": ""},
    ]
    assert env[-1]["name"] == "SANDBOX_REVISION"


@pytest.mark.parametrize("name", ["A", "_", "-x", ".x", "a.b-c_D9"])
def test_valid_env_names_are_accepted(validator: Validator, name: str) -> None:
    assert validator(env={name: "x"}).env == ((name, "x"),)


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A\n", "Ä", ".", "..", "..a", "A\0", "SANDBOX_REVISION"])
def test_invalid_env_names_are_rejected(validator: Validator, name: str) -> None:
    assert validator.locations(env={"GOOD": "x", name: "x"}) == [["env", name]]


def test_an_env_value_may_be_any_text_without_nul(validator: Validator) -> None:
    text = "line\nline\ttab \x01 ä 漢 🙂 \"'`$(X) ${X} %s"
    assert validator(env={"A": text}).env == (("A", text),)
    assert validator.problems(env={"A": "x\0"}) == [(["env", "A"], "A variable can't contain a NUL")]


@pytest.mark.parametrize(("text", "most"), [("x", 32), ("ä", 16), ("<", 5), ("\x01", 5), ("\n", 16)])
def test_env_is_limited_to_32_kib_as_kubectl_encodes_it(validator: Validator, text: str, most: int) -> None:
    assert validator(env={"A": text * (most * 1024 - 50)})
    assert validator.locations(env={"A": text * (most + 1) * 1024}) == [["env"]]


def test_env_may_have_100_variables(validator: Validator) -> None:
    assert len(validator(env={f"A{index}": "" for index in range(100)}).env) == 100


def expanded(value: str, variables: dict[str, str]) -> str:
    """Return a variable's value in the process, by Kubernetes' rules (the API reference of `EnvVar.value`).

    $(NAME) is replaced by the variable's value if it exists; $$ by $; any other $ is kept.
    """
    result, rest = "", value
    while rest:
        name, closed, after = rest[2:].partition(")")
        if rest.startswith("$$"):
            result, rest = result + "$", rest[2:]
        elif rest.startswith("$(") and closed:
            result, rest = result + variables.get(name, f"$({name})"), after
        else:
            result, rest = result + rest[0], rest[1:]
    return result


def test_the_expansion_follows_the_rules_of_kubernetes() -> None:
    assert expanded("$(A) $(B) $$(A) $$ $A $", {"A": "x"}) == "x $(B) $(A) $ $A $"


FUNCTION_SCOPED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUNCTION_SCOPED
@given(value=st.text("$()A x", max_size=12))
def test_env_values_arrive_unexpanded(validator: Validator, value: str) -> None:
    env = validator.container(env={"A": "another's", "B": value})["env"]
    assert expanded(env[1]["value"], {"A": "another's"}) == value


def test_each_option_changes_the_revision(
    validator: Validator,
) -> None:
    others: list[dict[str, Any]] = [
        {},
        {"image": "x"},
        {"env": {"A": "b"}},
        {"resources": {"limits": {"cpu": "2"}}},
        {"labels": {"team": "x"}},
        {"annotations": {"note": "y"}},
    ]
    assert len({revision_of(validator.built(**fields)[0]) for fields in others}) == len(others)


# Combinations


def test_all_problems_of_a_request_are_reported_together(validator: Validator) -> None:
    assert validator.locations(
        image="a b", env={"1": "", "2": ""}, resources={"limits": {"x": "1"}}, labels={"": ""}, annotations={"app": ""}
    ) == [
        ["image"],
        ["env", "1"],
        ["env", "2"],
        ["resources", "limits", "x"],
        ["labels", ""],
        ["annotations", "app"],
    ]


KEYS = st.sampled_from([*VALID_KEYS, *INVALID_KEYS]) | st.from_regex(r"\A[a-zA-Z0-9._/-]{1,6}\Z") | st.text(max_size=3)
VALUES = st.from_regex(r"\A[-._a-zA-Z0-9]{0,4}\Z") | st.text(max_size=3)
AMOUNTS = st.from_regex(r"\A[0-9]{1,2}(m|[KMG]i?|e[0-3])?\Z") | st.from_regex(r"\A[0-9.]{1,3}[eEinumkKMGTP]{0,2}\Z")
RESOURCES = st.dictionaries(st.sampled_from(["cpu", "memory", "ephemeral-storage"]), AMOUNTS, max_size=2)
# One field at a time: an invalid one hides the others.
FIELDS = st.one_of(
    st.fixed_dictionaries({"image": st.text(max_size=4)}),
    st.fixed_dictionaries({"env": st.dictionaries(VALUES, st.text(max_size=4), max_size=1)}),
    st.fixed_dictionaries({"resources": st.fixed_dictionaries({"requests": RESOURCES, "limits": RESOURCES})}),
    st.fixed_dictionaries({"labels": st.dictionaries(KEYS, VALUES, max_size=1)}),
    st.fixed_dictionaries({"annotations": st.dictionaries(KEYS, st.text(max_size=4), max_size=1)}),
)


@settings(FUNCTION_SCOPED, max_examples=settings().max_examples * 3)
@given(fields=FIELDS)
def test_accepted_options_are_accepted_by_devcluster(validator: Validator, fields: dict[str, Any]) -> None:
    try:
        pod, service = validator.built(**fields)
    except Unprocessable:
        event("refused here")
        return
    event("accepted here")
    pods.fill_in(pod)
    assert pods.causes(pod) == []
    assert names.metadata_causes(pod, name_is_label=False) == []
    assert names.metadata_causes(service, name_is_label=True) == []
