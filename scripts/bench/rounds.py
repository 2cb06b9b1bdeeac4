"""What is done in which order: rounds, the long list, the clean-up. Knows neither HTTP nor the terminal."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from scripts.bench.client import BenchError
from scripts.bench.figures import CREATE, DELETE, GET, HEALTH, LIST, Phase, Samples
from scripts.bench.phases import FAILED, Tally, run_phase, said

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from scripts.bench.direct import DirectTarget
    from scripts.bench.phases import Call
    from scripts.bench.targets import ProvisionerTarget, Target

# How long what was deleted may take to be gone: a container has 5 s to end (manifests/sandbox), and many wait in line.
GONE_SECONDS = 60.0
GONE_SECONDS_EACH = 0.1
_PAUSE_SECONDS = 0.2

# A list of 5,000 takes long, and the twentieth tells no more than the tenth.
LONG_LISTS = 20

# The memory after the work is looked at this much later.
SETTLE_SECONDS = 5.0

# How many at once clean up: gently, since what is left may be there because the service could not keep up.
HELPERS = 8


@dataclass(frozen=True)
class Plan:
    """How much of everything; `reads` are the requests of one phase of health or get."""

    count: int
    callers: int
    rounds: int
    reads: int
    list_size: int | None = None


class Observer(Protocol):
    """Whom the run tells how it goes."""

    def say(self, text: str) -> None:
        """Take a line for a person who waits."""

    async def measure_memory(self, when: str, *, settle: float = 0.0) -> None:
        """Look at the memory, if that is wanted, after so many seconds of rest."""


class Bench:
    """One run. `samples` and `tally` grow as it goes: what was measured can be told however it ends."""

    def __init__(self, plan: Plan, ours: ProvisionerTarget, direct: DirectTarget | None, observer: Observer) -> None:
        self._plan = plan
        self._ours = ours
        self._direct = direct
        self._targets: list[Target] = [ours] if direct is None else [ours, direct]
        self._observer = observer
        self._prefix = f"bench-{secrets.token_hex(4)}-"
        self._ids_used = 0
        self.samples: Samples = {target.name: {} for target in self._targets}
        self.tally = Tally()

    @property
    def made(self) -> set[str]:
        """The sandboxes that may be there: asked for, and not deleted by a good answer."""
        return set().union(*(target.made for target in self._targets))

    def stop(self, why: str) -> None:
        """Begin nothing more; what is under way may end."""
        self.tally.stopped = self.tally.stopped or why

    async def run(self) -> None:
        """Do all of the plan, unless it is stopped; raises BenchError if it can't begin, or makes no sense."""
        await self._observer.measure_memory("idle, before")
        try:
            await self._ours.listed()
            await self._compare()
        except FAILED as error:
            raise BenchError(f"The run can't begin: {said(error)}") from error
        for number in range(self._plan.rounds):
            self._observer.say(f"round {number + 1} of {self._plan.rounds}")
            await self._round(self._targets if number % 2 == 0 else self._targets[::-1])
        if self._plan.list_size is not None:
            await self._long_list(self._plan.list_size)
        await self._observer.measure_memory(f"idle, {SETTLE_SECONDS:.0f} s after", settle=SETTLE_SECONDS)

    async def clean_up(self) -> set[str]:
        """Delete what may be left of the run, until nothing of it is seen; returns what is left after all."""
        left = self.made
        deadline = monotonic() + _patience(len(left))
        remove = self._ours.delete if self._direct is None else self._direct.remove
        while left and monotonic() < deadline:
            unheard = Tally()
            await run_phase(remove, sorted(left), HELPERS, unheard, "clean-up")
            await asyncio.sleep(_PAUSE_SECONDS)
            with contextlib.suppress(BenchError, *FAILED):  # then look again
                left = await self._seen(self._targets[-1:])
        return left

    async def _compare(self) -> None:
        """Make sure, by one sandbox, that the provisioner and direct do the same work in the same place."""
        if self._direct is None:
            return
        (sandbox_id,) = self._new_ids(1)
        await self._ours.create(sandbox_id)
        await self._direct.check_same_objects(sandbox_id)
        await self._ours.delete(sandbox_id)

    async def _round(self, targets: Sequence[Target]) -> None:
        for callers in sorted({1, self._plan.callers}):
            health = Phase(HEALTH, callers)
            await self._phase(self._ours, health, lambda _: self._ours.health(), [""] * max(self._plan.reads, callers))
            count = max(self._plan.count, callers)  # each caller has something to do
            alive: dict[str, Sequence[str]] = {}
            for target in targets:
                ids = self._new_ids(count)
                target.prepare(ids)
                alive[target.name] = await self._phase(target, Phase(CREATE, callers), target.create, ids)
            for target in targets:
                ids = _in_turn(alive[target.name], max(self._plan.reads, callers))
                await self._phase(target, Phase(GET, callers), target.get, ids)
            for target in targets:
                await self._lists(target, Phase(LIST, callers), alive[target.name], count)
            for target in targets:
                await self._phase(target, Phase(DELETE, callers), target.delete, alive[target.name])
            await self._until(self._all_gone, count * len(targets), "what was deleted is still there")

    async def _lists(self, target: Target, phase: Phase, expected: Sequence[str], times: int) -> None:
        wanted = frozenset(expected)
        await self._phase(target, phase, lambda _: target.list_all(wanted), [""] * times)

    async def _phase(self, target: Target, phase: Phase, call: Call, items: Sequence[str]) -> Sequence[str]:
        """Run one phase of one round, keep its sample, and return the items that went well."""
        if not items or self.tally.stopped:
            return ()
        await target.open_connections(phase.callers)
        where = f"{target.name}, {phase.work}, {phase.callers} at once"
        outcome = await run_phase(call, items, phase.callers, self.tally, where)
        if outcome.sample is not None:
            self.samples[target.name].setdefault(phase, []).append(outcome.sample)
        return outcome.good

    async def _long_list(self, size: int) -> None:
        """Make so many sandboxes, straight if there is a way, and time the list of all; delete them, untimed."""
        maker = self._targets[-1]
        ids = self._new_ids(size)
        self._observer.say(f"making {size} sandboxes for the list ({maker.name})")
        maker.prepare(ids)
        alive = (
            await run_phase(maker.create, ids, self._plan.callers, self.tally, f"{maker.name}, filling the list")
        ).good

        if self.tally.stopped:
            return

        async def all_listed() -> bool:
            return set(alive) <= await self._ours.listed()

        await self._until(all_listed, 0, "the provisioner still does not list all that was made")
        await self._observer.measure_memory(f"with {len(alive)} sandboxes")
        for _ in range(self._plan.rounds):
            for target in self._targets:
                await self._lists(target, Phase(f"{LIST} of {size}", 1), alive, LONG_LISTS)
        self._observer.say(f"deleting {size} sandboxes")
        await run_phase(maker.delete, alive, self._plan.callers, self.tally, f"{maker.name}, emptying the list")
        await self._until(self._all_gone, size, "what was deleted is still there")

    async def _until(self, condition: Callable[[], Awaitable[bool]], size: int, otherwise: str) -> None:
        """Wait for a condition, with a patience that grows with `size`; raises BenchError if it does not come true."""
        deadline = monotonic() + _patience(size)
        while not self.tally.stopped:
            try:
                if await condition():
                    return
            except FAILED as error:
                self.tally.note("waiting", error)
                otherwise = f"there is still no list to see that by: {said(error)}"
            if monotonic() > deadline:
                raise BenchError(f"After {_patience(size):.0f} s {otherwise}.")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _all_gone(self) -> bool:
        """Whether nothing is seen of the run but what could not be made or deleted, which the clean-up sees to."""
        return await self._seen(self._targets) <= self.made

    async def _seen(self, by: Sequence[Target]) -> set[str]:
        """Return the ids of the run that any of these still lists."""
        seen: set[str] = set().union(*[await target.listed() for target in by])
        return {sandbox_id for sandbox_id in seen if sandbox_id.startswith(self._prefix)}

    def _new_ids(self, count: int) -> list[str]:
        first = self._ids_used
        self._ids_used += count
        return [f"{self._prefix}{number}" for number in range(first, self._ids_used)]


def _in_turn(ids: Sequence[str], times: int) -> list[str]:
    return [ids[number % len(ids)] for number in range(times)] if ids else []


def _patience(size: int) -> float:
    return GONE_SECONDS + GONE_SECONDS_EACH * size
