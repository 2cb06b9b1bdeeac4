"""The table that maps a message of kubectl to an exception of `errors.py`.

The table is tested against every case of the record (`tests/recorded/kubectl`). The sentence of a rule is for callers:
it may name a field, a right or a webhook, but never repeats kubectl's text, a path or an address.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandboxes.errors import (
    AlreadyThere,
    ApplyConflict,
    ClusterRefused,
    ClusterTimeout,
    ClusterUnavailable,
    ConnectionFailed,
    LimitReached,
    LogMissing,
    NamespaceMissing,
    PatchForbidden,
    PreconditionFailed,
    ProvisionerError,
    ServerFailed,
    ServiceAccountMissing,
    TemplateRefused,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# kubectl's message about credentials that the API server rejected.
UNAUTHORIZED = re.compile(r"\(Unauthorized\)|provide credentials|remote error: tls:")

# For kubectl's messages about its own configuration (see withheld.is_about_configuration).
KUBECONFIG_UNUSABLE = "The provisioner's kubeconfig can't be used"

# Object field → fields of a create request that may have set it. The first that the caller set is blamed; if the caller
# set none, the operator's template or settings are. The first matching pattern counts.
REQUEST_FIELDS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"metadata\.name"), ("sandbox_id",)),
    (re.compile(r"metadata\.labels"), ("labels", "sandbox_id")),
    (re.compile(r"metadata\.annotations"), ("annotations", "user_id")),
    (re.compile(r"spec\.volumes|volumeMounts"), ("extra_mounts",)),
    (re.compile(r"resources"), ("resources",)),
    (re.compile(r"spec\.containers\[\d+\]\.image$"), ("image",)),
    (re.compile(r"spec\.containers\[\d+\]\.env\b"), ("env",)),
)


@dataclass(frozen=True)
class Rule:
    """One row of the table: a pattern for kubectl's message, and a function that makes the error from the match."""

    name: str
    pattern: re.Pattern[str]
    make: Callable[[re.Match[str], str], ProvisionerError]


def _rule(name: str, pattern: str, make: type[ProvisionerError] | Callable[..., ProvisionerError], public: str) -> Rule:
    """Return a rule whose sentence may contain the pattern's named groups."""

    def error(match: re.Match[str], detail: str) -> ProvisionerError:
        return make(public.format(**match.groupdict()), detail=detail)

    return Rule(name, re.compile(pattern, re.DOTALL), error)


def _refused_field(match: re.Match[str], detail: str) -> ProvisionerError:
    field, kind = match["field"], match["kind"]
    request_fields: tuple[str, ...] = next((names for pattern, names in REQUEST_FIELDS if pattern.search(field)), ())
    return TemplateRefused(
        f"The cluster refuses the sandbox's {kind} at {field}", detail=detail, request_fields=request_fields
    )


def _refused_quantity(_match: re.Match[str], detail: str) -> ProvisionerError:
    return TemplateRefused(
        "The cluster refuses a resource quantity of the sandbox", detail=detail, request_fields=("resources",)
    )


