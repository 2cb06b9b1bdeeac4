"""kubectl's stderr → the service's error, for every recorded call that failed."""

from __future__ import annotations

import re

import pytest

from sandboxes import errors
from sandboxes.kubectl.stderr import classify, messages
from sandboxes.kubectl.withheld import repeatable
from tests.record import case
from tests.unit.failures import FAILED

PATCH_FORBIDDEN = (
    "The provisioner lacks the right to patch pods in the cluster, which renewing, touching and adopting a sandbox need"
)
TWICE = "The sandbox's template has an entry of a list twice"

# case: (class, HTTP status, public message)
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


def test_every_recorded_failure_has_an_expectation() -> None:
    assert set(EXPECTED) == FAILED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recorded_failure_is_classified(name: str) -> None:
    error = classify(case(name).stderr)
    assert (type(error), error.status, error.public) == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(FAILED))
def test_no_public_message_has_kubectls_text_paths_or_addresses(name: str) -> None:
    error = classify(case(name).stderr)
    assert not re.search(r"https?://|\d+\.\d+\.\d+\.\d+|(^|\s)/|\n|rec\b|sandbox-\w", error.public)
    assert "kubectl" not in error.public
    assert error.detail == repeatable(case(name).stderr)


@pytest.mark.parametrize("resource", ["services", "networkpolicies"])
def test_only_pods_and_services_without_patch_are_patch_forbidden(resource: str) -> None:
    text = f'Error from server (Forbidden): x is forbidden: User "u" cannot patch resource "{resource}" in API group ""'
    error = classify(text)
    assert error.public.startswith(f"The provisioner lacks the right to patch {resource} in the cluster")
    assert isinstance(error, errors.PatchForbidden) == (resource == "services")


def test_missing_objects_are_named() -> None:
    error = classify(case("get-missing").stderr)
    assert isinstance(error, errors.ObjectsMissing)
    assert error.names == {("pods", "sandbox-zz"), ("services", "sandbox-zz-svc")}


def test_objects_are_missing_only_if_there_is_no_other_error() -> None:
    both = case("get-missing").stderr + case("get-forbidden").stderr
    assert isinstance(classify(both), errors.ClusterRefused)
    proxy = (
        case("get-missing").stderr + "Error from server (NotFound): the server could not find the requested resource"
    )
    assert isinstance(classify(proxy), errors.ServerFailed)


def test_log_lines_and_warnings_are_not_messages() -> None:
    assert messages(case("refused").stderr) == [
        "The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?"
    ]
    assert messages(case("apply-pod-security-warning").stderr) == []


def test_a_multi_line_invalid_error_is_one_message() -> None:
    assert len(messages(case("apply-immutable-change").stderr)) == 1
    assert len(messages(case("apply-forbidden").stderr)) == 2
