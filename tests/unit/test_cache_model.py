"""The cache of one kind against a model of an API server: a log of versions with late events, broken watches and lists.

Own calls get their responses in any order, before or after their events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sandboxes import objects as kube
from sandboxes.cluster.cache import ResourceCache
from sandboxes.kubectl.raw import Event, EventType
from sandboxes.objects import KubeObject

# Few names, so each has many changes; three objects make a list of several pages.
NAMES = st.sampled_from(["a", "a", "b", "c"])

# Author of a change: other clients, or the service, whose response arrives later or immediately.
WHO = st.sampled_from(["others", "we", "at once"])
# Disturbances of a watch.
HAPPENS = st.sampled_from(["repeats", "bookmark", "ends in time", "is cut", "is cut", "is cut", "expires"])


class Server:
    """Every change of every object, by version; None for a deleted object."""

    def __init__(self) -> None:
        self.version = 100
        self.log: list[tuple[int, EventType, KubeObject]] = []
        self.history: dict[str, list[tuple[int, KubeObject | None]]] = {name: [(0, None)] for name in "abc"}

    def state(self, name: str) -> KubeObject | None:
        return self.history[name][-1][1]

    def live(self) -> list[KubeObject]:
        return [obj for name in self.history if (obj := self.state(name)) is not None]

    def states_since(self, name: str, version: int) -> list[KubeObject | None]:
        """Return the object's state at `version` and all later states."""
        history = self.history[name]
        first = max(index for index, (since, _) in enumerate(history) if since <= version)
        return [obj for _, obj in history[first:]]

    def write(self, event: EventType, name: str, uid: str, *, is_ending: bool = False) -> KubeObject:
        self.version += 1
        metadata: dict[str, Any] = {"name": name, "uid": uid, "resourceVersion": str(self.version)}
        if is_ending:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        obj = {"kind": "Pod", "metadata": metadata}
        self.log.append((self.version, event, obj))
        self.history[name].append((self.version, None if event == "DELETED" else obj))
        return obj

    def after(self, version: int) -> list[tuple[int, EventType, KubeObject]]:
        return [line for line in self.log if line[0] > version]


@dataclass
class Read:
    """A live read. `found`: the API server's response, once `is_answered`."""

    name: str
    before: KubeObject | None
    is_answered: bool = False
    found: KubeObject | None = None