# The first matching rule counts, so specific rules precede general ones.
RULES: tuple[Rule, ...] = (
    # A credential plugin, before other rules, since the message quotes it (record: plugin-not-json)
    _rule(
        "credential-plugin",
        r"\A(Unable to connect|error: )[^\n]*getting credentials: ",
        ClusterRefused,
        "The provisioner's credential plugin failed",
    ),
    # The object exists already
    _rule(
        "immutable",
        r"pod updates may not change fields",
        ApplyConflict,
        "The sandbox exists with another specification",
    ),
    _rule(
        "other-uid",
        r"metadata\.uid: Invalid value: .* field is immutable",
        PreconditionFailed,
        "The sandbox was replaced in the meantime",
    ),
    _rule("field-immutable", r"field is immutable", ApplyConflict, "The sandbox exists with another specification"),
    _rule(
        "precondition",
        r"\(Conflict\): .* in the precondition",
        PreconditionFailed,
        "The sandbox was changed in the meantime",
    ),
    # An apply with the uid of a deleted object.
    _rule(
        "uid-mismatch", r"fulfilled on .* uid mismatch", PreconditionFailed, "The sandbox was deleted in the meantime"
    ),
    _rule("already-exists", r"\(AlreadyExists\)", AlreadyThere, "Another client is creating the sandbox"),
    # A conflict with a concurrent write, for example of a quota's usage; a retry succeeds.
    _rule("conflict", r"\(Conflict\)", ServerFailed, "The cluster is busy with the same objects"),
    # Policy engines, before other rules, since their messages may quote anything
    _rule(
        "webhook-failed",
        r'failed calling webhook "(?P<webhook>[\w./-]+)"',
        ServerFailed,
        "The cluster's admission webhook {webhook} does not answer",
    ),
    _rule(
        "webhook",
        r'admission webhook "(?P<webhook>[\w./-]+)" denied',
        ClusterRefused,
        "The cluster's admission webhook {webhook} refuses the sandbox",
    ),
    _rule(
        "admission-policy",
        r"ValidatingAdmissionPolicy '(?P<policy>[\w./-]+)'",
        ClusterRefused,
        "The cluster's admission policy {policy} refuses the sandbox",
    ),
    # Forbidden has five causes, distinguished by the text (kubectl.md 7)
    _rule(
        "namespace-terminating",
        r"because it is being terminated",
        ClusterUnavailable,
        "The namespace of the sandboxes is being deleted",
    ),
    _rule(
        "service-account",
        r"error looking up service account",
        ServiceAccountMissing,
        "The namespace of the sandboxes has no service account yet",
    ),
    _rule("quota-unknown", r"status unknown for quota", ServerFailed, "The cluster's quota is not known yet"),
    _rule("quota", r"exceeded quota", LimitReached, "The cluster's quota for sandboxes is used up"),
    _rule(
        "runtime-class",
        r'RuntimeClass "(?P<name>[\w.-]+)" not found',
        ClusterRefused,
        "The cluster has no RuntimeClass {name}, which the sandbox's template asks for",
    ),
    _rule("pod-security", r"violates PodSecurity", ClusterRefused, "The cluster's Pod security refuses the sandbox"),
    # A LimitRange of the cluster: minimum, maximum or ratio per Container or Pod (in Kubernetes,
    # plugin/pkg/admission/limitranger).
    _rule(
        "limit-range",
        r"(minimum|maximum) \S+ usage per \w+ is|max limit to request ratio per",
        lambda public, *, detail: ClusterRefused(public, detail=detail, request_fields=("resources",)),
        "The cluster's LimitRange refuses the resources of the sandbox",
    ),
    _rule(
        "right-to-patch",
        r'cannot patch resource "(?P<resource>pods|services)"',
        PatchForbidden,
        "The provisioner lacks the right to patch {resource} in the cluster, "
        "which renewing, touching and adopting a sandbox need",
    ),
    _rule(
        "right",
        r'cannot (?P<verb>\w+) resource "(?P<resource>[\w./-]+)"',
        ClusterRefused,
        "The provisioner lacks the right to {verb} {resource} in the cluster",
    ),
    # Node ports
    _rule("node-ports", r"nodePort: range is full", LimitReached, "The cluster has no free node port left"),
    _rule("service-addresses", r"range is full", LimitReached, "The cluster has no free Service address left"),
    _rule(
        "node-port-taken",
        r"provided port is already allocated",
        ClusterRefused,
        "The node port that the template asks for is taken",
    ),
    # Something does not exist
    _rule(
        "namespace-missing",
        r'namespaces "[^"]*" not found',
        NamespaceMissing,
        "The namespace of the sandboxes does not exist",
    ),
    _rule(
        "log-pod",
        r'error from server \(NotFound\): pods "[^"]*" not found in namespace',
        LogMissing,
        "The sandbox's Pod was deleted in the meantime",
    ),
    # The server at this address is not an API server.
    _rule("no-such-path", r"\(NotFound\)", ServerFailed, "The cluster does not answer as an API server does"),
    # A container's log
    _rule("log-waiting", r"is waiting to start", LogMissing, "The container has not started, so it has no log yet"),
    _rule(
        "log-previous",
        r"previous terminated container .* not found",
        LogMissing,
        "The log of the container before its restart is gone",
    ),
    # The API server can't reach the kubelet, which serves the logs.
    _rule("log-node", r"/containerLogs/", LogMissing, "The sandbox's node does not hand out its logs"),
    # Invalid objects
    Rule("quantity", re.compile(r"quantities must match the regular expression"), _refused_quantity),
    _rule(
        "duplicate",
        r"failed to create typed patch object.*: duplicate entries for key",
        TemplateRefused,
        "The sandbox's template has an entry of a list twice",
    ),
    _rule(
        "schema",
        r"field not declared in schema|unknown field|ValidationError\(|(apiVersion|kind) not set"
        r"|unknown object type|no matches for kind"
        r"|failed to create typed patch object|json: cannot unmarshal",
        TemplateRefused,
        "The cluster does not know a field of the sandbox's template",
    ),
    _rule(
        "too-large",
        r"request is too large|[Rr]equest ?[Ee]ntity ?[Tt]oo ?[Ll]arge",
        lambda public, *, detail: TemplateRefused(public, detail=detail, request_fields=("user_id",)),
        "The cluster refuses the sandbox: its description is too large",
    ),
    # A single cause follows the colon; several are in brackets or, from kubectl, on separate lines.
    Rule(
        "invalid",
        re.compile(r'(?P<kind>[A-Z]\w*) "[^"]*" is invalid:\s*(?:\* |\[)?(?P<field>[\w.[\]/-]+): '),
        _refused_field,
    ),
    _rule(
        "field-manager",
        r"Apply failed with \d+ conflict",
        ClusterRefused,
        "Another program manages fields of the sandbox in the cluster",
    ),
    # Credentials
    _rule(
        "unauthorized",
        UNAUTHORIZED.pattern,
        ClusterRefused,
        "The cluster refuses the provisioner's credentials",
    ),
    # Connection
    _rule(
        "certificate",
        r"x509:|failed to verify certificate|tls: |server gave HTTP response to HTTPS client",
        ClusterUnavailable,
        "The connection to the cluster is not trusted: its certificate does not fit",
    ),
    _rule(
        "no-answer",
        r"Client\.Timeout|context deadline exceeded|i/o timeout|TLS handshake timeout|timed out waiting"
        r"|\((Timeout|ServerTimeout|GatewayTimeout)\)",
        ClusterTimeout,
        "The cluster did not answer in time",
    ),
    _rule(
        "connection",
        r"The connection to the server|Unable to connect|dial tcp|connection re(fused|set)|no such host|broken pipe"
        r"|unexpected EOF|http2: |: EOF|server closed|use of closed network|stream error|doesn't have a resource type",
        ConnectionFailed,
        "The cluster can't be reached",
    ),
    _rule(
        "server-failed",
        # Expired: the continue token of a list whose pages were read too slowly.
        r"\((InternalError|ServiceUnavailable|TooManyRequests|Expired|Gone)\)|currently unable to handle|etcdserver"
        r"|too many requests|rpc error|Internal error occurred|unexpected error when reading response body",
        ServerFailed,
        "The cluster can't do this just now",
    ),
    # All other rejections
    # Not in the words of an API server: what answers wants https (record: kubeconfig-server-http-to-https).
    _rule(
        "no-api-server",
        r'(\(BadRequest\)|"STDIN"): (.*: )?the server rejected our request for an unknown reason',
        ClusterRefused,
        KUBECONFIG_UNUSABLE,
    ),
    _rule("forbidden", r"\(Forbidden\)", ClusterRefused, "The cluster forbids this for an unknown reason"),
    _rule("bad-request", r"\(BadRequest\)", ClusterRefused, "The cluster does not understand the request"),
)
