"""Answers that a test puts in the way of requests, and that run out."""

from collections.abc import Callable, Iterator

from devcluster.objects import JsonValue


def once(*answers: JsonValue) -> Callable[[], JsonValue]:
    """Give what answers the next requests that match, one with each of `answers`; those after are served as ever.

    `cluster.kmock["get /version"] << 503 << once({"message": "not now"})`
    """
    left: Iterator[JsonValue] = iter(answers)
    return lambda: next(left, StopIteration)  # kmock takes the exception as a payload, but not when it is raised
