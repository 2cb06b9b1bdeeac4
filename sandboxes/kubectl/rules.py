"""The table that maps a message of kubectl to an exception of `errors.py`.

The table is tested against every case of the record (`tests/recorded/kubectl`). A pattern that no case has is from the
source that is named beside it: of Kubernetes where a path begins with `plugin/` or `pkg/`. The sentence of a rule is
for callers: it may name a field, a right or a webhook, but never repeats kubectl's text, a path or an address.
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
from sandboxes.kubectl import refusals

if TYPE_CHECKING:
    from collections.abc import Callable

# kubectl's message about credentials that the API server rejected.
UNAUTHORIZED = re.compile(r"\(Unauthorized\)|provide credentials|remote error: tls:")

# For kubectl's messages about its own configuration (see withheld.is_about_configuration).
KUBECONFIG_UNUSABLE = "The provisioner's kubeconfig can't be used"


@dataclass(frozen=True)
class Rule:
    """One row of the table: a pattern for kubectl's message, and a function that makes the error from the match."""

    name: str
    pattern: re.Pattern[str]
    make: Callable[[re.Match[str], str], ProvisionerError]
    # Whether the sentence repeats parts of the message: then only one of the API server's counts, since others may
    # quote the kubeconfig.
    repeats: bool = True


def _rule(name: str, pattern: str, make: type[ProvisionerError] | Callable[..., ProvisionerError], public: str) -> Rule:
    """Return a rule whose sentence may contain the pattern's named groups."""

    def error(match: re.Match[str], detail: str) -> ProvisionerError:
        return make(public.format(**match.groupdict()), detail=detail)

    compiled = re.compile(pattern, re.DOTALL)
    return Rule(name, compiled, error, repeats=bool(compiled.groupindex))


# Rules whose sentence says that the reason is unknown.
UNKNOWN = frozenset({"admission", "forbidden", "bad-request"})

