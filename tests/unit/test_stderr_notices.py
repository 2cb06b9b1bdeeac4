"""Text of credential plugins beside kubectl's own messages in stderr."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes import errors
from sandboxes.kubectl.stderr import classify, is_expired, is_forbidden, is_unauthorized, messages
from tests.record import case
from tests.unit.failures import FAILED

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


# May be kubectl's message after text without a line end: see test_a_notice_without_a_line_end_changes_nothing.
MAY_BE_KUBECTLS = re.compile(r'Error from server \(NotFound\): .*" not found\s*\Z', re.DOTALL)


def is_a_notice(text: str) -> bool:
    return not MAY_BE_KUBECTLS.search(text) and not any(
        BEGINS_AS_KUBECTLS.match(line) for line in re.split(r"[\r\n]", text)
    )


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
