"""Rejections by the cluster → the fields of a create request that may be the cause."""

from __future__ import annotations

import pytest

from sandboxes import errors
from sandboxes.kubectl.stderr import classify
from tests.record import case


@pytest.mark.parametrize(
    ("name", "request_fields"),
    [
        ("apply-label-too-long", ("labels", "sandbox_id")),
        ("apply-invalid-name", ("sandbox_id",)),
        ("apply-hostpath-backstep", ("extra_mounts",)),
        ("apply-quantity-invalid", ("resources",)),
        ("apply-request-over-limit", ("resources",)),
        ("apply-forbidden", ()),
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
def test_a_recorded_rejection_names_the_request_fields_that_may_cause_it(
    name: str, request_fields: tuple[str, ...]
) -> None:
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
def test_an_invalid_field_of_the_pod_is_mapped_to_request_fields(field: str, request_fields: tuple[str, ...]) -> None:
    error = classify(f'The Pod "sandbox-a" is invalid: {field}: Invalid value: "x": no')
    assert isinstance(error, errors.ClusterRefused)
    assert error.request_fields == request_fields


def test_a_limit_range_rejection_may_be_caused_by_resources() -> None:
    error = classify(
        'Error from server (Forbidden): pods "sandbox-a" is forbidden: '
        "[minimum memory usage per Pod is 1Gi, but request is 64Mi, cpu max limit to request ratio per Container is 4, "
        "but provided ratio is 10.000000]"
    )
    assert isinstance(error, errors.ClusterRefused)
    assert error.request_fields == ("resources",)
