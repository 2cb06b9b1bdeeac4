"""Several clusters with callers at work, and one of them away: nothing is lost, doubled or falsely answered."""

from __future__ import annotations

import pytest
import yaml

from tests.contract.fleet_chaos import StartChaos, marks

pytestmark = marks


@pytest.mark.parametrize("number", [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.chaos)])
async def test_nothing_is_lost_when_a_cluster_is_killed_and_comes_back(start_chaos: StartChaos, number: int) -> None:
    chaos = await start_chaos(number)
    async with chaos.callers():
        await chaos.at_work()
        chaos.clusters["west"].faults.refuse()
        await chaos.go_on_without("west")
        chaos.clusters["west"].faults.clear()
        await chaos.at_work()
    await chaos.assert_nothing_lost()


@pytest.mark.chaos
@pytest.mark.deadlines(read=12.0, create=30.0, delete=20.0, ready=10.0, undo=10.0, kubectl_call=25.0)
@pytest.mark.parametrize("number", [2, 3])
async def test_nothing_is_lost_when_a_cluster_hangs(start_chaos: StartChaos, number: int) -> None:
    chaos = await start_chaos(number)
    async with chaos.callers():
        await chaos.at_work()
        chaos.clusters["west"].faults.hang(open_watches=True)
        await chaos.go_on_without("west")
        chaos.clusters["west"].faults.clear()
        await chaos.at_work()
    await chaos.assert_nothing_lost()


@pytest.mark.chaos
async def test_nothing_is_lost_when_a_cluster_answers_500(start_chaos: StartChaos) -> None:
    chaos = await start_chaos(3)
    async with chaos.callers():
        await chaos.at_work()
        chaos.clusters["west"].faults.answer(500)
        chaos.clusters["west"].faults.fail_watches(500)
        await chaos.go_on_without("west")
        chaos.clusters["west"].faults.clear()
        await chaos.at_work()
    await chaos.assert_nothing_lost()


@pytest.mark.chaos
async def test_nothing_is_lost_when_the_credentials_of_a_cluster_are_refused(start_chaos: StartChaos) -> None:
    chaos = await start_chaos(3)
    kubeconfig = chaos.clusters["west"].kubeconfig
    good = kubeconfig.read_text()
    config = yaml.safe_load(good)
    config["users"][0]["user"]["token"] = "refused"
    async with chaos.callers():
        await chaos.at_work()
        kubeconfig.write_text(yaml.safe_dump(config))
        chaos.clusters["west"].end_watches()
        await chaos.go_on_without("west")
        kubeconfig.write_text(good)
        await chaos.at_work()
    await chaos.assert_nothing_lost()
