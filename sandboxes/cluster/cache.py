"""The objects of one kind, exactly as the API server's list and watch have told them. Pure: no clock, no I/O.

A list gives the objects at one resourceVersion, and a watch from there gives every later change once and in order. So
there is one number, `version`, up to which everything is known: what a call of our own returns counts only if it is
newer, and an object that is absent although it is older has been deleted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.kubectl.raw import version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sandboxes.kubectl.raw import Event
    from sandboxes.objects import KubeObject


class WentBack(Exception):
    """The API server's versions went back: its database was restored. Only a new list helps."""


class ResourceCache:
    """Objects by name. `version`: everything up to this resourceVersion is known; None before the first list.

    `proven_at`: when the cache was last shown to be current, in seconds of the caller's clock; None before the first
    list, and after a watch has failed until the next one has caught up.
    """

    def __init__(self, on_change: Callable[[KubeObject | None, KubeObject | None], None]) -> None:
        self._on_change = on_change
        self.objects: dict[str, KubeObject] = {}
        self.version: int | None = None
        self.proven_at: float | None = None
        # The last `version`, which counts for our own calls also while there is none: they may be answered late.
        self._told = 0
        # What our own calls know ahead of the watch: name → version. What is told of this version or of
        # an older one is past, also where nothing of that name is here any more.
        self._ahead: dict[str, int] = {}
        # Objects that are known to end, but whose end the watch has not told yet: uid → a version that they had.
        self._ending: dict[str, int] = {}
        # What the pages of a list have shown so far: name → uid.
        self._listed: dict[str, str] = {}

    def begin_list(self) -> None:
        """Prepare for the pages of a list; until `end_list` the cache holds what it held, and what the pages bring."""
        self.forget_version()
        self._listed = {}
        # The list shows what was written before it began. So these do not grow where lists fail all the time.
        self._ahead.clear()
        self._ending.clear()

    def add_page(self, objects: Iterable[KubeObject]) -> None:
        """Take in a page of a list. What is the same version here already is kept, so nothing is held twice."""
        for obj in objects:
            metadata = obj["metadata"]
            self._listed[metadata["name"]] = metadata["uid"]
            known = self.objects.get(metadata["name"])
            is_older = self._ahead.get(metadata["name"], 0) >= version_of(obj)
            is_same = known is not None and _identity(known) == _identity(obj)
            if not (is_older or is_same or self._is_hidden(obj)):
                self._put(obj)

    def end_list(self, version: int, began: float) -> None:
        """Remove what was not listed; from here on a watch from `version` tells everything. `began`: the list's start.

        A page shows the same moment as all others, so what is missing in all of them did not exist at `version`.
        Raises WentBack: pages may have been taken for older than they are, so the next list is the one that counts.
        """
        if version < self._told:
            raise self._went_back(f"a list of {version} after {self._told}")
        for name in [name for name in self.objects if name not in self._listed and self._ahead.get(name, 0) <= version]:
            self._remove(name)
        # An end that was known before the list is told by no watch that begins after it.
        listed = set(self._listed.values())
        self._ending = {uid: had for uid, had in self._ending.items() if uid in listed or had > version}
        self._listed = {}
        self._advance(version)
        self._prove(began)

    def apply_event(self, event: Event, now: float) -> None:
        """Take in an ADDED, MODIFIED, DELETED or BOOKMARK event. Raises WentBack."""
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
        # A watch that was just opened again may have more to tell of the past: that is told by a bookmark, or its end.
        if self.proven_at is not None:
            self._prove(now)

    def ended_in_time(self, now: float) -> None:
        """Take in that the API server ended a watch when its time was over: until then it told everything."""
        self._prove(now)

    def failed(self) -> None:
        """Take in that a watch has failed: until the next one has caught up, the cache may be out of date."""
        self.proven_at = None

    def forget_version(self) -> None:
        """Take in that no watch can go on from `version`: a list is needed."""
        self.failed()
        self.version = None

    def note(self, obj: KubeObject) -> None:
        """Take in what a call of our own has just read or written, unless the watch has told something newer."""
        version = version_of(obj)
        if not (version <= self._told or self._is_known(obj) or self._is_hidden(obj)):
            self._ahead[obj["metadata"]["name"]] = version
            self._put(obj)

    def note_end(self, obj: KubeObject) -> None:
        """Take in that the object, which a call of our own had read, is being deleted or gone."""
        name, uid, version = obj["metadata"]["name"], obj["metadata"]["uid"], version_of(obj)
        known = self.objects.get(name)
        if known is not None and known["metadata"]["uid"] == uid:
            version = max(version, version_of(known))
        elif version <= self._told:
            return  # the watch has told its end
        self._ending[uid] = version
        # An older object of that name ended before this one began.
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
        self.proven_at = now

    def _is_known(self, obj: KubeObject) -> bool:
        """Whether this version of the object, or a newer one, is here or has been."""
        name, version = obj["metadata"]["name"], version_of(obj)
        known = self.objects.get(name)
        return self._ahead.get(name, 0) >= version or (known is not None and version_of(known) >= version)

    def _is_hidden(self, obj: KubeObject) -> bool:
        """Whether this version is from before the end that is known of the object."""
        return obj["metadata"]["uid"] in self._ending and not kube.is_terminating(obj)

    def _delete(self, last: KubeObject) -> None:
        name, uid = last["metadata"]["name"], last["metadata"]["uid"]
        self._ending.pop(uid, None)
        known = self.objects.get(name)
        # Another uid is one of our own writes, which is ahead of the watch.
        if known is not None and known["metadata"]["uid"] == uid:
            self._remove(name, last)

    def _put(self, obj: KubeObject) -> None:
        name = obj["metadata"]["name"]
        known = self.objects.get(name)
        self.objects[name] = obj
        self._on_change(known, obj)

    def _remove(self, name: str, last: KubeObject | None = None) -> None:
        """Remove an object; `last`: its last version, where the watch told it."""
        known = self.objects.pop(name)
        self._ahead.pop(name, None)
        self._on_change(last or known, None)


def _identity(obj: KubeObject) -> tuple[str, str]:
    return obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
