"""Assigns the messages of a failed apply to the objects that they are about.

kubectl applies the objects of a List one by one, and prints one message for each that failed (record: apply-forbidden,
apply-annotation-only-list-both-stale). So each caller of a batch gets its own error without another process.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.errors import LimitReached

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.errors import ProvisionerError
    from sandboxes.objects import Identity, KubeObject

# `pods "NAME" is forbidden`, `Pod "NAME" is invalid`, `fulfilled on pods "NAME"`.
_NAMED = re.compile(r'([\w.]+) "([^"]+)"')

# `exceeded quota: q, requested: limits.cpu=1,pods=1, used: …`: each limit that is exceeded, and amounts among them.
_REQUESTED = re.compile(r"requested: (\S+), used: ")
_AMOUNT = re.compile(r"requests\.|limits\.|cpu|memory|ephemeral-storage|hugepages-")


def refusals_by_name(
    objects: Sequence[KubeObject], each: Sequence[tuple[str, ProvisionerError]]
) -> dict[Identity, ProvisionerError]:
    """Return the errors of the objects that the messages name."""
    by_name = {
        (word, obj["metadata"]["name"]): kube.identity_of(obj) for obj in objects for word in _words(obj["kind"])
    }
    told: dict[Identity, ProvisionerError] = {}
    for message, error in each:
        if identity := by_name.get(_named(message)):
            told.setdefault(identity, error)
    return told


def refusals(
    missing: Sequence[KubeObject], each: Sequence[tuple[str, ProvisionerError]], *, of_all: bool
) -> dict[Identity, ProvisionerError]:
    """Return the error of each missing object, as far as the messages say.

    `missing`: objects that a failed apply did not apply. `each`: its messages, with their errors. `of_all`: it applied
    none. Messages that do not name an object (`range is full`) tell something only if all of them mean the same, and
    there is one for each object of their kind, or a single one, before any object was sent.
    """
    told = refusals_by_name(missing, each)
    names = {obj["metadata"]["name"] for obj in missing}
    unnamed: dict[str, list[ProvisionerError]] = {}
    for message, error in each:
        word, name = _named(message)
        if name not in names:
            unnamed.setdefault(_KINDS.get(word, ""), []).append(error)
    # The messages without a kind last, since they are about what is left.
    for kind, errors in sorted(unnamed.items(), reverse=True):
        rest = [kube.identity_of(obj) for obj in missing if kind in ("", obj["kind"])]
        rest = [identity for identity in rest if identity not in told]
        is_one = len({(type(error), error.public) for error in errors}) == 1
        if is_one and (len(errors) == len(rest) or (len(each) == 1 and of_all and not kind)):
            told.update(dict.fromkeys(rest, errors[0]))
    return told


def is_for_all(error: ProvisionerError) -> bool:
    """Whether the limit counts each object alike (`pods`), and not what it asks for (`limits.cpu`)."""
    requested = [match[1] for message, _ in error.each for match in _REQUESTED.finditer(message)]
    limits = [limit for one in requested for limit in one.split(",")]
    return isinstance(error, LimitReached) and not any(_AMOUNT.match(limit) for limit in limits)


def _words(kind: str) -> tuple[str, str]:
    """Return the words for a kind in the API server's messages."""
    return kube.RESOURCES[kind], kind


_KINDS = {word: kind for kind in kube.RESOURCES for word in _words(kind)}


def _named(message: str) -> tuple[str, str]:
    """Return the first word for a kind and the name after it; empty ones if there is none."""
    match = _NAMED.search(message)
    return (match[1], match[2]) if match else ("", "")
