"""The rights that a self-subject rules review shows, by recorded reviews and by RBAC's rules."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sandboxes.errors import ClusterUnavailable
from sandboxes.ops.rights import NO_REVIEW, REVIEW, RulesReview, read_review, review_request, rights_wanted
from sandboxes.settings import Settings
from sandboxes.spec.templates import Template
from tests.record import case, case_names

VERBS = ("create", "delete", "get", "list", "patch", "watch")
RESOURCES = ("pods", "services", "pods/log", "events", "configmaps", "networkpolicies.networking.k8s.io")
REVIEWS = [name for name in case_names() if name.startswith("rules-review-")]


def review(*rules: dict[str, Any], **status: Any) -> RulesReview:
    """Return a review in the API server's form, with these rules."""
    answer = json.loads(json.dumps(case("rules-review-no-role").stdout))
    answer["status"] |= {"resourceRules": list(rules), **status}
    return read_review(json.dumps(answer).encode())


def recorded(name: str) -> RulesReview:
    return read_review(json.dumps(case(name).stdout).encode())


def shown(of: RulesReview) -> set[tuple[str, str]]:
    return {(verb, resource) for verb in VERBS for resource in RESOURCES if of.shows(verb, resource)}


@pytest.mark.parametrize("name", REVIEWS)
def test_a_rules_review_is_requested_as_recorded(name: str) -> None:
    namespace = case(name).stdin["spec"].get("namespace")
    assert ("kubectl", *REVIEW) == case(name).argv
    assert namespace is None or json.loads(review_request(namespace)) == case(name).stdin


def test_the_review_of_the_role_shows_exactly_its_rights() -> None:
    of_role = {(verb, resource) for verb in VERBS for resource in ("pods", "services")}
    assert shown(recorded("rules-review-role")) == {*of_role, ("get", "pods/log"), ("list", "events")}


def test_the_review_of_an_administrator_shows_every_right() -> None:
    assert shown(recorded("rules-review-admin")) == {(verb, resource) for verb in VERBS for resource in RESOURCES}


@pytest.mark.parametrize("name", ["rules-review-no-role", "rules-review-other-namespace"])
def test_a_review_without_a_role_shows_no_right(name: str) -> None:
    assert shown(recorded(name)) == set()
    assert recorded(name).is_complete


RULE = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}


@pytest.mark.parametrize(
    ("resources", "asked", "is_shown"),
    [
        (["pods"], "pods", True),
        (["services", "pods"], "pods", True),
        (["pods"], "pods/log", False),
        (["pods/log"], "pods/log", True),
        (["pods/log"], "pods", False),
        (["*"], "pods", True),
        (["*"], "pods/log", True),
        (["*/log"], "pods/log", True),
        (["*/log"], "pods", False),
        (["*/exec"], "pods/log", False),
        (["pods/*"], "pods", False),
        (["pods/*"], "pods/log", False),  # as in RBAC
        (["pod"], "pods", False),
        ([], "pods", False),
    ],
)
def test_resources_match_as_in_rbac(resources: list[str], asked: str, *, is_shown: bool) -> None:
    assert review({**RULE, "resources": resources}).shows("get", asked) is is_shown


@pytest.mark.parametrize(
    ("groups", "asked", "is_shown"),
    [
        ([""], "pods", True),
        (["*"], "pods", True),
        (["apps"], "pods", False),
        ([""], "networkpolicies.networking.k8s.io", False),
        (["networking.k8s.io"], "networkpolicies.networking.k8s.io", True),
        (["", "networking.k8s.io"], "networkpolicies.networking.k8s.io", True),
        (["*"], "networkpolicies.networking.k8s.io", True),
        (["extensions"], "networkpolicies.networking.k8s.io", False),
    ],
)
def test_groups_match_as_in_rbac(groups: list[str], asked: str, *, is_shown: bool) -> None:
    rule = {**RULE, "apiGroups": groups, "resources": ["pods", "networkpolicies"]}
    assert review(rule).shows("get", asked) is is_shown


@pytest.mark.parametrize(("verbs", "is_shown"), [(["get"], True), (["list", "*"], True), (["list"], False)])
def test_verbs_match_as_in_rbac(verbs: list[str], *, is_shown: bool) -> None:
    assert review({**RULE, "verbs": verbs}).shows("get", "pods") is is_shown


def test_a_rule_for_resource_names_shows_no_right() -> None:
    of_one = {**RULE, "resourceNames": ["sandbox-a"]}
    assert not review(of_one).shows("get", "pods")
    assert review(of_one, RULE).shows("get", "pods")


def test_a_right_is_not_combined_from_two_rules() -> None:
    other = {**RULE, "verbs": ["list"], "resources": ["services"]}
    assert shown(review(RULE, other)) == {("get", "pods"), ("list", "services")}


@pytest.mark.parametrize("status", [{"incomplete": True}, {"evaluationError": "role not found"}])
def test_an_incomplete_review_is_marked_incomplete(status: dict[str, Any]) -> None:
    assert review(RULE).is_complete
    assert not review(RULE, **status).is_complete
    assert review(RULE, **status).shows("get", "pods")


def test_without_a_review_no_right_is_shown_and_it_is_incomplete() -> None:
    assert shown(NO_REVIEW) == set()
    assert not NO_REVIEW.is_complete


STATUS = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404}
WITHOUT_RULES = {"kind": "SelfSubjectRulesReview", "status": {"incomplete": False}}
OTHER_KIND = {**case("rules-review-admin").stdout, "kind": "SelfSubjectAccessReview"}


@pytest.mark.parametrize(
    "stdout",
    [
        case("rules-review-no-namespace").stdout.encode(),
        json.dumps(case("rules-review-role").stdout).encode()[:-1],
        b"<html>",
        b"null",
        b"[" * 10_000,
        *(json.dumps(other).encode() for other in (STATUS, WITHOUT_RULES, OTHER_KIND)),
    ],
    ids=["nothing", "cut", "html", "null", "deep", "status", "without rules", "other kind"],
)
def test_output_that_is_no_review_is_an_error(stdout: bytes) -> None:
    with pytest.raises(ClusterUnavailable):
        read_review(stdout)


def test_several_clusters_need_the_notes_and_the_right_to_patch(
    monkeypatch: pytest.MonkeyPatch, template: Template
) -> None:
    monkeypatch.setenv("CLUSTERS_FILE", "/clusters.yaml")
    wanted = rights_wanted({"default": template}, Settings.load())
    assert "patch" in wanted["pods"].needed
    assert wanted["configmaps"].needed == ("create", "delete", "get", "list", "update")
    assert wanted["configmaps"].optional == ("watch",)
    assert wanted["configmaps"].loss == "the first read of each sandbox asks the cluster"
    monkeypatch.setenv("LIVE_VIEW", "false")
    assert rights_wanted({"default": template}, Settings.load())["configmaps"].optional == ()


def test_several_clusters_and_a_template_with_a_config_map_need_both_rights(
    monkeypatch: pytest.MonkeyPatch, template: Template
) -> None:
    monkeypatch.setenv("CLUSTERS_FILE", "/clusters.yaml")
    own = dataclasses.replace(template, extras=({"kind": "ConfigMap"},))
    wanted = rights_wanted({"default": template, "own": own}, Settings.load())["configmaps"]
    assert wanted.optional == ("patch", "watch")
    assert wanted.loss.startswith("the template own can't be used")
    assert wanted.loss.endswith("; the first read of each sandbox asks the cluster")
