"""The rights that the service needs, and which of them a self-subject rules review shows. Pure.

A review lists all rules that a caller has in a namespace, in one call, and needs no right itself (record:
rules-review-no-role). What it shows is granted; what it does not show is missing only if it is complete.
The form: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-rules-review-v1/
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from sandboxes import objects as kube
from sandboxes.kubectl.output import unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

_SANDBOXES = ("create", "delete", "get", "list", "patch", "watch")
_EXTRAS = ("create", "delete", "get", "list", "patch")

# What goes without: verbs by resource, and what is lost.
RIGHTS_WANTED = {
    "events": (("list",), "diagnostics have no Events, and waiting does not give up early at a volume"),
    "pods/log": (("get",), "diagnostics have no logs"),
}

_API_VERSION = "authorization.k8s.io/v1"
_KIND = "SelfSubjectRulesReview"

# What asks for a review, which is read from stdin.
REVIEW = ("create", "--raw", f"/apis/{_API_VERSION}/selfsubjectrulesreviews", "-f", "-")


def rights_needed(templates: Mapping[str, Template], settings: Settings) -> dict[str, tuple[str, ...]]:
    """Return the verbs by resource, in the namespace, without which the service can't do its work."""
    needed: dict[str, tuple[str, ...]] = {"pods": _SANDBOXES, "services": _SANDBOXES}
    kinds = {extra["kind"] for template in templates.values() for extra in template.extras}
    # What templates leave behind is listed in one call for all the kinds that there may be.
    for _, kind in sorted(kube.EXTRA_KINDS):
        needed[kube.RESOURCES[kind]] = _EXTRAS if kind in kinds else ("list",)
    if settings.sandbox_network_policy == "isolated":
        policies = kube.RESOURCES["NetworkPolicy"]
        needed[policies] = tuple(sorted({*needed[policies], "create", "patch"}))
    return needed


class _Parsed(BaseModel):
    """A part of a review, by the API's names."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class ResourceRule(_Parsed):
    """Verbs on resources; with `resource_names`, on the objects of these names alone."""

    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()

    def grants(self, verb: str, resource: str) -> bool:
        """Whether the rule grants the verb on all objects of the resource: `plural[.group][/subresource]`.

        As RBAC decides (kubernetes, evaluation_helpers.go): `*` is all resources with their subresources, `*/log` that
        subresource of all of them, and `pods/*` is nothing.
        """
        name, _, subresource = resource.partition("/")
        plural, _, group = name.partition(".")
        named = {"*", f"{plural}/{subresource}", f"*/{subresource}"} if subresource else {"*", plural}
        return (
            not self.resource_names
            and not {"*", verb}.isdisjoint(self.verbs)
            and not {"*", group}.isdisjoint(self.api_groups)
            and not named.isdisjoint(self.resources)
        )


class _Status(_Parsed):
    resource_rules: tuple[ResourceRule, ...]
    incomplete: bool
    evaluation_error: str = ""


class RulesReview(_Parsed):
    """The answer of a self-subject rules review."""

    kind: Literal["SelfSubjectRulesReview"]
    status: _Status

    @property
    def is_complete(self) -> bool:
        """Whether there are no further rules; of an error the API says that some may be missing."""
        return not self.status.incomplete and not self.status.evaluation_error

    def shows(self, verb: str, resource: str) -> bool:
        """Whether one of the rules grants it."""
        return any(rule.grants(verb, resource) for rule in self.status.resource_rules)


# Of a cluster that answers no review.
NO_REVIEW = RulesReview(kind=_KIND, status=_Status(resourceRules=(), incomplete=True))


def review_request(namespace: str) -> bytes:
    """Return what REVIEW reads to ask for the rules in a namespace."""
    return json.dumps({"apiVersion": _API_VERSION, "kind": _KIND, "spec": {"namespace": namespace}}).encode()


def read_review(stdout: bytes) -> RulesReview:
    """Return the review that kubectl printed (record: rules-review-role); raises ClusterUnavailable if it is none."""
    try:
        return RulesReview.model_validate_json(stdout)
    except ValidationError as error:
        raise unreadable("a review of rules", stdout) from error
