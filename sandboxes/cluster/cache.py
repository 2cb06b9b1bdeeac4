"""Caches the objects of one kind, from the API server's list and watch. Pure: no clock, no I/O.

A list returns the objects at one resourceVersion; a watch from there returns every later change once and in order. So
everything up to `version` is known: an object that the service read or wrote itself is used only if it is newer, and an
older object that is not cached has been deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.kubectl.raw import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandboxes.kubectl.raw import Event
    from sandboxes.objects import KubeObject


# Own writes and deletes that neither list nor watch has reported yet.
_MAX_PENDING = 10_000


class WentBack(Exception):
    """The resourceVersion decreased: the API server's database was restored, so a new list is needed."""


class ResourceCache:
    """Objects by name.

    `version`: resourceVersion up to which everything is known; None before a list. `proven_at`: when the cache was last
    proven current, in seconds of the caller's clock; None before the first list, and after a failed watch until the
    next one has caught up. `last_proven_at`: the same, but kept after a failure. `on_change` is called with the object
    before and after each change.
    """

    def __init__(self, on_change: Callable[[KubeObject | None, KubeObject | None], None]) -> None:
        self._on_change = on_change
        self.objects: dict[str, KubeObject] = {}
        self.version: int | None = None
        self.proven_at: float | None = None
        self.last_proven_at: float | None = None
        # The last `version`, kept while `version` is None: a late response of a call must not restore old objects.
        self._told = 0
        # Reads and writes of the service that are newer than the watch: name → version. Events up to this version are
        # outdated, even if the object is no longer cached.
        self._ahead: dict[str, int] = {}
        # Objects that are being deleted, or gone, before the watch has reported it: uid → a version that they had.
        self._ending: dict[str, int] = {}
        # Objects in the pages of the current list: name → uid.
        self._listed: dict[str, str] = {}

    def begin_list(self) -> None:
        """Start a list. Until `end_list` the cache keeps its objects and adds those of the pages."""
        self.forget_version()
        self._listed = {}
        # They must not grow for ever where no list succeeds.
        if len(self._ahead) + len(self._ending) > _MAX_PENDING:
            self._ahead.clear()
            self._ending.clear()

    def add_page(self, objects: Iterable[KubeObject]) -> None:
        """Add a page of a list. Objects of the same version are kept, so that none is in memory twice."""
        for obj in objects:
            metadata = obj["metadata"]
            self._listed[metadata["name"]] = metadata["uid"]
            known = self.objects.get(metadata["name"])
            is_older = self._ahead.get(metadata["name"], 0) >= version_of(obj)
            is_same = known is not None and _identity(known) == _identity(obj)
            if not (is_older or is_same or self._is_hidden(obj)):
                self._put(obj)

    def end_list(self, version: int, began: float) -> None:
        """Remove objects that were not listed, and set `version`, from which a watch continues.

        `began`: when the list started. All pages show the state at `version`, so an object in none of them did not
        exist then. Raises WentBack; the next list counts, since pages may have been mistaken for outdated ones.
        """
        if version < self._told:
            raise self._went_back(f"a list of {version} after {self._told}")
        for name in [name for name in self.objects if name not in self._listed and self._ahead.get(name, 0) <= version]:
            self._remove(name)
        # A watch that starts after the list does not report deletions before it.
        listed = set(self._listed.values())
        self._ending = {uid: had for uid, had in self._ending.items() if uid in listed or had > version}
        self._listed = {}
        self._advance(version)
        self._prove(began)

    def apply_event(self, event: Event, now: float) -> None:
        """Apply an ADDED, MODIFIED, DELETED or BOOKMARK event. Raises WentBack."""
        assert self.version is not None  # noqa: S101 - a watch starts at a list's version
        if event.type == "BOOKMARK":
            if event.version < self.version:
                raise self._went_back(f"a bookmark of {event.version} after {self.version}")
            self._advance(event.version)
            self._prove(now)
            return
        if event.version <= self.version:
            return
        self._advance(event.version)
        if event.type == "DELETED":
            self._delete(event.obj)
        elif not (self._is_known(event.obj) or self._is_hidden(event.obj)):
            self._put(event.obj)
        # A resumed watch may still replay old events; only a bookmark or its normal end proves that it has caught up.
        if self.proven_at is not None:
            self._prove(now)

    def ended_in_time(self, now: float) -> None:
        """Record that a watch ended at its timeout, so it has reported all events until `now`."""
        self._prove(now)

    def failed(self) -> None:
        """Record that a watch failed: the cache may be out of date until the next one has caught up."""
        self.proven_at = None

    def forget_version(self) -> None:
        """Record that no watch can resume from `version`, so a new list is needed."""
        self.failed()
        self.version = None

    def note(self, obj: KubeObject) -> None:
        """Add an object that the service has read or written, unless the watch has reported a newer state."""
        version = version_of(obj)
        if not (version <= self._told or self._is_known(obj) or self._is_hidden(obj)):
            self._ahead[obj["metadata"]["name"]] = version
            self._put(obj)

    def note_end(self, obj: KubeObject) -> None:
        """Remove an object that the service knows to be gone or being deleted."""
        name, uid, version = obj["metadata"]["name"], obj["metadata"]["uid"], version_of(obj)
        known = self.objects.get(name)
        if known is not None and known["metadata"]["uid"] == uid:
            version = max(version, version_of(known))
        elif version <= self._told:
            return  # the watch has reported its deletion
        self._ending[uid] = version
        # A cached object of this name that is older was deleted before this one was created.
        if known is not None and version_of(known) <= version:
            self._remove(name)
        if version > self._told:
            self._ahead[name] = max(version, self._ahead.get(name, 0))

    def _advance(self, version: int) -> None:
        self.version = self._told = version
        if self._ahead:
            self._ahead = {name: ahead for name, ahead in self._ahead.items() if ahead > version}

    def _went_back(self, how: str) -> WentBack:
        """Forget what our own calls know, for it is of another history: nothing of it may hide what is here now."""
        self._told, self._ahead, self._ending = 0, {}, {}
        return WentBack(how)

    def _prove(self, now: float) -> None:
        self.proven_at = self.last_proven_at = now

    def _is_known(self, obj: KubeObject) -> bool:
        """Whether this version of the object, or a newer one, is or was cached."""
        name, version = obj["metadata"]["name"], version_of(obj)
        known = self.objects.get(name)
        return self._ahead.get(name, 0) >= version or (known is not None and version_of(known) >= version)

    def _is_hidden(self, obj: KubeObject) -> bool:
        """Whether this version is older than a known deletion of the object."""
        return obj["metadata"]["uid"] in self._ending and not kube.is_terminating(obj)

    def _delete(self, last: KubeObject) -> None:
        name, uid = last["metadata"]["name"], last["metadata"]["uid"]
        self._ending.pop(uid, None)
        known = self.objects.get(name)
        # An object with another uid was written by the service and is newer than the watch.
        if known is not None and known["metadata"]["uid"] == uid:
            self._remove(name, last)

    def _put(self, obj: KubeObject) -> None:
        name = obj["metadata"]["name"]
        known = self.objects.get(name)
        self.objects[name] = obj
        self._on_change(known, obj)

    def _remove(self, name: str, last: KubeObject | None = None) -> None:
        """Remove an object; `last`: its last version, if the watch has reported it."""
        known = self.objects.pop(name)
        self._ahead.pop(name, None)
        self._on_change(last or known, None)


def _identity(obj: KubeObject) -> tuple[str, str]:
    return obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
