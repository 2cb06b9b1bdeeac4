"""The options `labels` and `annotations` of a create: validation, and where they are set."""

from __future__ import annotations

import pytest

from sandboxes.spec.manifests import without_news
from tests.unit.validator import INVALID_KEYS, VALID_KEYS, Validator


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


def test_an_existing_pod_gets_no_new_labels_and_annotations(validator: Validator) -> None:
    existing, _ = validator.built(labels={"team": "x", "old": "o"}, annotations={"note": "y"})
    fields = {"labels": {"team": "x", "old": "n", "new": "n"}, "annotations": {"note": "z"}}
    pod, service = (without_news(obj, validator(**fields), existing) for obj in validator.built(**fields))
    assert service["metadata"]["labels"] == {**validator.built()[1]["metadata"]["labels"], "team": "x"}
    assert pod["metadata"]["annotations"] == validator.built()[0]["metadata"]["annotations"]
