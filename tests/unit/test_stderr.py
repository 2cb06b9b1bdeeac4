"""kubectl's stderr → our error, against every recorded call that failed."""

from __future__ import annotations

import json
import re

import pytest

from sandboxes import errors
from sandboxes.kubectl.rules import RULES
from sandboxes.kubectl.stderr import classify, messages
from sandboxes.kubectl.withheld import repeatable
from tests.record import RECORDED, case, case_names

FAILED = {name for name in case_names() if case(name).returncode != 0 and case(name).stderr}

PATCH_FORBIDDEN = (
    "The provisioner lacks the right to patch pods in the cluster, which renewing, touching and adopting a sandbox need"
)

# case: (class, HTTP status, the rule's sentence)
TWICE = "The sandbox's template has an entry of a list twice"
EXPECTED: dict[str, tuple[type[errors.ProvisionerError], int, str]] = {
    "annotate-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "apply-annotation-only-missing": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.containers",
    ),
    "apply-annotation-only-other-uid": (
        errors.PreconditionFailed,
        503,
        "The sandbox was replaced in the meantime",
    ),
    "apply-conflict": (errors.ClusterRefused, 502, "Another program manages fields of the sandbox in the cluster"),
    "apply-container-name-twice": (errors.TemplateRefused, 502, TWICE),
    "apply-empty-stdin": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "apply-forbidden": (errors.PatchForbidden, 502, PATCH_FORBIDDEN),
    "apply-forbidden-no-create": (
        errors.ClusterRefused,
        502,
        "The provisioner lacks the right to create pods in the cluster",
    ),
    "apply-forbidden-no-patch": (errors.PatchForbidden, 502, PATCH_FORBIDDEN),
    "apply-hostpath-backstep": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.volumes[0].hostPath.path",
    ),
    "apply-immutable-change": (errors.ApplyConflict, 503, "The sandbox exists with another specification"),
    "apply-invalid-name": (errors.TemplateRefused, 502, "The cluster refuses the sandbox's Pod at metadata.name"),
    "apply-label-too-long": (errors.TemplateRefused, 502, "The cluster refuses the sandbox's Pod at metadata.labels"),
    "apply-missing-namespace": (errors.NamespaceMissing, 503, "The namespace of the sandboxes does not exist"),
    "apply-mount-path-twice": (errors.TemplateRefused, 502, TWICE),
    "apply-mount-without-volume": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.containers[0].volumeMounts[0].name",
    ),
    "apply-namespace-terminating": (
        errors.ClusterUnavailable,
        503,
        "The namespace of the sandboxes is being deleted",
    ),
    "apply-exported-managed-fields": (
        errors.ClusterRefused,
        502,
        "The cluster does not understand the request",
    ),
    "apply-nodeport-headless": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Service at spec.clusterIPs[0]",
    ),
    "apply-nodeport-on-cluster-ip": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Service at spec.ports[0].nodePort",
    ),
    "apply-nodeport-on-headless-cluster-ip": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Service at spec.ports[0].nodePort",
    ),
    "apply-service-port-name-twice": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Service at spec.ports[1].name",
    ),
    "apply-service-port-no-name": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Service at spec.ports[0].name",
    ),
    "apply-service-port-twice": (errors.TemplateRefused, 502, TWICE),
    "apply-nodeport-taken": (errors.ClusterRefused, 502, "The node port that the template asks for is taken"),
    "apply-nodeports-exhausted": (errors.LimitReached, 429, "The cluster has no free node port left"),
    "apply-not-yaml": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
    "apply-partial-failure": (errors.ApplyConflict, 503, "The sandbox exists with another specification"),
    "apply-pod-security-violation": (errors.ClusterRefused, 502, "The cluster's Pod security refuses the sandbox"),
    "apply-port-name-twice": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.containers[0].ports[1].name",
    ),
    "apply-port-twice": (errors.TemplateRefused, 502, TWICE),
    "apply-volume-name-twice": (errors.TemplateRefused, 502, TWICE),
    "create-mount-path-twice": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.containers[0].volumeMounts[1].mountPath",
    ),
    "apply-quantity-invalid": (errors.TemplateRefused, 502, "The cluster refuses a resource quantity of the sandbox"),
    "apply-quota-exceeded": (errors.LimitReached, 429, "The cluster's quota for sandboxes is used up"),
    "apply-request-over-limit": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.containers[0].resources.requests",
    ),
    "apply-right-after-namespace": (
        errors.ServiceAccountMissing,
        503,
        "The namespace of the sandboxes has no service account yet",
    ),
    "apply-unknown-field-ignored": (
        errors.TemplateRefused,
        502,
        "The cluster does not know a field of the sandbox's template",
    ),
    "apply-unknown-field-strict": (
        errors.TemplateRefused,
        502,
        "The cluster does not know a field of the sandbox's template",
    ),
    "context-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "create-list-exists-one": (errors.AlreadyThere, 503, "Another client is creating the sandbox"),
    "delete-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "delete-precondition-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "delete-precondition-other-uid": (errors.PreconditionFailed, 503, "The sandbox was changed in the meantime"),
    "delete-precondition-stale": (errors.PreconditionFailed, 503, "The sandbox was changed in the meantime"),
    "get-bad-selector": (errors.ClusterRefused, 502, "The cluster does not understand the request"),
    "get-forbidden": (errors.ClusterRefused, 502, "The provisioner lacks the right to list services in the cluster"),
    "get-half-forbidden": (
        errors.ClusterRefused,
        502,
        "The provisioner lacks the right to list services in the cluster",
    ),
    "get-half-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "get-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "kubeconfig-flag-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-garbage": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-is-directory": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-missing": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "kubeconfig-no-user": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "logs-waiting": (errors.LogMissing, 503, "The container has not started, so it has no log yet"),
    "namespace-get-missing": (errors.NamespaceMissing, 503, "The namespace of the sandboxes does not exist"),
    "raw-get-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "raw-list-bad-selector": (errors.ClusterRefused, 502, "The cluster does not understand the request"),
    "raw-list-forbidden": (errors.ClusterRefused, 502, "The provisioner lacks the right to list pods in the cluster"),
    "raw-list-unknown-resource": (errors.ServerFailed, 503, "The cluster does not answer as an API server does"),
    "raw-watch-api-killed": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "raw-watch-forbidden": (errors.ClusterRefused, 502, "The provisioner lacks the right to watch pods in the cluster"),
    "refused": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "refused-apply": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "rules-review-no-namespace": (errors.ClusterRefused, 502, "The cluster does not understand the request"),
    "server-hangs": (errors.ClusterTimeout, 504, "The cluster did not answer in time"),
    "server-override-name-mismatch": (
        errors.ClusterUnavailable,
        503,
        "The connection to the cluster is not trusted: its certificate does not fit",
    ),
    "server-plain-http": (errors.ClusterRefused, 502, "The cluster does not understand the request"),
    "unauthorized": (errors.ClusterRefused, 502, "The cluster refuses the provisioner's credentials"),
    "unauthorized-apply": (errors.ClusterRefused, 502, "The cluster refuses the provisioner's credentials"),
    "unknown-authority": (
        errors.ClusterUnavailable,
        503,
        "The connection to the cluster is not trusted: its certificate does not fit",
    ),
    "unknown-host": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "wait-delete-timeout": (errors.ClusterTimeout, 504, "The cluster did not answer in time"),
    "watch-forbidden": (errors.ClusterRefused, 502, "The provisioner lacks the right to list services in the cluster"),
    "watch-two-kinds": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
    "kubeconfig-auth-provider-gcp": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-auth-provider-oidc-no-token": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "kubeconfig-basic-and-token": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-ca-and-insecure": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-ca-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-ca-no-pem": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-client-certificate-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-client-certificate-no-base64": (
        errors.ClusterRefused,
        502,
        "The provisioner's kubeconfig can't be used",
    ),
    "kubeconfig-client-certificate-no-key": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-client-certificate-no-pem": (
        errors.ClusterUnavailable,
        503,
        "The connection to the cluster is not trusted: its certificate does not fit",
    ),
    "kubeconfig-context-without-user-entry-apply-two-lines": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-current-context-missing": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-proxy-no-scheme": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-proxy-no-scheme-name": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-proxy-scheme-unknown": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-server-garbage": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-token-file-missing": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "kubeconfig-token-line-feed": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "kubeconfig-user-twice": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-user-twice-other-order": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "plugin-fails": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-missing-hint": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-no-interactive-mode": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "plugin-not-json": (errors.TemplateRefused, 502, "The cluster does not know a field of the sandbox's template"),
    "plugin-v1alpha1": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
}


