"""Lists the rights that the service needs, and finds them in a self-subject rules review. Pure.

A review returns all rules of the caller in a namespace, in one call, and needs no right itself (record:
rules-review-no-role). A right that it shows is granted; one that it lacks is missing only if the review is complete.
Format: https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/self-subject-rules-review-v1/
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from sandboxes import objects as kube
from sandboxes.kubectl.output import unreadable
from sandboxes.spec.options import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

_WITHOUT_PATCH = (
    "sandboxes are made by `kubectl create`: renewals, touches, idle timeouts and adoptions are refused, and a sandbox "
    "that another process has half made is 503 until it is complete or reaped"
)

_WITHOUT_SERVICES = (
    "sandboxes that were made with a Service are not deleted whole, and not completed where their Service is missing"
)


@dataclass(frozen=True)
class Wanted:
    """Verbs on a resource. `needed`: no sandbox can be created without them; `loss`: what fails without `optional`."""

    needed: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    loss: str = ""

    @property
    def verbs(self) -> tuple[str, ...]:
        """All verbs, sorted."""
        return tuple(sorted({*self.needed, *self.optional}))


# What only diagnostics need.
_DIAGNOSTICS = {
    "events": Wanted(
        optional=("list",), loss="diagnostics have no Events, and waits do not end early if a volume fails"
    ),
    "pods/log": Wanted(optional=("get",), loss="diagnostics have no logs"),
}

_API_VERSION = "authorization.k8s.io/v1"
_KIND = "SelfSubjectRulesReview"

# Arguments of kubectl that request a review; the request is read from stdin.
REVIEW = ("create", "--raw", f"/apis/{_API_VERSION}/selfsubjectrulesreviews", "-f", "-")


def rights_wanted(templates: Mapping[str, Template], settings: Settings) -> dict[str, Wanted]:
    """Return what this configuration uses in the namespace, by resource."""
    basic = ("create", "delete", "get", "list", *(("watch",) if settings.live_view else ()))
    # The settings demand what only a patch can write. With several clusters it is the mark that a sandbox was returned.
    needs_patch = bool(settings.sandbox_idle_timeout) or settings.clusters_file is not None
    sandboxes = Wanted((*basic, "patch")) if needs_patch else Wanted(basic, ("patch",), _WITHOUT_PATCH)
    wanted = {"pods": sandboxes, "services": sandboxes if settings.access != "gateway" else _services_unmade(basic)}
    # Leftovers of templates are listed in one call for all kinds that a template may have.
    for _, kind in sorted(kube.EXTRA_KINDS):
        wanted[kube.RESOURCES[kind]] = _wanted_of_extra(kind, templates)
    if settings.sandbox_network_policy == "isolated":
        resource = kube.RESOURCES["NetworkPolicy"]
        extra = wanted[resource]
        needed = {*extra.needed, "create", "patch"}
        optional = tuple(verb for verb in extra.optional if verb not in needed)
        wanted[resource] = Wanted(tuple(sorted(needed)), optional, extra.loss)
    if settings.clusters_file is not None:
        resource = kube.RESOURCES["ConfigMap"]
        wanted[resource] = _with_directory(wanted[resource], settings)
    return wanted | _DIAGNOSTICS


def _services_unmade(basic: tuple[str, ...]) -> Wanted:
    """Return what is wanted on Services where new sandboxes have none: they are read, since existing ones may."""
    made = ("create", "delete", "patch")
    return Wanted(tuple(verb for verb in basic if verb not in made), made, _WITHOUT_SERVICES)


def _with_directory(extra: Wanted, settings: Settings) -> Wanted:
    """Return what is wanted of ConfigMaps if the directory of several clusters is in them, too."""
    needed = tuple(sorted({*extra.needed, "create", "delete", "get", "list", "update"}))
    optional = tuple(
        verb for verb in (*extra.optional, *(("watch",) if settings.live_view else ())) if verb not in needed
    )
    losses = [extra.loss] if "patch" in optional else []
    if "watch" in optional:
        losses.append("the first read of each sandbox asks the cluster")
    return Wanted(needed, optional, "; ".join(losses))


def _wanted_of_extra(kind: str, templates: Mapping[str, Template]) -> Wanted:
    every = ("create", "delete", "get", "list", "patch")
    names = sorted(name for name, one in templates.items() if kind in {extra["kind"] for extra in one.extras})
    if DEFAULT_TEMPLATE in names:
        return Wanted(every)
    leftovers = "leftovers of templates stay"
    if not names:
        return Wanted(optional=("list",), loss=leftovers)
    return Wanted(optional=every, loss=f"the template {', '.join(names)} can't be used, and {leftovers}")


class _Parsed(BaseModel):
    """A part of a review, with the API's field names."""

    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class ResourceRule(_Parsed):
    """Verbs on resources; with `resource_names`, only on objects of these names."""

    verbs: tuple[str, ...]
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()

    def grants(self, verb: str, resource: str) -> bool:
        """Whether the rule grants the verb on all objects of the resource, `plural[.group][/subresource]`.

        Like RBAC (kubernetes, evaluation_helpers.go): `*` matches all resources and subresources, `*/log` that
        subresource of all resources, and `pods/*` nothing.
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
    """The response to a self-subject rules review."""

    kind: Literal["SelfSubjectRulesReview"]
    status: _Status

    @property
    def is_complete(self) -> bool:
        """Whether the review lists all rules. After an evaluation error some may be missing, as the API documents."""
        return not self.status.incomplete and not self.status.evaluation_error

    def shows(self, verb: str, resource: str) -> bool:
        """Whether one of the rules grants the verb on the resource; see ResourceRule.grants."""
        return any(rule.grants(verb, resource) for rule in self.status.resource_rules)


# Used if the cluster does not answer the review.
NO_REVIEW = RulesReview(kind=_KIND, status=_Status(resourceRules=(), incomplete=True))


def review_request(namespace: str) -> bytes:
    """Return the request for the rules in a namespace, as JSON for the stdin of REVIEW."""
    return json.dumps({"apiVersion": _API_VERSION, "kind": _KIND, "spec": {"namespace": namespace}}).encode()


def read_review(stdout: bytes) -> RulesReview:
    """Parse a review that kubectl printed (record: rules-review-role). Raises ClusterUnavailable if it is malformed."""
    try:
        return RulesReview.model_validate_json(stdout)
    except ValidationError as error:
        raise unreadable("a review of rules", stdout) from error
