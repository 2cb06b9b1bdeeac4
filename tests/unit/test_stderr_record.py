"""The error of every recorded failure: class, status and message (`recorded_errors.json`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from sandboxes import errors
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.process import Completed
from sandboxes.kubectl.rules import KUBECONFIG_UNUSABLE
from sandboxes.kubectl.stderr import classify
from tests.record import case
from tests.unit.failures import FAILED

# case: (class, HTTP status, public message)
EXPECTED: dict[str, tuple[type[errors.ProvisionerError], int, str]] = {
    name: (getattr(errors, kind), status, public)
    for name, (kind, status, public) in json.loads(Path(__file__).with_name("recorded_errors.json").read_text()).items()
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
async def test_a_broken_kubeconfig_is_a_502_that_is_never_retried(name: str) -> None:
    async def runner(args: Sequence[str], *, stdin: bytes | None) -> Completed:  # noqa: ARG001 - as Runner
        return Completed(1, b"", case(name).stderr)

    # Of a kubeconfig that named a server at the start.
    kubectl = Kubectl(runner, max_processes=1, max_waiting=1, server="https://10.0.0.1:6443")
    with pytest.raises(errors.ProvisionerError) as caught:
        await kubectl.run("get", "pods")
    assert (type(caught.value), caught.value.public) == (errors.ClusterRefused, KUBECONFIG_UNUSABLE)
    assert caught.value.status == 502


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