def test_every_recorded_failure_is_expected_here() -> None:
    assert set(EXPECTED) == FAILED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recorded_failure_is_understood(name: str) -> None:
    error = classify(case(name).stderr)
    assert (type(error), error.status, error.public) == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(FAILED))
def test_no_sentence_repeats_kubectls_text_or_names_a_path_or_an_address(name: str) -> None:
    error = classify(case(name).stderr)
    assert not re.search(r"https?://|\d+\.\d+\.\d+\.\d+|(^|\s)/|\n|rec\b|sandbox-\w", error.public)
    assert "kubectl" not in error.public
    assert error.detail == repeatable(case(name).stderr)


# What the record has no case of, in the words of the Kubernetes source.
OTHER = {
    'Error from server: admission webhook "validate.kyverno.svc" denied the request: no latest tag': (
        errors.ClusterRefused,
        "The cluster's admission webhook validate.kyverno.svc refuses the sandbox",
    ),
    'Error from server (InternalError): Internal error occurred: failed calling webhook "mutate.svc": timeout': (
        errors.ServerFailed,
        "The cluster's admission webhook mutate.svc does not answer",
    ),
    "Error from server (Forbidden): pods \"sandbox-a\" is forbidden: ValidatingAdmissionPolicy 'demo.example' with "
    "binding 'demo' denied request: no": (
        errors.ClusterRefused,
        "The cluster's admission policy demo.example refuses the sandbox",
    ),
    "Error from server (ServiceUnavailable): the server is currently unable to handle the request": (
        errors.ServerFailed,
        "The cluster can't do this just now",
    ),
    "Error from server (TooManyRequests): the server has received too many requests": (
        errors.ServerFailed,
        "The cluster can't do this just now",
    ),
    "Error from server: etcdserver: leader changed": (errors.ServerFailed, "The cluster can't do this just now"),
    "Error from server: etcdserver: request is too large": (
        errors.TemplateRefused,
        "The cluster refuses the sandbox: its description is too large",
    ),
    # validation reads the schema first, which fails like any other call
    'error: error validating "STDIN": error validating data: Get "https://127.0.0.1:1/openapi/v2?timeout=32s": '
    "dial tcp 127.0.0.1:1: connect: connection refused; if you choose to ignore these errors, turn validation off": (
        errors.ConnectionFailed,
        "The cluster can't be reached",
    ),
    "Error from server (Timeout): the server was unable to return a response in the time allotted": (
        errors.ClusterTimeout,
        "The cluster did not answer in time",
    ),
    "Unable to connect to the server: getting credentials: exec: executable aws not found": (
        errors.ClusterRefused,
        "The provisioner's credential plugin failed",
    ),
    "Unable to connect to the server: net/http: TLS handshake timeout": (
        errors.ClusterTimeout,
        "The cluster did not answer in time",
    ),
    'Error from server (Forbidden): pods "a" is forbidden: no PriorityClass with name x was found': (
        errors.ClusterRefused,
        "The cluster forbids this for an unknown reason",
    ),
    'Error from server (AlreadyExists): pods "sandbox-a" already exists': (
        errors.AlreadyThere,
        "Another client is creating the sandbox",
    ),
    'Error from server (Conflict): Operation cannot be fulfilled on configmaps "x": uid mismatch: the provided '
    "object specified uid 1-2, and no existing object was found": (
        errors.PreconditionFailed,
        "The sandbox was deleted in the meantime",
    ),
    'Error from server (Forbidden): pods "a" is forbidden: pod rejected: RuntimeClass "gvisor" not found': (
        errors.ClusterRefused,
        "The cluster has no RuntimeClass gvisor, which the sandbox's template asks for",
    ),
    'Error from server (Conflict): Operation cannot be fulfilled on resourcequotas "q": the object has been modified; '
    "please apply your changes to the latest version and try again": (
        errors.ServerFailed,
        "The cluster is busy with the same objects",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: status unknown for quota: q, resources: pods': (
        errors.ServerFailed,
        "The cluster's quota is not known yet",
    ),
    "Error from server: rpc error: code = Unavailable desc = transport is closing": (
        errors.ServerFailed,
        "The cluster can't do this just now",
    ),
    "error: stream error: stream ID 5; INTERNAL_ERROR; received from peer": (
        errors.ConnectionFailed,
        "The cluster can't be reached",
    ),
    'error: the server doesn\'t have a resource type "pods"': (
        errors.ConnectionFailed,
        "The cluster can't be reached",
    ),
    "Unable to connect to the server: remote error: tls: expired certificate": (
        errors.ClusterRefused,
        "The cluster refuses the provisioner's credentials",
    ),
    "error: unable to read client-cert /x/y.pem for u due to open /x/y.pem: no such file or directory": (
        errors.ClusterRefused,
        "The provisioner's kubeconfig can't be used",
    ),
    'Error from server (Forbidden): admission webhook "q.example" denied the request: exceeded quota of the team': (
        errors.ClusterRefused,
        "The cluster's admission webhook q.example refuses the sandbox",
    ),
    "Error from server (InternalError): Internal error occurred: failed to allocate a serviceIP: range is full": (
        errors.LimitReached,
        "The cluster has no free Service address left",
    ),
    "Error from server (NotFound): the server could not find the requested resource": (
        errors.ServerFailed,
        "The cluster does not answer as an API server does",
    ),
    # several causes: kubectl gives each a line of its own, the server puts them into brackets
    'The Pod "sandbox-a" is invalid: \n* spec.containers[0].image: Required value\n* spec.volumes[0].name: Required': (
        errors.TemplateRefused,
        "The cluster refuses the sandbox's Pod at spec.containers[0].image",
    ),
    'Error from server (Invalid): Pod "sandbox-a" is invalid: [metadata.labels: Invalid value: "x", spec: Required]': (
        errors.TemplateRefused,
        "The cluster refuses the sandbox's Pod at metadata.labels",
    ),
    'The Pod "sandbox-a" is invalid: spec.containers[0].resources.limits[ephemeral-storage]: Invalid value: "0.1"': (
        errors.TemplateRefused,
        "The cluster refuses the sandbox's Pod at spec.containers[0].resources.limits[ephemeral-storage]",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: '
    "maximum cpu usage per Container is 1, but limit is 2": (
        errors.ClusterRefused,
        "The cluster's LimitRange refuses the resources of the sandbox",
    ),
    json.loads((RECORDED / "http" / "logs-missing.json").read_text())["stderr"]: (
        errors.LogMissing,
        "The sandbox's Pod was deleted in the meantime",
    ),
    'Error from server (BadRequest): previous terminated container "sandbox" in pod "sandbox-a" not found': (
        errors.LogMissing,
        "The log of the container before its restart is gone",
    ),
    'Error from server: Get "https://10.0.0.1:10250/containerLogs/deer-flow/sandbox-a/sandbox?tailLines=100": '
    "dial tcp 10.0.0.1:10250: connect: connection refused": (
        errors.LogMissing,
        "The sandbox's node does not hand out its logs",
    ),
    'error: Operation cannot be fulfilled on pods "sandbox-ub": uid mismatch: the provided object specified uid '
    "10885b85-47e1-4877-a4ba-cbf721dcd53d, and no existing object was found\n"
    "Please review the fields above--they currently have other managers.\n": (
        errors.PreconditionFailed,
        "The sandbox was deleted in the meantime",
    ),
    "": (errors.ClusterRefused, "The cluster refused the request for an unknown reason"),
    "panic: runtime error": (errors.ClusterRefused, "The cluster refused the request for an unknown reason"),
}


@pytest.mark.parametrize("stderr", OTHER)
def test_a_failure_that_was_not_recorded_is_understood(stderr: str) -> None:
    error = classify(stderr)
    assert (type(error), error.public) == OTHER[stderr]


@pytest.mark.parametrize(
    ("name", "request_fields"),
    [
        ("apply-label-too-long", ("labels", "sandbox_id")),
        ("apply-invalid-name", ("sandbox_id",)),
        ("apply-hostpath-backstep", ("extra_mounts",)),
        ("apply-quantity-invalid", ("resources",)),
        ("apply-request-over-limit", ("resources",)),
        ("apply-forbidden", ()),
    ],
)
def test_which_fields_of_a_request_may_be_to_blame(name: str, request_fields: tuple[str, ...]) -> None:
    error = classify(case(name).stderr)
    assert isinstance(error, errors.ClusterRefused)
    assert error.request_fields == request_fields


@pytest.mark.parametrize(
    ("field", "request_fields"),
    [
        ("spec.containers[0].image", ("image",)),
        ("spec.initContainers[0].image", ()),
        ("spec.containers[0].imagePullPolicy", ()),
        ("spec.containers[0].env[3].name", ("env",)),
        ("spec.containers[0].resources.limits[cpu]", ("resources",)),
        ("spec.containers[0].resources.limits[ephemeral-storage]", ("resources",)),
        ("metadata.annotations", ("annotations", "user_id")),
    ],
)
def test_which_fields_of_a_request_end_up_in_a_field_of_the_pod(field: str, request_fields: tuple[str, ...]) -> None:
    error = classify(f'The Pod "sandbox-a" is invalid: {field}: Invalid value: "x": no')
    assert isinstance(error, errors.ClusterRefused)
    assert error.request_fields == request_fields


def test_what_a_limit_range_refuses_may_be_the_resources_that_were_asked_for() -> None:
    error = classify(
        'Error from server (Forbidden): pods "sandbox-a" is forbidden: '
        "[minimum memory usage per Pod is 1Gi, but request is 64Mi, cpu max limit to request ratio per Container is 4, "
        "but provided ratio is 10.000000]"
    )
    assert isinstance(error, errors.ClusterRefused)
    assert error.request_fields == ("resources",)


@pytest.mark.parametrize("resource", ["services", "networkpolicies"])
def test_the_right_to_patch_matters_for_creates_with_pods_and_services_only(resource: str) -> None:
    text = f'Error from server (Forbidden): x is forbidden: User "u" cannot patch resource "{resource}" in API group ""'
    error = classify(text)
    assert error.public.startswith(f"The provisioner lacks the right to patch {resource} in the cluster")
    assert isinstance(error, errors.PatchForbidden) == (resource == "services")


def test_missing_objects_are_named() -> None:
    error = classify(case("get-missing").stderr)
    assert isinstance(error, errors.ObjectsMissing)
    assert error.names == {("pods", "sandbox-zz"), ("services", "sandbox-zz-svc")}


def test_that_objects_are_missing_counts_only_if_nothing_else_went_wrong() -> None:
    both = case("get-missing").stderr + case("get-forbidden").stderr
    assert isinstance(classify(both), errors.ClusterRefused)
    proxy = (
        case("get-missing").stderr + "Error from server (NotFound): the server could not find the requested resource"
    )
    assert isinstance(classify(proxy), errors.ServerFailed)


def test_log_lines_and_warnings_are_no_messages() -> None:
    assert messages(case("refused").stderr) == [
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?"
    ]
    assert messages(case("apply-pod-security-warning").stderr) == []


def test_an_invalid_message_over_many_lines_is_one() -> None:
    assert len(messages(case("apply-immutable-change").stderr)) == 1
    assert len(messages(case("apply-forbidden").stderr)) == 2


def test_every_rule_is_used() -> None:
    texts = [case(name).stderr for name in FAILED] + list(OTHER)
    unused = [rule.name for rule in RULES if not any(rule.pattern.search(text) for text in texts)]
    assert unused == []
