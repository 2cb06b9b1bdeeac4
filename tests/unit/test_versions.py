"""The version of a kubectl is asked for once, however many clusters use it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from sandboxes.errors import StartupError
from sandboxes.kubectl.runner import KubectlRunner
from sandboxes.kubectl.versions import Versions


class Asked:
    """Answers with the content of the program, which is its version; empty: it can't be run."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary
        self.count = 0
        self.versions = Versions(self._ask)

    async def _ask(self, runner: KubectlRunner) -> str:
        self.count += 1
        await asyncio.sleep(0)
        if not (version := runner.binary.read_text()):
            raise StartupError("It can't be run.")
        return version

    def __call__(self) -> Awaitable[str]:
        return self.versions.of(KubectlRunner(self.binary, (), {}))


@pytest.fixture
def asked(tmp_path: Path) -> Asked:
    binary = tmp_path / "kubectl"
    binary.write_text("v1.37.1")
    return Asked(binary)


async def test_a_kubectl_is_asked_once_by_all_clusters(asked: Asked) -> None:
    assert await asyncio.gather(*(asked() for _ in range(20))) == ["v1.37.1"] * 20
    assert await asked() == "v1.37.1"
    assert asked.count == 1


async def test_a_kubectl_that_was_replaced_is_asked_again(asked: Asked) -> None:
    await asked()
    asked.binary.write_text("v1.38.10")
    assert await asked() == "v1.38.10"


async def test_all_clusters_get_the_error_of_a_kubectl_which_a_later_one_asks_again(asked: Asked) -> None:
    asked.binary.write_text("")
    outcomes = await asyncio.gather(*(asked() for _ in range(20)), return_exceptions=True)
    assert [type(one) for one in outcomes] == [StartupError] * 20
    assert asked.count == 1
    with pytest.raises(StartupError):
        await asked()
    assert asked.count == 2


async def test_a_cluster_that_gives_up_takes_no_answer_from_the_others(asked: Asked) -> None:
    one, other = (asyncio.ensure_future(asked()) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    assert await other == "v1.37.1"
