"""Filters and pages of a list."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from sandboxes.api.params import WaitQuery, parsed
from sandboxes.errors import Unprocessable
from sandboxes.models.responses import SandboxPage, SandboxResponse
from sandboxes.service.listing import REPEATED, ListQuery, select


def answer(sandbox_id: str, **fields: Any) -> SandboxResponse:
    plain: dict[str, Any] = {
        "sandbox_url": "http://n:1", "status": "Running", "ready": True, "reason": None, "message": None,
        "created_at": "2026-01-01T00:00:00Z", "expires_at": None, "thread_id": "t", "user_id": "u",
        "template": "default", "image": "i", "node": "n",
    }  # fmt: skip
    return SandboxResponse(sandbox_id=sandbox_id, **{**plain, **fields})


def query(*items: tuple[str, str]) -> ListQuery:
    return parsed(ListQuery, MultiDict(items), repeated=REPEATED)


def ids(answers: list[SandboxResponse], *items: tuple[str, str]) -> list[str]:
    return [one.sandbox_id for one in select(answers, query(*items)).sandboxes]


SANDBOXES = [
    answer("a", status="Pending", ready=False),
    answer("b", thread_id="other"),
    answer("c", user_id="other"),
    answer("d", template=None, thread_id=None, user_id=None),
]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], ["a", "b", "c", "d"]),
        ([("status", "Pending")], ["a"]),
        ([("status", "NotFound")], []),
        ([("ready", "true")], ["b", "c", "d"]),
        ([("ready", "false")], ["a"]),
        ([("thread_id", "other")], ["b"]),
        ([("user_id", "u")], ["a", "b"]),
        ([("template", "default")], ["a", "b", "c"]),
        ([("ready", "true"), ("user_id", "u"), ("template", "default")], ["b"]),
        ([("unknown", "x"), ("status", "Pending")], ["a"]),
    ],
)
def test_every_filter_must_match(items: list[tuple[str, str]], expected: list[str]) -> None:
    assert ids(SANDBOXES, *items) == expected


@pytest.mark.parametrize(
    ("labels", "fits"),
    [
        (["team"], True),
        (["team=red"], True),
        (["team=blue"], False),
        (["team="], False),
        (["empty="], True),
        (["absent"], False),
        (["team=red", "example.com/tier=1"], True),
        (["team=red", "absent=1"], False),
    ],
)
def test_every_label_filter_must_match(labels: list[str], fits: bool) -> None:
    pod = {"metadata": {"labels": {"team": "red", "example.com/tier": "1", "empty": ""}}}
    assert query(*(("label", one) for one in labels)).fits(pod) is fits


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "running"), ("ready", "maybe"), ("ready", ""), ("thread_id", "a b"), ("thread_id", ""),
        ("user_id", "a\n"), ("template", ""), ("label", ""), ("label", "=x"), ("label", "a=b=c"), ("label", "-a"),
        ("label", "a b"), ("limit", "0"), ("limit", "1001"), ("limit", "x"), ("limit", "-1"), ("limit", ""),
        ("cursor", ""), ("cursor", "x"), ("cursor", "ä"), ("cursor", "Mjph"), ("cursor", "/+=="),
    ],
)  # fmt: skip
def test_invalid_parameters_are_rejected_by_name(name: str, value: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        query((name, value))
    assert [(one["loc"], bool(one["msg"])) for one in refused.value.fields] == [(["query", name], True)]


def test_repeated_parameters_other_than_label_are_rejected() -> None:
    with pytest.raises(Unprocessable) as refused:
        query(("status", "Running"), ("status", "Failed"))
    assert refused.value.fields[0]["loc"] == ["query", "status"]
    with pytest.raises(Unprocessable):
        parsed(WaitQuery, MultiDict([("wait_seconds", "1"), ("wait_seconds", "2")]))


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf", ""])
def test_a_wait_must_be_a_number_of_seconds(value: str) -> None:
    with pytest.raises(Unprocessable) as refused:
        parsed(WaitQuery, MultiDict([("wait_seconds", value)]))
    assert refused.value.fields[0]["loc"] == ["query", "wait_seconds"]


def test_without_a_limit_the_response_has_only_the_contracts_fields() -> None:
    assert json.loads(select(SANDBOXES, query(("status", "Pending"))).as_json).keys() == {"sandboxes", "count"}


def test_a_page_counts_its_own_sandboxes_and_the_last_has_no_cursor() -> None:
    first = select(SANDBOXES, query(("limit", "3")))
    assert isinstance(first, SandboxPage)
    assert (first.count, first.next_cursor is None) == (3, False)
    last = json.loads(select(SANDBOXES, query(("limit", "3"), ("cursor", first.next_cursor or ""))).as_json)
    assert [one["sandbox_id"] for one in last.pop("sandboxes")] == ["d"]
    assert last == {"count": 1, "next_cursor": None}
    exact = json.loads(select(SANDBOXES, query(("limit", "4"))).as_json)
    assert exact["next_cursor"] is None
    assert json.loads(first.as_json)["next_cursor"] == first.next_cursor


IDS = st.sets(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,3}[a-z0-9])?", fullmatch=True), max_size=12)


@given(always=IDS, changing=st.lists(IDS, min_size=1, max_size=8), limit=st.integers(1, 5))
def test_paging_through_a_changing_list_returns_each_sandbox_once(
    always: set[str], changing: list[set[str]], limit: int
) -> None:
    returned: list[str] = []
    items = [("limit", str(limit))]
    for number in range(100):
        there = always | changing[number % len(changing)]
        page = select([answer(one) for one in sorted(there)], query(*items))
        assert isinstance(page, SandboxPage)
        returned += [one.sandbox_id for one in page.sandboxes]
        assert page.count == len(page.sandboxes) <= limit
        if page.next_cursor is None:
            break
        items = [("limit", str(limit)), ("cursor", page.next_cursor)]
    else:
        pytest.fail("every page had a next one")
    assert returned == sorted(set(returned))
    assert always <= set(returned)