# The first matching rule counts, so specific rules precede general ones.
RULES: tuple[Rule, ...] = (
    # The message may quote what the plugin printed (record: plugin-not-json)
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
    # An apply with the uid of a deleted object (record: apply-annotation-only-uid-gone, -list-both-gone).
    _rule(
        "uid-mismatch",
        r"Operation cannot be fulfilled on .*: uid mismatch: ",
        PreconditionFailed,
        "The sandbox was deleted in the meantime",
    ),
    _rule("already-exists", r"\(AlreadyExists\)", AlreadyThere, "Another client is creating the sandbox"),
    # Only objects with a resourceVersion are replaced, so a retry would fail, too.
    _rule(
        "replace-stale",
        r"\(Conflict\): error when replacing ",
        PreconditionFailed,
        "The object was changed in the meantime",
    ),
    # A conflict with a concurrent write, for example of a quota's usage; a retry succeeds. An apply prints it without
    # the reason (record: apply-annotation-only-stale-version).
    _rule(
        "conflict",
        r"\(Conflict\)|Operation cannot be fulfilled on ",
        ServerFailed,
        "The cluster is busy with the same objects",
    ),
    # Policy engines, before other rules, since their messages may quote anything (k8s.io/apiserver,
    # pkg/admission/plugin/webhook/errors and plugin/policy)
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
    # plugin/pkg/admission/serviceaccount. Only `default` is made by a controller, soon after the namespace.
    _rule(
        "service-account-default",
        r"error looking up service account [^\s:]+/default: .*not found",
        ServiceAccountMissing,
        "The namespace of the sandboxes has no service account yet",
    ),
    _rule(
        "service-account",
        r"error looking up service account [^\s/:]+/(?P<name>[\w.-]+): .*not found",
        ClusterRefused,
        "There is no service account {name}, which the template asks for",
    ),
    _rule(
        "service-account-unread",
        r"error looking up service account",
        ServerFailed,
        "The cluster can't look up the sandbox's service account just now",
    ),
    _rule("quota-unknown", r"status unknown for quota", ServerFailed, "The cluster's quota is not known yet"),
    # plugin/pkg/admission/resourcequota
    Rule(
        "quota-demands",
        re.compile(r"failed quota: (?P<quota>[\w.-]+): must specify (?P<demands>[^\n]+)"),
        refusals.quota_demands,
    ),
    _rule("quota", r"exceeded quota", LimitReached, "The cluster's quota for sandboxes is used up"),
    _rule(
        "runtime-class",
        r'RuntimeClass "(?P<name>[\w.-]+)" not found',
        ClusterRefused,
        "The cluster has no RuntimeClass {name}, which the sandbox's template asks for",
    ),
    Rule(
        "pod-security",
        re.compile(r'violates PodSecurity "(?P<level>baseline|restricted):[^"]*": (?P<checks>.*)', re.DOTALL),
        refusals.pod_security,
    ),
    # plugin/pkg/admission/priority
    _rule(
        "priority-class",
        r"no PriorityClass with name (?P<name>[\w.-]+) was found",
        ClusterRefused,
        "There is no PriorityClass {name}, which the template asks for",
    ),
    _rule(
        "priority",
        r"integer value of priority \(\S+\) must not be provided",
        ClusterRefused,
        "The cluster's admission refuses the template's priority: it wants a PriorityClass instead",
    ),
    # OpenShift: apiserver-library-go, pkg/securitycontextconstraints
    _rule(
        "security-context-constraints",
        r"unable to validate against any security context constraint",
        ClusterRefused,
        "None of the cluster's security context constraints that the sandbox's service account may use admits it",
    ),
    # plugin/pkg/admission/podnodeselector
    _rule(
        "node-selector",
        r"pod node label selector conflicts with its namespace node label selector",
        ClusterRefused,
        "The template's nodeSelector contradicts the one that the namespace of the sandboxes prescribes",
    ),
    # plugin/pkg/admission/podtolerationrestriction
    _rule(
        "tolerations",
        r"pod tolerations .*conflict with its namespace",
        ClusterRefused,
        "The namespace of the sandboxes does not permit the template's tolerations",
    ),
    # plugin/pkg/admission/imagepolicy
    _rule(
        "image-policy",
        r"image policy webhook backend denied",
        lambda public, *, detail: ClusterRefused(public, detail=detail, request_fields=("image",)),
        "The cluster's image policy refuses an image of the sandbox",
    ),
    Rule(
        "limit-range",
        re.compile(r"(?:minimum|maximum) \S+ usage per \w+ is|max limit to request ratio per"),
        refusals.limit_range,
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
    # A container's log (pkg/kubelet, validateContainerLogStatus)
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
    Rule("quantity", re.compile(r"quantities must match the regular expression"), refusals.quantity, repeats=False),
    _rule(
        "kind",
        r'no matches for kind "(?P<kind>\w+)" in version "(?P<version>[\w./-]+)"',
        TemplateRefused,
        "The cluster has no kind {kind} in version {version}, which the template asks for",
    ),
    # An exported object (record: apply-exported-managed-fields)
    _rule(
        "managed-fields",
        r"metadata\.managedFields must be nil",
        TemplateRefused,
        "The sandbox's template has the field metadata.managedFields, which no apply may have",
    ),
    # Status 500 without a reason in an apply (record: apply-env-twice), BadRequest in a create
    Rule(
        "malformed",
        re.compile(
            r"failed to create typed patch object|strict decoding error: |json: cannot unmarshal|ValidationError\("
            r"|unknown field|(apiVersion|kind) not set|unknown object type|no matches for kind"
        ),
        refusals.malformed,
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
        re.compile(r'(?P<kind>[A-Z]\w*) "[^"]*" is invalid(?P<causes>.*)', re.DOTALL),
        refusals.invalid,
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
    # Connection: net, net/http, crypto/tls and golang.org/x/net/http2 of Go
    _rule(
        "certificate",
        r"x509:|failed to verify certificate|tls: |server gave HTTP response to HTTPS client",
        ClusterUnavailable,
        "The connection to the cluster is not trusted: its certificate does not fit",
    ),
    _rule(
        "no-answer",
        r"Client\.Timeout|context deadline exceeded|i/o timeout|TLS handshake timeout|timed out waiting"
        r"|\((Timeout|ServerTimeout)\)",
        ClusterTimeout,
        "The cluster did not answer in time",
    ),
    _rule(
        "connection",
        r"The connection to the server|Unable to connect|dial tcp|connection re(fused|set)|no such host|broken pipe"
        r"|unexpected EOF|http2: |: EOF|server closed|use of closed network|stream error|doesn't have a resource type"
        r"|lost connection to pod",
        ConnectionFailed,
        "The cluster can't be reached",
    ),
    _rule(
        "server-failed",
        # StatusReasons of k8s.io/apimachinery, and messages of etcd and grpc.
        # Expired: the continue token of a list whose pages were read too slowly.
        r"\((InternalError|ServiceUnavailable|TooManyRequests|Expired|Gone)\)|currently unable to handle|etcdserver"
        r"|too many requests|rpc error|Internal error occurred|unexpected error when reading response body",
        ServerFailed,
        "The cluster can't do this just now",
    ),
    # All other rejections. Admission plugins refuse so (k8s.io/apiserver, pkg/admission, NewForbidden).
    _rule(
        "admission",
        r'\(Forbidden\): .*"[^"]*" is forbidden: ',
        ClusterRefused,
        "The cluster's admission forbids the sandbox for a reason that the provisioner does not know; "
        "the log has its words",
    ),
    _rule("forbidden", r"\(Forbidden\)", ClusterRefused, "The cluster forbids this for an unknown reason"),
    # A 400 without a Status (k8s.io/apimachinery, NewGenericServerResponse), such as to http where https is expected
    # (record: server-plain-http, kubeconfig-server-no-scheme)
    _rule(
        "no-status",
        r"the server rejected our request for an unknown reason",
        ClusterRefused,
        KUBECONFIG_UNUSABLE,
    ),
    _rule("bad-request", r"\(BadRequest\)", ClusterRefused, "The cluster does not understand the request"),
)
