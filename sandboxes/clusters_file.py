"""Parses CLUSTERS_FILE, derives the settings of each cluster, and compares two versions of the file. Pure.

Problems are sentences for the operator. They quote no value that may be a secret.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from sandboxes.cluster_settings import ClusterSettings
from sandboxes.environment import may_be_shown, rule_of
from sandboxes.grammar import key_problem, label_value_problem
from sandboxes.spec.yaml_documents import read_documents
from sandboxes.spec.yaml_scalars import UnreadableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sandboxes.settings import Settings
    from sandboxes.spec.yaml_documents import Document, Json

MAX_WEIGHT = 1000

_NAME_RULE = "1 to 40 lower-case letters, digits and `-`"
_NAME = re.compile(r"[a-z0-9-]{1,40}")


# KUBECONFIG is a list, and an entry names one file; `access` says what SANDBOX_SERVICE_TYPE does.
_NO_KEYS = frozenset({"kubeconfig", "sandbox_service_type"})


def _setting_keys() -> dict[str, str]:
    """Return the field of ClusterSettings by its key in the file: its name without `k8s_`, `sandbox_` and `_path`."""
    renamed = {"kubeconfig_path": "kubeconfig"}
    return {
        renamed.get(name, name.removeprefix("k8s_").removeprefix("sandbox_")): name
        for name in ClusterSettings.model_fields
        if name not in _NO_KEYS
    }


SETTING_KEYS = _setting_keys()

# Fields that say which objects a cluster's sandboxes are: if one changes, its sandboxes are out of sight.
_OF_PLACE = ("kubeconfig", "context", "namespace", "api_server")


@dataclass(frozen=True)
class ClusterEntry:
    """An entry of the file. `settings`: validated values by field of ClusterSettings; the others are inherited.

    `context`: context of the kubeconfig; None: the current one. `weight`: share of new sandboxes, 0: none. `lost`: the
    operator declares that the cluster will not come back with its sandboxes.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    context: str | None = None
    weight: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    lost: bool = False

    def for_service(self, settings: Settings) -> Settings:
        """Return the settings of this cluster: those of the service, with the entry's own values."""
        own = settings.model_copy(update=dict(self.settings))
        if settings.clusters_file is not None:
            own._cluster = self.name  # noqa: SLF001 - not a variable, so not a field
        return own


class Parsed(NamedTuple):
    """The entries of a file, or every problem of it; one of the two is empty."""

    entries: tuple[ClusterEntry, ...] = ()
    problems: tuple[str, ...] = ()


def parse(content: bytes) -> Parsed:
    """Parse the content of CLUSTERS_FILE. Raises nothing: whatever is wrong is in `problems`."""
    try:
        documents = read_documents(content)
    except UnreadableError as error:
        return Parsed(problems=(f"It can't be read: {error}.",))
    if len(documents) != 1 or not isinstance(documents[0].value, list) or not documents[0].value:
        return Parsed(problems=("It must be a list of at least one cluster.",))
    return _entries(documents[0], documents[0].value)


def _entries(document: Document, items: list[Json]) -> Parsed:
    problems: list[str] = []
    entries: dict[str, ClusterEntry] = {}
    for number, item in enumerate(items):
        line = document.line_of((number,))
        where = f"Entry {number + 1}" + (f" (line {line})" if line is not None else "")
        problems += [f"{where}: {one}" for one in _repeated(document, number)]
        if not isinstance(item, dict):
            problems.append(f"{where} must be a mapping with the cluster's name and settings.")
            continue
        entry, found = _entry(item)
        problems += [f"{where}: {one}" for one in found]
        if entry.name in entries:
            problems.append(f"{where}: the name {entry.name} is used twice.")
        elif entry.name:
            entries[entry.name] = entry
    return Parsed(problems=tuple(problems)) if problems else Parsed(entries=tuple(entries.values()))


def _repeated(document: Document, number: int) -> Iterator[str]:
    """Yield a problem for each key that stands twice in the entry; its other value would be ignored."""
    for (entry, *keys), line in document.repeated:
        if entry == number:
            key = ".".join(map(str, keys))
            yield f"{_shown(key, key)} stands twice, again in line {line}."


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(_NAME_RULE)
    return value


def _context(value: str) -> str:
    if not value or not value.isprintable():
        raise ValueError("the name of a context of the kubeconfig")
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    if any(key_problem(key) or label_value_problem(text) for key, text in value.items()):
        raise ValueError("keys and values in the syntax of Kubernetes' labels")
    return value


_OWN: dict[str, TypeAdapter[Any]] = {
    "name": TypeAdapter(Annotated[str, AfterValidator(_name)]),
    "context": TypeAdapter(Annotated[str, AfterValidator(_context)]),
    "weight": TypeAdapter(Annotated[int, Field(ge=0, le=MAX_WEIGHT)]),
    "labels": TypeAdapter(Annotated[dict[str, str], AfterValidator(_labels)]),
    "lost": TypeAdapter(bool),
}
_OF_SETTINGS: dict[str, TypeAdapter[Any]] = {
    key: TypeAdapter(ClusterSettings.model_fields[name].rebuild_annotation()) for key, name in SETTING_KEYS.items()
}


