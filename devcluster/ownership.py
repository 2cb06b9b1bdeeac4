"""Field ownership: `metadata.managedFields`, server-side apply with its conflicts, and updates.

Handles one object and its type; knows neither the store nor any kind's rules.
"""

from dataclasses import dataclass, replace
from typing import Literal, Self

from devcluster.errors import Cause, apply_conflict
from devcluster.fields import Path, PathSet, difference, from_fields_v1, paths_of, shown, to_fields_v1
from devcluster.merge import merged, without
from devcluster.objects import Json, metadata, timestamp
from devcluster.schema import Type

_NOBODYS = frozenset(
    ("f:metadata", f"f:{name}")
    for name in (
        "name",
        "namespace",
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "selfLink",
        "uid",
    )
) | {("f:apiVersion",), ("f:kind",), ("f:metadata",), ("f:spec",), ("f:status",)}
"""Paths that never have an owner."""


@dataclass(frozen=True, slots=True)
class Owner:
    """One entry of managedFields."""

    manager: str
    operation: Literal["Apply", "Update"]
    api_version: str
    paths: PathSet
    time: str = ""
    subresource: str = ""

    @classmethod
    def read(cls, entry: Json) -> Self:
        """Decode an entry."""
        return cls(
            entry["manager"],
            entry["operation"],
            entry["apiVersion"],
            from_fields_v1(entry["fieldsV1"]),
            entry.get("time", ""),
            entry.get("subresource", ""),
        )

    def entry(self) -> Json:
        """Encode the entry, in the key order of the record."""
        written = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": to_fields_v1(self.paths),
        }
        return {**written, "subresource": self.subresource} if self.subresource else written

    def is_same(self, other: "Owner") -> bool:
        """Return whether both have the same identity."""
        return self.identity() == other.identity()

    def identity(self) -> tuple[str, str, str, str]:
        """Return the key of the entry: manager, operation, apiVersion, subresource."""
        return (self.manager, self.operation, self.api_version, self.subresource)

    def shown(self) -> str:
        """Format the owner as a conflict does (`apply-conflict`); after an update with its version and time."""
        if self.operation == "Apply":
            return f'"{self.manager}"'
        subresource = f' with subresource "{self.subresource}"' if self.subresource else ""
        return f'"{self.manager}"{subresource} using {self.api_version} at {self.time}'


def owners_of(obj: Json) -> list[Owner]:
    """Read the object's managedFields."""
    return [Owner.read(entry) for entry in metadata(obj).get("managedFields", ())]


def write_owners(obj: Json, owners: list[Owner]) -> None:
    """Set managedFields in place: applying managers first, then by time. Remove it if no field has an owner."""
    entries = sorted(
        (owner for owner in owners if owner.paths), key=lambda o: (o.operation, o.time, o.manager, o.subresource)
    )
    if entries:
        metadata(obj)["managedFields"] = [owner.entry() for owner in entries]
    else:
        metadata(obj).pop("managedFields", None)


def apply(typed: Type, live: Json, applied: Json, manager: str, *, force: bool) -> Json:
    """Return `live` after `manager` applied `applied`.

    Fields that the manager applied before and now omits are removed, unless another manager owns them. A change of
    another manager's field raises Conflict, or with `force` takes the field over.
    """
    api_version = applied["apiVersion"]
    new = Owner(manager, "Apply", api_version, _without_status(paths_of(typed, applied) - _NOBODYS), timestamp())
    before = owners_of(live)
    old = next((owner for owner in before if owner.is_same(new)), None)
    others = [owner for owner in before if not owner.is_same(new)]

    body = {name: value for name, value in applied.items() if name != "status"}
    body["metadata"] = {n: v for n, v in metadata(applied).items() if n not in ("managedFields", "resourceVersion")}
    result: Json = merged(typed, live, body)
    changed, _ = difference(typed, live, result)
    others = _settle(others, changed, force=force)
    if old is not None:
        _drop(typed, result, old.paths - new.paths, [*others, new])
    write_owners(result, [*others, new])
    return result


def _without_status(paths: PathSet) -> PathSet:
    return frozenset(path for path in paths if path[0] != "f:status")


def _settle(others: list[Owner], changed: PathSet, *, force: bool) -> list[Owner]:
    """Return the owners without the changed fields. Raises Conflict if there are any, unless `force` is set."""
    contested = [(owner, path) for owner in others for path in sorted(owner.paths & changed)]
    if contested and not force:
        raise _conflict(contested)
    return [replace(owner, paths=owner.paths - changed) for owner in others]


def _drop(typed: Type, result: Json, dropped: PathSet, owners: list[Owner]) -> None:
    """Remove dropped fields, except those that have an owner or contain an owned field."""
    kept = {path[:length] for owner in owners for path in owner.paths for length in range(1, len(path) + 1)}
    without(typed, result, dropped - kept)


def _conflict(contested: list[tuple[Owner, Path]]) -> Exception:
    causes = [Cause(shown(path), "FieldManagerConflict", f"conflict with {owner.shown()}") for owner, path in contested]
    if len(contested) == 1:
        return apply_conflict(f"Apply failed with 1 conflict: {causes[0].message}: {causes[0].field}", causes)
    by_owner: dict[str, list[str]] = {}
    for owner, path in contested:
        by_owner.setdefault(owner.shown(), []).append(shown(path))
    lines = []
    for name in sorted(by_owner):
        lines += [f"conflicts with {name}:", *(f"- {path}" for path in by_owner[name])]
    text = "\n".join(lines)
    return apply_conflict(f"Apply failed with {len(contested)} conflicts: {text}", causes)


def update(typed: Type, old: Json | None, new: Json, manager: str, subresource: str = "") -> None:
    """Make `manager` the only owner of the fields that differ from `old`; changes `new` in place."""
    empty: Json = {"metadata": {}, "spec": {"containers": []} if new.get("kind") == "Pod" else {}, "status": {}}
    changed, removed = difference(typed, empty if old is None else old, new)
    changed = frozenset(path for path in changed - _NOBODYS if _belongs(path, subresource))
    writer = Owner(manager, "Update", new["apiVersion"], changed, timestamp(), subresource)
    owners = owners_of(old) if old is not None else []
    lost = changed | removed
    kept = [replace(o, paths=o.paths - lost) for o in owners if not o.is_same(writer)]
    own = next((o for o in owners if o.is_same(writer)), None)
    if own is not None:
        remaining = (own.paths - removed) | changed
        time = writer.time if changed or remaining != own.paths else own.time
        writer = replace(writer, paths=remaining, time=time)
    metadata(new).pop("managedFields", None)
    write_owners(new, [*kept, writer])


def _belongs(path: Path, subresource: str) -> bool:
    return path[:2] != ("f:metadata", "f:managedFields") and ((path[0] == "f:status") is (subresource == "status"))


def is_unchanged(old: Json, new: Json) -> bool:
    """Return whether a write changed neither fields nor owners, and so is not stored (`apply-unchanged`)."""
    if {**old, "metadata": None} != {**new, "metadata": None}:
        return False
    ignored = ("managedFields", "resourceVersion")
    before, after = ({n: v for n, v in metadata(obj).items() if n not in ignored} for obj in (old, new))
    return before == after and _possessions(old) == _possessions(new)


def _possessions(obj: Json) -> dict[tuple[str, str, str, str], PathSet]:
    return {owner.identity(): owner.paths for owner in owners_of(obj)}
