"""The options of a create: permissions, validation, and the resulting objects."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from devcluster import names, pods
from sandboxes.errors import FieldNotAllowed, Unprocessable
from sandboxes.models.requests import OPTIONAL_FIELDS, CreateRequest
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build, revision_of, without_news
from sandboxes.spec.options import DEFAULT_TEMPLATE, NO_OPTIONS, CreateOptions, Sandbox, check_allowed, validate
from sandboxes.spec.templates import Template

MakeSettings = Callable[..., Settings]
AT = "2026-01-01T00:00:00.000000Z"
ALL = ",".join(sorted(OPTIONAL_FIELDS))


class Validator:
    """Validates requests and builds their objects; every field is allowed."""

    def __init__(self, make_settings: MakeSettings, template: Template) -> None:
        self.settings = make_settings(ALLOW_FIELDS=ALL)
        self.template = Template(copy.deepcopy(template.pod), copy.deepcopy(template.service))

    def __call__(self, **fields: Any) -> CreateOptions:
        request = CreateRequest.model_validate({"sandbox_id": "a", **fields})
        return validate(request, {DEFAULT_TEMPLATE: self.template, "other": self.template}, self.settings).asks

    def problems(self, **fields: Any) -> list[tuple[list[Any], str]]:
        """Return `loc` without its `body`, and `msg`, of each invalid field."""
        with pytest.raises(Unprocessable) as caught:
            self(**fields)
        assert all(field["loc"][0] == "body" for field in caught.value.fields)
        return [(field["loc"][1:], field["msg"]) for field in caught.value.fields]

    def locations(self, **fields: Any) -> list[list[Any]]:
        return [loc for loc, _ in self.problems(**fields)]

    def built(self, **fields: Any) -> tuple[Any, Any]:
        """Return the Pod and the Service of the request."""
        pod, service = build(Sandbox("a", "t", "u", asks=self(**fields)), self.template, self.settings, applied_at=AT)
        return pod, service

    def container(self, **fields: Any) -> Any:
        return self.built(**fields)[0]["spec"]["containers"][0]

    def set_template(self, **resources: dict[str, str]) -> None:
        self.template.pod["spec"]["containers"][0]["resources"] = resources


@pytest.fixture
def validator(make_settings: MakeSettings, template: Template) -> Validator:
    return Validator(make_settings, template)


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


# Resources


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


# Labels and annotations

VALID_KEYS = [
    "team",
    "A",
    "a-b_c.d9",
    "example.com/team",
    "a.b-c.d/X",
    "x" * 63,
    "notkubernetes.io/x",
    "kubernetes.io.x/y",
]
INVALID_KEYS = [
    *("", "-a", "a-", ".a", "a b", "a\n", "ä", "x" * 64, "/a", "a/", "a/b/c", "Example.com/a", "a_b/c", "-a/b"),
    "x" * 254 + "/a",
    # of the service
    *("app", "sandbox-id", "app.kubernetes.io/name", "app.kubernetes.io/managed-by"),
    *("provisioner/thread-id", "provisioner/anything"),
    # of Kubernetes
    *("kubernetes.io/x", "k8s.io/x", "topology.kubernetes.io/zone", "node.k8s.io/x", "app.kubernetes.io/version"),
]


@pytest.mark.parametrize("field", ["labels", "annotations"])
@pytest.mark.parametrize("key", VALID_KEYS)
def test_valid_label_and_annotation_keys_are_accepted(validator: Validator, field: str, key: str) -> None:
    assert getattr(validator(**{field: {key: "x"}}), field) == ((key, "x"),)


@pytest.mark.parametrize("field", ["labels", "annotations"])
@pytest.mark.parametrize("key", INVALID_KEYS)
def test_invalid_and_reserved_label_and_annotation_keys_are_rejected(
    validator: Validator, field: str, key: str
) -> None:
    assert validator.locations(**{field: {"good": "x", key: "x"}}) == [[field, key]]


@pytest.mark.parametrize("value", ["-a", "a-", "a b", "a/b", "ä", "a\n", "x" * 64])
def test_invalid_label_values_are_rejected_but_valid_in_annotations(validator: Validator, value: str) -> None:
    assert validator.locations(labels={"team": value}) == [["labels", "team"]]
    assert validator(annotations={"team": value}).annotations == (("team", value),)


def test_a_label_may_be_empty(validator: Validator) -> None:
    assert validator(labels={"team": ""}).labels == (("team", ""),)


def test_labels_and_annotations_of_the_template_cannot_be_overridden(validator: Validator) -> None:
    validator.template.pod["metadata"].update(annotations={"inject": "false"})
    validator.template.pod["metadata"]["labels"]["tier"] = "agents"
    validator.template.service["metadata"]["labels"]["exposed"] = "no"
    taken = "The template sets this key"
    assert validator.problems(labels={"tier": "x"}) == [(["labels", "tier"], taken)]
    assert validator.problems(labels={"exposed": "yes"}) == [(["labels", "exposed"], taken)]
    assert validator.problems(annotations={"inject": "true"}) == [(["annotations", "inject"], taken)]
    assert validator(labels={"tier": "agents"}, annotations={"inject": "false"})


def test_annotations_are_limited_to_32_kib(validator: Validator) -> None:
    assert validator(annotations={"a": "x" * (32 * 1024 - 50)})
    assert validator.locations(annotations={"a": "x" * 32 * 1024}) == [["annotations"]]


def test_labels_are_set_on_pod_and_service_and_annotations_on_the_pod_only(validator: Validator) -> None:
    plain_pod, plain_service = validator.built()
    pod, service = validator.built(labels={"team": "x"}, annotations={"note": "any text"})
    assert pod["metadata"]["labels"] == {**plain_pod["metadata"]["labels"], "team": "x"}
    assert pod["metadata"]["annotations"] == {**plain_pod["metadata"]["annotations"], "note": "any text"}
    assert service["metadata"]["labels"] == {**plain_service["metadata"]["labels"], "team": "x"}
    assert service["metadata"]["annotations"] == plain_service["metadata"]["annotations"]
    assert service["spec"] == plain_service["spec"]
    for one in (pod, plain_pod):
        del one["spec"]["containers"][0]["env"]  # the revision
    assert pod["spec"] == plain_pod["spec"]


def test_labels_that_the_service_selects_by_are_rejected(validator: Validator) -> None:
    _, service = validator.built()
    for key in service["spec"]["selector"]:
        assert validator.locations(labels={key: "another"}) == [["labels", key]]


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


def test_an_existing_pod_gets_no_new_labels_and_annotations(validator: Validator) -> None:
    existing, _ = validator.built(labels={"team": "x", "old": "o"}, annotations={"note": "y"})
    fields = {"labels": {"team": "x", "old": "n", "new": "n"}, "annotations": {"note": "z"}}
    pod, service = (without_news(obj, validator(**fields), existing) for obj in validator.built(**fields))
    assert service["metadata"]["labels"] == {**validator.built()[1]["metadata"]["labels"], "team": "x"}
    assert pod["metadata"]["annotations"] == validator.built()[0]["metadata"]["annotations"]


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
