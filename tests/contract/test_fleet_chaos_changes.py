"""Several clusters with callers at work, while a cluster drains or is full, and the list of clusters changes."""

from __future__ import annotations

import asyncio
import time

import kmock
import pytest

from tests.contract.faults import makes_an_object
from tests.contract.fleet_chaos import Chaos, StartChaos, marks, until
from tests.contract.test_full_quota import of_each
from tests.waiting import Nothing

pytestmark = [*marks, pytest.mark.chaos]


def made_on(chaos: Chaos, cluster: str) -> set[str]:
    """Return the ids whose Pods are on this cluster."""
    return {sandbox_id for sandbox_id, on in chaos.ledger.pods().items() if cluster in on}


def lacks_one_of(chaos: Chaos, home: str, began: float) -> list[str]:
    """Return the answers since then, unless one has made a new sandbox that has this home."""
    answers = [(one.home, one.status) for one in chaos.new_since(began)]
    return [] if (home, 200) in answers else [f"new: {answers}"]


def lacks_new_on(chaos: Chaos, cluster: str, before: set[str]) -> list[str]:
    """Return what is on this cluster, unless that is more than `before`."""
    now = made_on(chaos, cluster)
    return [] if now - before else [f"on {cluster}: {sorted(now)}"]


async def test_nothing_is_lost_when_a_cluster_drains_and_it_gets_no_new_sandboxes(start_chaos: StartChaos) -> None:
    chaos = await start_chaos(2)
    async with chaos.callers():
        await chaos.at_work()
        chaos.write(west={"weight": 0})
        await chaos.becomes("west", "draining")
        # Creates that were under way may still go there.
        began = time.monotonic()
        assert await chaos.name("west") == 429
        await until(Nothing("no new sandbox with its home west", lambda: lacks_one_of(chaos, "west", began)))
        # One that exists keeps its cluster.
        new = chaos.new_since(began)
        assert {one.body["cluster"] for one in new if one.status == 200} == {"east"}
        assert {(one.status, *one.wishes) for one in new if one.status != 200} == {(429, "west")}
        chaos.write()
        await chaos.becomes("west", "ready")
        before = made_on(chaos, "west")
        await until(Nothing("no new Pod", lambda: lacks_new_on(chaos, "west", before)))
    await chaos.assert_nothing_lost()


@pytest.mark.parametrize(
    ("resource", "refusal"),
    [
        ("pods", "apply-quota-exceeded"),
        ("services", "apply-nodeports-exhausted"),
    ],
)
async def test_nothing_is_lost_when_a_cluster_is_full_and_others_take_its_creates(
    start_chaos: StartChaos, resource: str, refusal: str
) -> None:
    chaos = await start_chaos(3)
    is_full = asyncio.Event()
    west = chaos.clusters["west"]

    # In the criterion: a payload of StopIteration would end the rule at the first request before.
    def is_refused(request: kmock.Request) -> bool:
        return is_full.is_set() and makes_an_object(west, request)

    west.kmock["patch", kmock.resource(f"v1/{resource}"), is_refused] << of_each(refusal)
    async with chaos.callers():
        await chaos.at_work()
        is_full.set()
        began = time.monotonic()
        assert await chaos.name("west") == 429
        await until(Nothing("no new sandbox with its home west", lambda: lacks_one_of(chaos, "west", began)))
        creates = chaos.ledger.since(began, "create")
        assert {one.status for one in creates if not one.is_shared} <= {200, 429}
        # Only those that have named it are refused.
        assert not [one for one in creates if one.status == 429 and "west" not in one.wishes]
        assert not [one for one in chaos.new_since(began) if one.body.get("cluster") == "west"]
        is_full.clear()
        before = made_on(chaos, "west")
        await until(Nothing("no new Pod", lambda: lacks_new_on(chaos, "west", before)))
    await chaos.assert_nothing_lost()


async def test_nothing_is_lost_when_a_cluster_joins_and_homes_move(start_chaos: StartChaos) -> None:
    chaos = await start_chaos(3, listed=2)
    async with chaos.callers():
        await chaos.at_work()
        await chaos.list_only("east", "west", "north")
        await chaos.at_work()
    await chaos.assert_nothing_lost()


async def test_nothing_is_lost_when_a_cluster_joins_while_another_is_away(start_chaos: StartChaos) -> None:
    chaos = await start_chaos(3, listed=2)
    async with chaos.callers():
        await chaos.at_work()
        chaos.clusters["west"].faults.refuse()
        await chaos.lacks("west")
        await chaos.list_only("east", "west", "north")
        await until(chaos.more(6, without="west"))
        chaos.clusters["west"].faults.clear()
        await chaos.at_work()
    await chaos.assert_nothing_lost()


async def test_nothing_is_lost_when_a_lost_cluster_is_taken_out_of_the_list(start_chaos: StartChaos) -> None:
    chaos = await start_chaos(3)
    async with chaos.callers():
        await chaos.at_work()
        chaos.clusters["north"].faults.refuse()
        await chaos.lacks("north")
        chaos.unwanted.add("north")
        with chaos.ledger.others_delete("north"):
            chaos.write(north={"lost": True})
            await until(chaos.more(6, without="north"))
            await chaos.list_only("east", "west")
            await chaos.lacks()
        await chaos.at_work()
    await chaos.assert_nothing_lost()
