"""A dict with expiring entries, bounded by age and size."""

from __future__ import annotations

from sandboxes.expiring_dict import ExpiringDict


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_entry_expires() -> None:
    clock = Clock()
    recent: ExpiringDict[str, int | None] = ExpiringDict(10, clock)
    recent.note("a", 1)
    recent.note("b", None)
    clock.now = 9.9
    assert recent.get("a") == 1
    assert "b" in recent
    assert recent.get("b") is None
    clock.now = 10
    assert "a" not in recent
    assert recent.get("a") is None


def test_noting_an_entry_again_restarts_its_lifetime() -> None:
    clock = Clock()
    recent: ExpiringDict[str, int] = ExpiringDict(10, clock)
    recent.note("a", 1)
    recent.note("b", 1)
    clock.now = 6
    recent.note("a", 2)
    clock.now = 12
    assert recent.get("a") == 2
    assert "b" not in recent


def test_expired_entries_are_removed_when_another_is_noted() -> None:
    clock = Clock()
    recent: ExpiringDict[int, None] = ExpiringDict(10, clock)
    for number in range(1000):
        recent.note(number, None)
    clock.now = 10
    recent.note(1000, None)
    assert len(recent) == 1


def test_the_oldest_entries_are_removed_past_the_limit() -> None:
    recent: ExpiringDict[int, None] = ExpiringDict(10, Clock(), most=3)
    for number in (1, 2, 3, 1, 4):
        recent.note(number, None)
    assert [number for number in (1, 2, 3, 4) if number in recent] == [1, 3, 4]
    assert len(recent) == 3
