"""kubectl's stderr → the service's error, for every recorded call that failed."""

from __future__ import annotations

import re

import pytest

from sandboxes import errors
from sandboxes.kubectl.stderr import classify, messages
from sandboxes.kubectl.withheld import repeatable
from tests.record import case
from tests.unit.failures import FAILED


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
