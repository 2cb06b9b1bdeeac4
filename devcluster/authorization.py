"""Role-based access of the kubeconfig's only user: everything, unless a test restricts it.

The user is an administrator, or a service account once restricted. Refusals have the recorded text (`get-forbidden`,
`apply-forbidden`). Knows the rules of a Role, but no HTTP.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

from devcluster.errors import ApiError, bad_request
from devcluster.objects import Json
from devcluster.resources import Resource

USER = "system:serviceaccount:devcluster:restricted"

# The rules that a review lists for all authenticated users, for administrators and for service accounts
# (`rules-review-admin`, `rules-review-no-role`).
_EVERYBODYS: list[Json] = [
    {
        "verbs": ["create"],
        "apiGroups": ["authorization.k8s.io"],
        "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
    },
    {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
]
_ADMINISTRATORS: list[Json] = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
_EVERYBODYS_URLS: list[Json] = [
    {"verbs": ["get"], "nonResourceURLs": urls}
    for urls in (
        ["/.well-known", "/.well-known/*"],
        [
            *("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*"),
            *("/readyz", "/version", "/version/"),
        ],
        ["/healthz", "/livez", "/readyz", "/version", "/version/"],
    )
]
_ADMINISTRATORS_URLS: list[Json] = [{"verbs": ["*"], "nonResourceURLs": ["*"]}]
_SERVICE_ACCOUNTS_URLS: list[Json] = [
    {
        "verbs": ["get"],
        "nonResourceURLs": [
            *("/.well-known/openid-configuration", "/.well-known/openid-configuration/"),
            *("/openid/v1/jwks", "/openid/v1/jwks/"),
        ],
    }
]
# From the API server's source (webhook.go, RulesFor), not in the record.
_BY_WEBHOOK = "webhook authorizer does not support user rule resolution"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One verb on one resource or subresource (`pods/log`)."""

    verb: str
    group: str
    resource: str


def rights_of(rules: Iterable[Json]) -> frozenset[Right]:
    """Return the single rights of a Role's rules. Wildcards and resource names are not supported."""
    return frozenset(
        Right(verb, group, resource)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


class Authorization:
    """Grants or refuses rights. `used`: rights that requests have used; `refused`: those that they lacked."""

    def __init__(self) -> None:
        self._namespace: str | None = None
        self._granted: frozenset[Right] = frozenset()
        self._rules: list[Json] = []
        self._has_webhook = False
        self.used: set[Right] = set()
        self.refused: set[Right] = set()

    def restrict(self, namespace: str, rules: Iterable[Json] = (), *, by_webhook: Iterable[Json] | None = None) -> None:
        """Allow only these rules of a Role in this namespace from now on. Clears `used` and `refused`.

        `by_webhook`: further rules, of a webhook authorizer. It lists none of them, so reviews become incomplete.
        """
        self._namespace = namespace
        self._rules = list(rules)
        self._has_webhook = by_webhook is not None
        self._granted = rights_of([*self._rules, *(by_webhook or ())])
        self.used.clear()
        self.refused.clear()

    def allows(self, right: Right, namespace: str) -> bool:
        """Return whether the right is granted in the namespace; an empty one means the whole cluster."""
        return self._namespace is None or (namespace == self._namespace and right in self._granted)

    def require(self, verb: str, resource: Resource, namespace: str, name: str = "", subresource: str = "") -> None:
        """Raise Forbidden without the right (`get-half-forbidden`). Reviews need none (`can-i-list`)."""
        if not resource.stored:
            return
        plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
        right = Right(verb, resource.group, plural)
        if self.allows(right, namespace):
            self.used.add(right)
            return
        self.refused.add(right)
        noun = f'{resource.qualified} "{name}"' if name else resource.qualified
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = f'User "{USER}" cannot {verb} resource "{plural}" in API group "{resource.group}" {where}'
        details: Json = {"name": name} if name else {}
        if resource.group:
            details["group"] = resource.group
        raise ApiError(
            HTTPStatus.FORBIDDEN, "Forbidden", f"{noun} is forbidden: {why}", {**details, "kind": resource.plural}
        )

    def require_impersonation(self, user: str) -> None:
        """Raise Forbidden if a restricted user impersonates another, which no namespaced Role can allow."""
        if user and self._namespace is not None:
            why = f'User "{USER}" cannot impersonate resource "users" in API group "" at the cluster scope'
            message = f'users "{user}" is forbidden: {why}'
            raise ApiError(HTTPStatus.FORBIDDEN, "Forbidden", message, {"name": user, "kind": "users"})

    def access_review(self, spec: Json) -> Json:
        """Return the status of a SelfSubjectAccessReview."""
        asked = spec.get("resourceAttributes")
        if not isinstance(asked, dict):
            return {"allowed": True}
        plural = "/".join(part for part in (asked.get("resource", ""), asked.get("subresource", "")) if part)
        right = Right(asked.get("verb", ""), asked.get("group", ""), plural)
        return {"allowed": self.allows(right, asked.get("namespace", ""))}

    def rules_review(self, spec: Json) -> Json:
        """Return the status of a SelfSubjectRulesReview. Raises BadRequest without a namespace.

        Rules are listed as the Role has them (`rules-review-role`). Another namespace, even if it does not exist, has
        only the rules of all authenticated users (`rules-review-other-namespace`).
        """
        if not spec.get("namespace"):
            raise bad_request("no namespace on request")
        if self._namespace is None:
            rules, urls = [*_ADMINISTRATORS, *_EVERYBODYS], [*_ADMINISTRATORS_URLS, *_EVERYBODYS_URLS]
        else:
            own = self._rules if spec["namespace"] == self._namespace else []
            rules, urls = [*_EVERYBODYS, *own], [*_EVERYBODYS_URLS, *_SERVICE_ACCOUNTS_URLS]
        status: Json = {"resourceRules": rules, "nonResourceRules": urls, "incomplete": self._has_webhook}
        return {**status, "evaluationError": _BY_WEBHOOK} if self._has_webhook else status