def _entry(item: dict[str, Json]) -> tuple[ClusterEntry, list[str]]:
    """Return the entry and its problems; with problems, only its name can be relied on, and is empty if it is bad."""
    problems: list[str] = []
    own: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    if item.get("name") is None:
        problems.append("it has no name.")
    for key, value in item.items():
        adapter = _OWN.get(key) or _OF_SETTINGS.get(key)
        if adapter is None:
            known = ", ".join([*_OWN, *SETTING_KEYS])
            problems.append(f"{_shown(key, key)} is not a field. Fields are: {known}.")
        elif value is not None:  # null counts as unset, as an empty variable does
            try:
                checked = _checked(adapter, value)
            except ValidationError as error:
                problems += _described(key, value, error)
            else:
                (own if key in _OWN else settings)[SETTING_KEYS.get(key, key)] = checked
    name = own.pop("name", "")
    return ClusterEntry(name, settings, **own), problems


def _checked(adapter: TypeAdapter[Any], value: Json) -> Any:  # noqa: ANN401 - of the field's type
    """Return the validated value. Strict: `max_sandboxes: "3"` and `lost: 1` are wrong."""
    if isinstance(value, list):
        return adapter.validate_python(tuple(value))
    return adapter.validate_json(json.dumps(value), strict=True)  # as JSON, in which a path is a text


def _described(key: str, value: Json, error: ValidationError) -> Iterator[str]:
    for item in error.errors(include_url=False):
        yield f"{key} holds {_shown(SETTING_KEYS.get(key, key).upper(), value)}. {rule_of(item['msg'])}."


def _shown(variable: str, value: Json) -> str:
    return repr(value) if may_be_shown(variable, value) else "a value that is not shown"


def message(path: object, problems: Sequence[str]) -> str:
    """Return the message about a file that can't be used: one line per problem."""
    return "\n".join([f"CLUSTERS_FILE {path} can't be used:", *(f"  {one}" for one in problems)])


class Changes(NamedTuple):
    """The changes by a new version of the file; none if there are `problems`.

    `joins`: entries of new clusters. `leaves`: names of clusters to end. `restarts`: entries whose settings changed, so
    that their cluster must be ended and started with the new ones. `weights`: entries of which only weight, labels or
    `lost` changed.
    """

    joins: tuple[ClusterEntry, ...] = ()
    leaves: tuple[str, ...] = ()
    restarts: tuple[ClusterEntry, ...] = ()
    weights: tuple[ClusterEntry, ...] = ()
    problems: tuple[str, ...] = ()


def in_question(old: Sequence[ClusterEntry], new: Sequence[ClusterEntry]) -> tuple[str, ...]:
    """Return the names of the clusters in `old` that the new version must not touch if they have sandboxes."""
    after = {entry.name: entry for entry in new}
    return tuple(was.name for was in old if not was.lost and (was.name not in after or _moved(was, after[was.name])))


def changes(
    old: Sequence[ClusterEntry], new: Sequence[ClusterEntry], has_sandboxes: Mapping[str, bool | None]
) -> Changes:
    """Compare two versions of the file. `has_sandboxes`: of each cluster `in_question`, by name; None: not known.

    A cluster that has sandboxes, or may have some, is taken out only if its entry in `old` says `lost: true`; and it is
    not made another cluster by a new kubeconfig, context, namespace or API server. Else the result has only `problems`.
    """
    before, after = ({entry.name: entry for entry in entries} for entries in (old, new))
    problems = []
    for name in in_question(old, new):
        has = has_sandboxes.get(name)
        if has is not False:
            holding = f"Cluster {name} " + ("has sandboxes" if has else "can't be asked whether it has sandboxes")
            entry = after.get(name)
            if entry is None:
                problems.append(f"{holding}: to take it out, first set `lost: true` in its entry.")
            else:
                problems.append(f"{holding}: {', '.join(_moved(before[name], entry))} can't change.")
    if problems:
        return Changes(problems=tuple(problems))
    kept = [entry for name, entry in after.items() if before.get(name, entry) != entry]
    weights = tuple(entry for entry in kept if _is_same_but_weight(before[entry.name], entry))
    return Changes(
        joins=tuple(entry for name, entry in after.items() if name not in before),
        leaves=tuple(name for name in before if name not in after),
        restarts=tuple(entry for entry in kept if entry not in weights),
        weights=weights,
    )


def _is_same_but_weight(was: ClusterEntry, entry: ClusterEntry) -> bool:
    return was.settings == entry.settings and was.context == entry.context


def _moved(was: ClusterEntry, entry: ClusterEntry) -> list[str]:
    """Return the keys that changed of those that say where the sandboxes are."""
    return [key for key in _OF_PLACE if _value(was, key) != _value(entry, key)]


def _value(entry: ClusterEntry, key: str) -> object:
    return entry.context if key == "context" else entry.settings.get(SETTING_KEYS[key])
