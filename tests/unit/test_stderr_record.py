"""Every recorded failure, with and without another program's lines on the same stderr: class, status and message."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes import errors
from sandboxes.kubectl.stderr import classify, is_expired, is_forbidden, is_unauthorized, messages
from tests.record import case, case_names

# A kubectl that was killed, or still ran, has not reported a failure: its exit code alone counts.
FAILED = {name for name in case_names() if case(name).returncode > 0 and case(name).stderr}

# case: (class, HTTP status, public message)
EXPECTED: dict[str, tuple[type[errors.ProvisionerError], int, str]] = {
    "annotate-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "api-gone-get": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "apply-annotation-only-list-both-gone": (errors.PreconditionFailed, 503, "The sandbox was deleted in the meantime"),
    "apply-annotation-only-list-both-stale": (
        errors.PreconditionFailed,
        503,
        "The sandbox was replaced in the meantime",
    ),
    "apply-annotation-only-list-first-stale": (
        errors.PreconditionFailed,
        503,
        "The sandbox was replaced in the meantime",
    ),
    "apply-annotation-only-list-one-gone": (errors.PreconditionFailed, 503, "The sandbox was deleted in the meantime"),
    "apply-annotation-only-list-one-stale": (
        errors.PreconditionFailed,
        503,
        "The sandbox was replaced in the meantime",
    ),
    "apply-annotation-only-list-stale-and-gone": (
        errors.PreconditionFailed,
        503,
        "The sandbox was replaced in the meantime",
    ),
    "apply-annotation-only-missing": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.containers",
    ),
    "apply-annotation-only-other-uid": (errors.PreconditionFailed, 503, "The sandbox was replaced in the meantime"),
    "apply-annotation-only-stale-uid": (errors.PreconditionFailed, 503, "The sandbox was replaced in the meantime"),
    "apply-annotation-only-stale-version": (errors.ServerFailed, 503, "The cluster is busy with the same objects"),
    "apply-annotation-only-uid-gone": (errors.PreconditionFailed, 503, "The sandbox was deleted in the meantime"),
    "apply-conflict": (errors.ClusterRefused, 502, "Another program manages fields of the sandbox in the cluster"),
    "apply-container-name-twice": (
        errors.TemplateRefused,
        502,
        'The sandbox has name="sandbox" twice in spec.containers',
    ),
    "apply-empty-stdin": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
    "apply-env-three-times": (
        errors.TemplateRefused,
        502,
        'The sandbox has name="A" twice in spec.containers[name="sandbox"].env',
    ),
    "apply-env-twice": (
        errors.TemplateRefused,
        502,
        'The sandbox has name="A" twice in spec.containers[name="sandbox"].env',
    ),
    "apply-exported-again": (errors.ServerFailed, 503, "The cluster is busy with the same objects"),
    "apply-exported-gone": (errors.PreconditionFailed, 503, "The sandbox was deleted in the meantime"),
    "apply-exported-list": (errors.ServerFailed, 503, "The cluster is busy with the same objects"),
    "apply-exported-managed-fields": (
        errors.TemplateRefused,
        502,
        "The sandbox's template has the field metadata.managedFields, which no apply may have",
    ),
    "apply-forbidden": (
        errors.PatchForbidden,
        502,
        (
            "The provisioner lacks the right to patch pods in the cluster, which renewing, touching and "
            "adopting a sandbox need"
        ),
    ),
    "apply-forbidden-no-create": (
        errors.ClusterRefused,
        502,
        "The provisioner lacks the right to create pods in the cluster",
    ),
    "apply-forbidden-no-patch": (
        errors.PatchForbidden,
        502,
        (
            "The provisioner lacks the right to patch pods in the cluster, which renewing, touching and "
            "adopting a sandbox need"
        ),
    ),
    "apply-hostpath-backstep": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.volumes[0].hostPath.path",
    ),
    "apply-immutable-change": (errors.ApplyConflict, 503, "The sandbox exists with another specification"),
    "apply-invalid-name": (errors.TemplateRefused, 502, "The cluster refuses the sandbox's Pod at metadata.name"),
    "apply-label-too-long": (errors.TemplateRefused, 502, "The cluster refuses the sandbox's Pod at metadata.labels"),
    "apply-limit-range": (
        errors.ClusterRefused,
        502,
        (
            "The cluster's LimitRange refuses the resources of the sandbox: maximum cpu usage per Container "
            "is 1, maximum memory usage per Container is 1Gi"
        ),
    ),
    "apply-missing-namespace": (errors.NamespaceMissing, 503, "The namespace of the sandboxes does not exist"),
    "apply-mount-path-twice": (
        errors.TemplateRefused,
        502,
        'The sandbox has mountPath="/data" twice in spec.containers[name="sandbox"].volumeMounts',
    ),
    "apply-mount-without-volume": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at spec.containers[0].volumeMounts[0].name",
    ),
    "apply-namespace-terminating": (errors.ClusterUnavailable, 503, "The namespace of the sandboxes is being deleted"),
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
    "apply-nodeport-out-of-range": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Service at spec.ports[0].nodePort",
    ),
    "apply-nodeport-taken": (errors.ClusterRefused, 502, "The node port that the template asks for is taken"),
    "apply-nodeports-exhausted": (errors.LimitReached, 429, "The cluster has no free node port left"),
    "apply-not-yaml": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
    "apply-partial-failure": (errors.ApplyConflict, 503, "The sandbox exists with another specification"),
    "apply-pod-security-baseline-hostpath": (
        errors.ClusterRefused,
        502,
        "The cluster's Pod security refuses the sandbox: level baseline forbids hostPath volumes",
    ),
    "apply-pod-security-baseline-privileged": (
        errors.ClusterRefused,
        502,
        (
            "The cluster's Pod security refuses the sandbox: level baseline forbids non-default "
            "capabilities and privileged"
        ),
    ),
    "apply-pod-security-baseline-unconfined": (
        errors.ClusterRefused,
        502,
        "The cluster's Pod security refuses the sandbox: level baseline forbids seccompProfile",
    ),
    "apply-pod-security-baseline-unconfined-container": (
        errors.ClusterRefused,
        502,
        "The cluster's Pod security refuses the sandbox: level baseline forbids seccompProfile",
    ),
    "apply-pod-security-violation": (
        errors.ClusterRefused,
        502,
        (
            "The cluster's Pod security refuses the sandbox: level restricted forbids "
            "allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true and "
            "seccompProfile"
        ),
    ),
    "apply-port-name-twice": (
        errors.TemplateRefused,
        502,
        'The cluster refuses the sandbox\'s Pod at spec.containers[0].ports[1].name: "http" is there twice',
    ),
    "apply-port-twice": (
        errors.TemplateRefused,
        502,
        'The sandbox has containerPort=8080,protocol="TCP" twice in spec.containers[name="sandbox"].ports',
    ),
    "apply-priority-class-missing": (
        errors.ClusterRefused,
        502,
        "There is no PriorityClass no-such-class, which the template asks for",
    ),
    "apply-quantity-invalid": (errors.TemplateRefused, 502, "The cluster refuses a resource quantity of the sandbox"),
    "apply-quota-exceeded": (errors.LimitReached, 429, "The cluster's quota for sandboxes is used up"),
    "apply-quota-must-specify": (
        errors.ClusterRefused,
        502,
        (
            "The cluster's quota demands limits.cpu and limits.memory for the container sandbox, which the "
            "template does not set"
        ),
    ),
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
    "apply-runtime-class-missing": (
        errors.ClusterRefused,
        502,
        "The cluster has no RuntimeClass no-such-runtime, which the sandbox's template asks for",
    ),
    "apply-service-account-missing": (
        errors.ClusterRefused,
        502,
        "There is no service account no-such-account, which the template asks for",
    ),
    "apply-service-port-name-twice": (
        errors.TemplateRefused,
        502,
        'The cluster refuses the sandbox\'s Service at spec.ports[1].name: "http" is there twice',
    ),
    "apply-service-port-no-name": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Service at spec.ports[0].name",
    ),
    "apply-service-port-twice": (
        errors.TemplateRefused,
        502,
        'The sandbox has port=8080,protocol="TCP" twice in spec.ports',
    ),
    "apply-unknown-field-ignored": (
        errors.TemplateRefused,
        502,
        'The cluster does not know the field spec.containers[name="sandbox"].imagePulPolicy of the sandbox',
    ),
    "apply-unknown-field-strict": (
        errors.TemplateRefused,
        502,
        "The cluster does not know the field spec.containers[0].imagePulPolicy of the sandbox",
    ),
    "apply-volume-name-twice": (errors.TemplateRefused, 502, 'The sandbox has name="a" twice in spec.volumes'),
    "apply-whole-pod-uid-gone": (errors.PreconditionFailed, 503, "The sandbox was deleted in the meantime"),
    "apply-wrong-type-env-number": (
        errors.TemplateRefused,
        502,
        'The sandbox has the wrong type at spec.containers[name="sandbox"].env[name="A"].value: string is expected',
    ),
    "apply-wrong-type-label": (
        errors.TemplateRefused,
        502,
        "The sandbox has the wrong type at metadata.labels.app: string is expected",
    ),
    "apply-wrong-type-map": (
        errors.TemplateRefused,
        502,
        "The sandbox has the wrong type at spec.volumes: list is expected",
    ),
    "apply-wrong-type-string": (
        errors.TemplateRefused,
        502,
        (
            "The sandbox has the wrong type at "
            'spec.containers[name="sandbox"].ports[containerPort="8080",protocol="TCP"].containerPort: '
            "numeric is expected"
        ),
    ),
    "can-i-list-json": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
    "context-apply-unknown": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "context-current-unset": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "context-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "context-unknown-of-two": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "context-view-unknown": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "create-list-exists-both": (errors.AlreadyThere, 503, "Another client is creating the sandbox"),
    "create-list-exists-first": (errors.AlreadyThere, 503, "Another client is creating the sandbox"),
    "create-list-exists-one": (errors.AlreadyThere, 503, "Another client is creating the sandbox"),
    "create-missing-namespace": (errors.NamespaceMissing, 503, "The namespace of the sandboxes does not exist"),
    "create-mount-path-twice": (
        errors.TemplateRefused,
        502,
        (
            "The cluster refuses the sandbox's Pod at spec.containers[0].volumeMounts[1].mountPath: "
            '"/data" is there twice'
        ),
    ),
    "create-one-exists": (errors.AlreadyThere, 503, "Another client is creating the sandbox"),
    "create-quota-must-specify": (
        errors.ClusterRefused,
        502,
        (
            "The cluster's quota demands limits.cpu and limits.memory for the container sandbox, which the "
            "template does not set"
        ),
    ),
    "create-service-port-twice": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Service at spec.ports[1].nodePort: 31373 is there twice",
    ),
    "create-unknown-field": (
        errors.TemplateRefused,
        502,
        "The cluster does not know the field spec.nodeSelecter of the sandbox",
    ),
    "create-wrong-type-env-number": (
        errors.TemplateRefused,
        502,
        "The sandbox has the wrong type at spec.containers.env.value: string is expected",
    ),
    "delete-force-again": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "delete-force-node-lost-after": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "delete-force-other-uid": (errors.PreconditionFailed, 503, "The sandbox was changed in the meantime"),
    "delete-force-successor": (errors.PreconditionFailed, 503, "The sandbox was changed in the meantime"),
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
    "kubeconfig-auth-provider-gcp": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-auth-provider-oidc-no-token": (
        errors.ClusterRefused,
        502,
        "The provisioner's kubeconfig can't be used",
    ),
    "kubeconfig-basic-and-token": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-ca-and-insecure": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-ca-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-ca-no-pem": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-client-certificate-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-client-certificate-no-base64": (
        errors.ClusterRefused,
        502,
        "The provisioner's kubeconfig can't be used",
    ),
    "kubeconfig-client-certificate-no-key": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-client-certificate-no-pem": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-context-without-cluster": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-context-without-user-entry": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-context-without-user-entry-anonymous": (
        errors.ClusterRefused,
        502,
        "The provisioner's kubeconfig can't be used",
    ),
    "kubeconfig-context-without-user-entry-apply": (
        errors.ClusterRefused,
        502,
        "The provisioner's kubeconfig can't be used",
    ),
    "kubeconfig-context-without-user-entry-apply-two-lines": (
        errors.ClusterRefused,
        502,
        "The provisioner's kubeconfig can't be used",
    ),
    "kubeconfig-current-context-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-empty-file": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-flag-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-garbage": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-impersonate-forbidden-name": (
        errors.ClusterRefused,
        502,
        "The provisioner lacks the right to list pods in the cluster",
    ),
    "kubeconfig-is-directory": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-no-current-context": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-no-user": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-proxy-no-scheme": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-proxy-no-scheme-name": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-proxy-refused": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "kubeconfig-proxy-scheme-unknown": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-server-empty": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-server-garbage": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-server-http-to-https": (
        errors.ClusterRefused,
        502,
        "The cluster does not answer as an API server does: its address may need https",
    ),
    "kubeconfig-server-no-scheme": (
        errors.ClusterRefused,
        502,
        "The cluster does not answer as an API server does: its address may need https",
    ),
    "kubeconfig-server-no-scheme-no-ca": (
        errors.ClusterRefused,
        502,
        "The cluster does not answer as an API server does: its address may need https",
    ),
    "kubeconfig-server-with-path": (errors.ServerFailed, 503, "The cluster does not answer as an API server does"),
    "kubeconfig-token-file-empty": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-token-file-missing": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-token-line-feed": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-token-line-feed-inside": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-user-twice": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-user-twice-apply": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kubeconfig-user-twice-other-order": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "kuberc-apply-dry-run-after": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "kuberc-delete-interactive-flag-raw": (errors.PreconditionFailed, 503, "The sandbox was changed in the meantime"),
    "kuberc-delete-raw": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
    "logs-node-lost": (errors.LogMissing, 503, "The sandbox's node does not hand out its logs"),
    "logs-node-lost-early": (errors.LogMissing, 503, "The sandbox's node does not hand out its logs"),
    "logs-waiting": (errors.LogMissing, 503, "The container has not started, so it has no log yet"),
    "namespace-get-missing": (errors.NamespaceMissing, 503, "The namespace of the sandboxes does not exist"),
    "plugin-answers-other-version": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-bad-token": (errors.ClusterRefused, 502, "The cluster refuses the provisioner's credentials"),
    "plugin-fails": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-fails-apply": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-fails-silently": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-interactive-always": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-missing": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-missing-hint": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-missing-path": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-no-interactive-mode": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "plugin-no-status": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-not-executable": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-not-json": (errors.ClusterRefused, 502, "The provisioner's credential plugin failed"),
    "plugin-notice-apply-invalid": (
        errors.TemplateRefused,
        502,
        "The cluster refuses the sandbox's Pod at metadata.name",
    ),
    "plugin-notice-get-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "plugin-notice-unauthorized": (errors.ClusterRefused, 502, "The cluster refuses the provisioner's credentials"),
    "plugin-v1alpha1": (errors.ClusterRefused, 502, "The provisioner's kubeconfig can't be used"),
    "port-forward-api-killed": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "port-forward-api-killed-open-connection": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "port-forward-crashed-container": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "port-forward-forbidden": (
        errors.ClusterRefused,
        502,
        "The provisioner lacks the right to create pods/portforward in the cluster",
    ),
    "port-forward-get-only": (
        errors.ClusterRefused,
        502,
        "The provisioner lacks the right to create pods/portforward in the cluster",
    ),
    "port-forward-kubelet-gone": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "port-forward-missing": (errors.ObjectsMissing, 503, "The sandbox was deleted in the meantime"),
    "port-forward-no-get-pods": (
        errors.ClusterRefused,
        502,
        "The provisioner lacks the right to get pods in the cluster",
    ),
    "port-forward-nothing-listens": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "port-forward-pending": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
    "port-forward-pending-running-timeout": (
        errors.ClusterRefused,
        502,
        "The cluster refused the request for an unknown reason",
    ),
    "port-forward-pod-deleted": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "port-forward-port-taken": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
    "port-forward-refused": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "port-forward-succeeded": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
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
    "server-plain-http": (
        errors.ClusterRefused,
        502,
        "The cluster does not answer as an API server does: its address may need https",
    ),
    "unauthorized": (errors.ClusterRefused, 502, "The cluster refuses the provisioner's credentials"),
    "unauthorized-apply": (errors.ClusterRefused, 502, "The cluster refuses the provisioner's credentials"),
    "unknown-authority": (
        errors.ClusterUnavailable,
        503,
        "The connection to the cluster is not trusted: its certificate does not fit",
    ),
    "unknown-host": (errors.ConnectionFailed, 503, "The cluster can't be reached"),
    "wait-delete-node-lost": (errors.ClusterTimeout, 504, "The cluster did not answer in time"),
    "wait-delete-timeout": (errors.ClusterTimeout, 504, "The cluster did not answer in time"),
    "watch-forbidden": (errors.ClusterRefused, 502, "The provisioner lacks the right to list services in the cluster"),
    "watch-two-kinds": (errors.ClusterRefused, 502, "The cluster refused the request for an unknown reason"),
}


def test_every_recorded_failure_has_an_expected_error() -> None:
    assert set(EXPECTED) == FAILED


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recorded_failure_becomes_its_error(name: str) -> None:
    error = classify(case(name).stderr)
    assert (type(error), error.status, error.public) == EXPECTED[name]


# What kubectl prints about these comes from the cluster or the network, not from the kubeconfig itself.
OF_CLUSTER = {"kubeconfig-impersonate-forbidden-name", "kubeconfig-proxy-refused", "kubeconfig-server-with-path"}


@pytest.mark.parametrize(
    "name", sorted(one for one in FAILED - OF_CLUSTER if one.startswith(("kubeconfig-", "context-")))
)
def test_a_broken_kubeconfig_is_a_502_that_is_never_retried(name: str) -> None:
    error = classify(case(name).stderr)
    assert (type(error), error.status) == (errors.ClusterRefused, 502)


@pytest.mark.parametrize(
    ("name", "request_fields"),
    [
        ("apply-env-twice", ("env",)),
        ("apply-env-three-times", ("env",)),
        ("apply-wrong-type-env-number", ("env",)),
        ("apply-wrong-type-label", ("labels", "sandbox_id")),
        ("apply-mount-path-twice", ("extra_mounts",)),
        ("apply-quota-must-specify", ("resources",)),
        ("create-quota-must-specify", ("resources",)),
        ("apply-limit-range", ("resources",)),
        ("apply-port-twice", ()),
        ("apply-wrong-type-string", ()),
        ("apply-service-account-missing", ()),
        ("apply-priority-class-missing", ()),
    ],
)
def test_a_recorded_refusal_names_the_request_fields_to_blame(name: str, request_fields: tuple[str, ...]) -> None:
    error = classify(case(name).stderr)
    assert isinstance(error, errors.ClusterRefused)
    assert error.request_fields == request_fields


FORBIDDEN = 'Error from server (Forbidden): pods "sandbox-a" is forbidden: '


@pytest.mark.parametrize(
    ("demands", "said", "request_fields"),
    [
        ("limits.cpu for: side", "limits.cpu for the container side", ()),
        ("limits.cpu for: side,sandbox", "limits.cpu for the containers side and sandbox", ("resources",)),
        (
            "limits.cpu for: sandbox; limits.memory for: side",
            "limits.cpu for the container sandbox; limits.memory for the container side",
            ("resources",),
        ),
        # Before Kubernetes 1.23
        ("limits.cpu,limits.memory", "limits.cpu and limits.memory", ("resources",)),
        ("requests.nvidia.com/gpu for: sandbox", "requests.nvidia.com/gpu for the container sandbox", ("resources",)),
        ("something Else", "resources", ("resources",)),
    ],
)
def test_a_quota_that_demands_resources_says_which(demands: str, said: str, request_fields: tuple[str, ...]) -> None:
    error = classify(f"{FORBIDDEN}failed quota: q: must specify {demands}\n")
    assert isinstance(error, errors.ClusterRefused)
    assert error.public == f"The cluster's quota demands {said}, which the template does not set"
    assert error.request_fields == request_fields


@pytest.mark.parametrize(
    ("account", "kind"), [("default", errors.ServiceAccountMissing), ("default-2", errors.ClusterRefused)]
)
def test_only_the_default_service_account_is_waited_for(account: str, kind: type[errors.ProvisionerError]) -> None:
    said = f'error looking up service account default/{account}: serviceaccount "{account}" not found'
    assert type(classify(FORBIDDEN + said)) is kind


APPLY = "Error from server: failed to create typed patch object (deer-flow/sandbox-a; /v1, Kind=Pod): "


@pytest.mark.parametrize(
    ("stderr", "public"),
    [
        (
            f"{APPLY}errors:\n  .spec.x: field not declared in schema\n  .spec.y: field not declared in schema\n",
            "spec.x",
        ),
        (
            f'{APPLY}.spec.hostNetwork: expected boolean, got &value.valueUnstructured{{Value:"s3cret"}}',
            "spec.hostNetwork",
        ),
        (
            (
                f"{APPLY}.spec.containers: element 0: associative list with keys has an element that omits key "
                'field "name"'
            ),
            "The sandbox lacks name in an entry of spec.containers",
        ),
        (
            (
                'error: error validating "STDIN": error validating data: '
                "ValidationError(Pod.spec.containers[0].env[0].value): "
                'invalid type for io.k8s.api.core.v1.EnvVar.value: got "integer", expected "string"; if you '
                "choose to ignore"
            ),
            "The sandbox has the wrong type at spec.containers[0].env[0].value: string is expected",
        ),
        (
            (
                'error: error validating "STDIN": error validating data: ValidationError(Pod.spec): '
                'missing required field "containers" in io.k8s.api.core.v1.PodSpec; if you choose to ignore'
            ),
            "The sandbox lacks the field spec.containers",
        ),
        ('error: error validating "STDIN": error validating data: kind not set', "does not know a field"),
        (
            'The Pod "sandbox-a" is invalid: spec.x[0].name: Duplicate value: "s3cret"',
            'spec.x[0].name: "s3cret" is there',
        ),
        (
            'The Pod "sandbox-a" is invalid: spec.x[0].value: Duplicate value: "s3cret"',
            "spec.x[0].value: it is there twice",
        ),
    ],
)
def test_a_malformed_object_is_refused_with_its_field(stderr: str, public: str) -> None:
    error = classify(stderr)
    assert isinstance(error, errors.TemplateRefused)
    assert public in error.public
    assert "s3cret" not in error.public or "name" in public


def test_the_words_of_an_unknown_refusal_are_kept_for_the_operator() -> None:
    error = classify(f'{FORBIDDEN}on Sundays no Pod with {{"value": "s3cret"}} may start')
    assert isinstance(error, errors.ClusterRefused)
    assert error.words == f'{FORBIDDEN}on Sundays no Pod with {{"value": "(hidden)"}} may start'
    assert "Sundays" not in error.public


@pytest.mark.parametrize("name", ["apply-quota-must-specify", "kuberc-delete-raw", "kubeconfig-user-twice"])
def test_no_words_are_kept_of_a_known_refusal_or_of_kubectl(name: str) -> None:
    error = classify(case(name).stderr)
    assert isinstance(error, errors.ClusterRefused)
    assert error.words == ""


# What a credential plugin may say.
NOTICES = [
    "Update available: 1.2.3",
    "pods not found",
    'secrets "token" not found',
    "login: Error from server (Forbidden): the session has ended",
    'cache: Error from server (NotFound): secrets "token" not found',
    "  .spec.containers: field not declared in schema",
    "* a new version is available: see https://example.org",
    "warning: i/o timeout, timed out waiting, trying again: error: connection refused",
    "(Unauthorized) You must be logged in, provide credentials",
    "Warning: (Conflict) uid mismatch",
    'E1126 03:40:09.663110   21720 login.go:1] "Error from server (Forbidden): exceeded quota"',
    "",
    "100%\r",
]


def seen(stderr: str) -> tuple[type[errors.ProvisionerError], str, object, bool]:
    error = classify(stderr)
    return type(error), error.public, getattr(error, "names", None), is_unauthorized(stderr)


@pytest.mark.parametrize("notice", [*NOTICES, "error: the cache is stale", "error: (Unauthorized) connection refused"])
@pytest.mark.parametrize(
    "name",
    [
        "apply-annotation-only-list-both-gone",
        "apply-immutable-change",
        "apply-invalid-name",
        "apply-missing-namespace",
        "apply-quota-exceeded",
        "apply-service-port-no-name",
        "delete-missing",
        "get-missing",
        "server-hangs",
        "unauthorized",
    ],
)
def test_a_plugins_notice_in_any_place_changes_nothing(name: str, notice: str) -> None:
    stderr = case(name).stderr
    lines = stderr.splitlines(keepends=True)
    for place in range(len(lines) + 1):
        assert seen("".join([*lines[:place], f"{notice}\n", *lines[place:]])) == seen(stderr), place


@pytest.mark.parametrize("name", ["get-missing", "delete-missing", "get-forbidden", "unauthorized", "refused-apply"])
def test_a_notice_without_a_line_end_changes_nothing(name: str) -> None:
    stderr = "\n".join(messages(case(name).stderr)) + "\n"
    assert seen(f"Logging in ... {stderr}") == seen(stderr)


def test_what_only_looks_like_an_answer_is_none() -> None:
    said = "login: Error from server (Forbidden): no\nlogin: Error from server (Gone): no\nlogin: (Unauthorized)\n"
    stderr = said + case("get-missing").stderr
    assert not is_forbidden(stderr)
    assert not is_expired(stderr)
    assert not is_unauthorized(stderr)
    assert is_forbidden(said + case("get-forbidden").stderr)


BEGINS_AS_KUBECTLS = re.compile(
    r"(?i)error|the |unable|server returned|operation cannot|apply failed|resource mapping|\* |  ", re.MULTILINE
)


def is_a_notice(text: str) -> bool:
    return not any(BEGINS_AS_KUBECTLS.match(line) for line in re.split(r"[\r\n]", text))


ANY_TEXT = st.binary(max_size=60).map(lambda raw: raw.decode(errors="replace"))
WORDS = st.sampled_from([*NOTICES, *(line for name in sorted(FAILED) for line in case(name).stderr.splitlines())])
NOTICE = st.one_of(ANY_TEXT, WORDS.map(lambda line: f"login: {line}"), st.sampled_from(NOTICES)).filter(is_a_notice)


@given(name=st.sampled_from(sorted(FAILED)), notices=st.lists(st.tuples(st.integers(0, 30), NOTICE), max_size=4))
def test_lines_that_do_not_begin_as_kubectls_change_no_error(name: str, notices: list[tuple[int, str]]) -> None:
    stderr = case(name).stderr
    lines = stderr.splitlines(keepends=True)
    for place, notice in notices:
        lines.insert(min(place, len(lines)), f"{notice}\n")
    assert seen("".join(lines)) == seen(stderr)


@given(name=st.sampled_from(sorted(FAILED)), texts=st.lists(st.tuples(st.integers(0, 9), ANY_TEXT | WORDS), max_size=6))
def test_any_text_beside_kubectls_becomes_an_error_of_the_service(name: str, texts: list[tuple[int, str]]) -> None:
    lines = case(name).stderr.splitlines(keepends=True)
    for place, text in texts:
        lines.insert(min(place, len(lines)), text)
    assert isinstance(classify("".join(lines)), errors.ProvisionerError)