class CacheAgainstServer(RuleBasedStateMachine):
    """Acts as callers, other clients, the API server and the network, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.server = Server()
        self.replayed: dict[str, KubeObject] = {}
        self.cache = ResourceCache(self.replay)
        self.clock = 0.0
        self.proven_at: float | None = None
        # The last version that the watch delivered.
        self.delivered = 0
        # Remaining objects of the list that is being read; None while there is a watch.
        self.rest: list[KubeObject] | None = []
        self.listed_at = 0
        self.began = 0.0
        # Pending responses to own calls; noted versions by name; uids deleted by own calls.
        self.answers: list[Callable[[], None]] = []
        self.reads: list[Read] = []
        self.noted: dict[str, int] = {}
        self.ended: set[str] = set()
        self.shown: dict[str, int] = {}

    def replay(self, old: KubeObject | None, new: KubeObject | None) -> None:
        either = new or old
        assert either is not None
        name = either["metadata"]["name"]
        known = self.replayed.pop(name, None)
        assert (known is None) == (old is None)
        if known is not None and old is not None:
            # The last event of a deleted object may be newer than the cached version.
            assert known is old or (new is None and known["metadata"]["uid"] == old["metadata"]["uid"])
        if new is not None:
            self.replayed[name] = new

    def tick(self) -> float:
        self.clock += 1
        return self.clock

    @initialize()
    def first_list(self) -> None:
        self.begin_list()

    # Changes by other clients and by the service

    @rule(name=NAMES, is_delete=st.booleans(), has_grace=st.booleans(), who=WHO, gap=st.integers(0, 1))
    def change(self, name: str, is_delete: bool, has_grace: bool, who: str, gap: int) -> None:
        """Create, update or delete; a terminating object can only end. `gap`: preceding versions of other kinds."""
        obj = self.server.state(name)
        self.server.version += gap
        if obj is None:
            made = self.server.write("ADDED", name, f"uid-{self.server.version}")
            self.respond(lambda: self.note(made), who)
        elif kube.is_terminating(obj):
            self.server.write("DELETED", name, obj["metadata"]["uid"], is_ending=True)
        elif is_delete:
            uid = obj["metadata"]["uid"]
            known = self.cache.objects.get(name)
            read = known if known is not None and known["metadata"]["uid"] == uid else obj
            self.server.write("MODIFIED" if has_grace else "DELETED", name, uid, is_ending=True)
            self.respond(lambda: self.note_end(read), who)
        else:
            updated = self.server.write("MODIFIED", name, obj["metadata"]["uid"])
            self.respond(lambda: self.note(updated), who)

    # Responses to own calls

    def respond(self, answer: Callable[[], None], who: str) -> None:
        if who == "at once":
            answer()
        elif who == "we":
            self.answers.append(answer)

    def note(self, obj: KubeObject) -> None:
        name = obj["metadata"]["name"]
        self.noted[name] = max(self.noted.get(name, 0), int(obj["metadata"]["resourceVersion"]))
        self.cache.note(obj)

    def note_end(self, obj: KubeObject) -> None:
        self.ended.add(obj["metadata"]["uid"])
        self.cache.note_end(obj)

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))()

    @rule(name=NAMES)
    def begin_read(self, name: str) -> None:
        self.reads.append(Read(name, self.cache.objects.get(name)))

    @precondition(lambda self: self.reads)
    @rule(data=st.data())
    def continue_read(self, data: st.DataObject) -> None:
        read = data.draw(st.sampled_from(self.reads))
        if not read.is_answered:
            read.is_answered, read.found = True, self.server.state(read.name)
            return
        self.reads.remove(read)
        if read.found is not None:
            self.note(read.found)
        elif read.before is not None:
            self.note_end(read.before)

    # The watch

    def deliver(self, count: int) -> None:
        for version, event, obj in self.server.after(self.delivered)[:count]:
            self.delivered = version
            self.cache.apply_event(Event(event, obj, version), self.tick())
            if self.proven_at is not None:
                self.proven_at = self.clock

    @precondition(lambda self: self.rest is None)
    @rule(count=st.integers(1, 4))
    def deliver_events(self, count: int) -> None:
        self.deliver(count)

    @precondition(lambda self: self.rest is None)
    @rule(happens=HAPPENS, amount=st.integers(0, 3))
    def disturb(self, happens: str, amount: int) -> None:
        """Disturb the watch. One rule for all disturbances, so the other rules get their share of the steps."""
        match happens:
            case "repeats":
                self.repeat(amount)
            case "bookmark":
                self.bookmark(back=amount)
            case "ends in time":
                self.end_in_time()
            case "is cut":
                self.cut()
            case _:
                self.begin_list()

    def repeat(self, count: int) -> None:
        proven_at = self.proven_at
        for version, event, obj in [line for line in self.server.log if line[0] <= self.delivered][-count:]:
            self.cache.apply_event(Event(event, obj, version), self.tick())
        assert self.cache.proven_at == proven_at

    def bookmark(self, back: int) -> None:
        """Send a bookmark: all events up to its version were delivered."""
        coming = self.server.after(self.delivered)
        last = coming[0][0] - 1 if coming else self.server.version
        self.delivered = max(self.delivered, last - back)
        self.cache.apply_event(Event("BOOKMARK", {}, self.delivered), self.tick())
        self.proven_at = self.clock

    def end_in_time(self) -> None:
        self.deliver(len(self.server.log))
        self.cache.ended_in_time(self.tick())
        self.proven_at = self.clock

    def cut(self) -> None:
        """End the watch; the next one continues at the cache's version, and must miss no event."""
        self.cache.failed()
        self.proven_at = None
        assert self.cache.version is not None
        assert self.server.after(self.cache.version) == self.server.after(self.delivered)
        self.delivered = self.cache.version

    # Lists

    def begin_list(self) -> None:
        """Start a list, because the version expired (410) or the previous list failed."""
        self.began = self.tick()
        self.cache.begin_list()
        self.proven_at = None
        self.listed_at, self.rest = self.server.version, self.server.live()

    @precondition(lambda self: self.rest is not None)
    @rule(size=st.integers(1, 3), fails=st.sampled_from([False, False, True]))
    def read_page(self, size: int, fails: bool) -> None:
        assert self.rest is not None
        if fails:
            self.begin_list()
            return
        page, self.rest = self.rest[:size], self.rest[size:]
        held = {id(obj): (name, obj) for name, obj in self.cache.objects.items()}
        self.cache.add_page([{**obj} for obj in page])
        for name, obj in held.values():
            now = self.cache.objects[name]
            assert now is obj or now != obj  # the same version is not held twice
        if not self.rest:
            self.cache.end_list(self.listed_at, self.began)
            self.delivered, self.rest, self.proven_at = self.listed_at, None, self.began

    # Invariants

    @invariant()
    def cached_objects_are_no_older_than_events_and_responses(self) -> None:
        for name in self.server.history:
            shown = self.cache.objects.get(name)
            states = self.server.states_since(name, max(self.delivered, self.noted.get(name, 0)))
            if shown is not None:
                assert shown in states
            else:
                is_first_list = self.delivered == 0
                assert is_first_list or any(state is None or state["metadata"]["uid"] in self.ended for state in states)

    @invariant()
    def cached_versions_never_decrease(self) -> None:
        for name, obj in self.cache.objects.items():
            version = int(obj["metadata"]["resourceVersion"])
            assert version >= self.shown.get(name, 0)
            self.shown[name] = version

    @invariant()
    def deleted_objects_are_not_cached_as_alive(self) -> None:
        alive = {obj["metadata"]["uid"] for obj in self.cache.objects.values() if not kube.is_terminating(obj)}
        assert not alive & self.ended

    @invariant()
    def reported_changes_add_up_to_the_cache(self) -> None:
        assert self.replayed == self.cache.objects

    @invariant()
    def proven_at_matches_the_model(self) -> None:
        assert self.cache.proven_at == self.proven_at
        assert self.cache.version == (self.delivered if self.rest is None else None)

    @invariant()
    def the_cache_equals_the_server_after_all_events(self) -> None:
        if self.rest is not None or self.server.after(self.delivered):
            return
        live = {obj["metadata"]["name"]: obj for obj in self.server.live()}
        ending = {name for name, obj in live.items() if obj["metadata"]["uid"] in self.ended}
        assert self.cache.objects == {name: live[name] for name in live.keys() - (ending - self.cache.objects.keys())}
        assert not self.cache._ahead  # noqa: SLF001 - entries left there would leak
        assert self.cache._ending.keys() <= {obj["metadata"]["uid"] for obj in live.values()}  # noqa: SLF001

    def teardown(self) -> None:
        """Deliver all responses, deletions and events; no state must remain."""
        for answer in self.answers:
            answer()
        for obj in self.server.live():
            if kube.is_terminating(obj):
                self.server.write("DELETED", obj["metadata"]["name"], obj["metadata"]["uid"], is_ending=True)
        while self.rest is not None:
            self.read_page(size=3, fails=False)
        self.deliver(len(self.server.log))
        self.the_cache_equals_the_server_after_all_events()
        assert self.cache.objects == {obj["metadata"]["name"]: obj for obj in self.server.live()}
        assert not self.cache._ending  # noqa: SLF001


# Five times as many examples as other tests: a fault needs about eight steps in order, and steps are cheap.
CacheAgainstServer.TestCase.settings = settings(stateful_step_count=40, max_examples=5 * settings().max_examples)
TestCacheAgainstServer = CacheAgainstServer.TestCase
