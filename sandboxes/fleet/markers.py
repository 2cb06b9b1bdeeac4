"""The ConfigMaps of the directory: a marker in an id's home, and each cluster's record of names. Pure.

A marker says that the sandbox is on another cluster. `pending`: its maker has not read the home yet, so the sandbox is
not elsewhere; `placed`: it is on `cluster`, or is about to be made there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sandboxes import objects as kube

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandboxes.objects import KubeObject

State = Literal["pending", "placed"]
RECORD_NAME = "sandbox-provisioner-clusters"
_MARKER_SUFFIX = "elsewhere"
# `CLUSTER/UID`: the Pod on a lost cluster that this Pod replaces. The UID is `unknown` if no process knew it.
REPLACES_ANNOTATION = "provisioner/replaces"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Marker:
    """A marker. `token`: unique to its maker. `version`: its resourceVersion, empty before it is stored.

    `uid`: the Pod that a create or a read has found through this marker; a marker that does not name a living Pod of
    `cluster` may be moved or removed under its resourceVersion, so whoever returns a Pod first writes its uid here.
    `replaces`: value of REPLACES_ANNOTATION for a Pod that is made on `cluster`, empty for none.
    `is_made`: a create has returned a Pod through this marker, so what it replaces is over.
    """

    sandbox_id: str
    cluster: str
    state: State
    token: str
    uid: str = ""
    replaces: str = ""
    is_made: bool = False
    version: str = ""


@dataclass(frozen=True)
class Record:
    """The names for which the directory is complete, as far as one cluster is concerned.

    `coming`: lists to which the names are being changed; each change adds its own, and removes all at its end.
    `epoch`: number of the change that set `names`.
    `former`: lists before this one with a cluster that was lost then: if an id's home by one of them is still lost, the
    sandbox may be there.
    `version`: its resourceVersion, empty before it is stored.
    `unlisted`: clusters that a replica's file lacked at its start although a list named them, and of which no file has
    said since that they are lost. Each has been in a list of `names` or `former`, or is in one.
    `taken_out`: clusters that a file has taken out after it had said that they are lost, and that no list names since.
    `uid`: of the ConfigMap, empty before it is stored.
    """

    names: frozenset[str] = frozenset()
    coming: tuple[frozenset[str], ...] = ()
    epoch: int = 0
    former: tuple[frozenset[str], ...] = ()
    version: str = ""
    unlisted: frozenset[str] = frozenset()
    taken_out: frozenset[str] = frozenset()
    uid: str = field(default="", compare=False)

    @property
    def lists(self) -> tuple[frozenset[str], ...]:
        """All lists of names by which an id may have its home now."""
        return (self.names, *self.coming)


def listed(records: Iterable[Record]) -> frozenset[str]:
    """Return the clusters that the latest lists of these records name, or a list that is to follow.

    A cluster that was away has an old record: what only that names has left since, by a change that every other one has
    recorded.
    """
    known = list(records)
    latest = max((record.epoch for record in known), default=0)
    lists = {names for one in known for names in (*one.coming, *([one.names] if one.epoch == latest else []))}
    return frozenset[str]().union(*lists)


def marker_name(sandbox_id: str) -> str:
    """Return the name of the marker of an id. No template's ConfigMap has it: see `reserved_by`."""
    return kube.extra_name(sandbox_id, _MARKER_SUFFIX)


def reserved_by(suffix: str) -> str | None:
    """Return what needs the name of a template's ConfigMap with this suffix, if anything does.

    Kinds have names of their own, so other objects of a sandbox with such a name, or id, are none of the directory's.
    """
    if suffix == _MARKER_SUFFIX:
        return "the notes that say on which cluster a sandbox is"
    if kube.extra_name("provisioner", suffix) == RECORD_NAME:
        return "the records of the names of clusters"
    return None


def _config_map(name: str, namespace: str, labels: dict[str, str], data: dict[str, str], version: str) -> KubeObject:
    metadata: dict[str, object] = {"name": name, "namespace": namespace, "labels": labels}
    if version:
        metadata["resourceVersion"] = version
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def build_marker(marker: Marker, namespace: str) -> KubeObject:
    """Return the ConfigMap, with the marker's resourceVersion, if any: a replace is refused after a change."""
    data = {"cluster": marker.cluster, "state": marker.state, "token": marker.token}
    data |= {key: value for key, value in (("uid", marker.uid), ("replaces", marker.replaces)) if value}
    if marker.is_made:
        data["made"] = "true"
    # The cluster has no Pod of the id: without this label, its reaper would take the marker for a left over object.
    labels = {kube.ID_LABEL: marker.sandbox_id, kube.MANAGED_BY_LABEL: kube.MANAGED_BY, kube.KEEP_LABEL: "true"}
    return _config_map(marker_name(marker.sandbox_id), namespace, labels, data, marker.version)


def parse_marker(obj: KubeObject) -> Marker | str:
    """Return the marker, or a sentence that says why this ConfigMap is not one. Such a ConfigMap is never used."""
    metadata = obj["metadata"]
    name, labels, data = metadata["name"], kube.get_labels(obj), obj.get("data") or {}
    sandbox_id = labels.get(kube.ID_LABEL, "")
    if not kube.is_managed(obj) or not sandbox_id or name != marker_name(sandbox_id):
        return (
            f"ConfigMap '{name}' has the name of a marker, but not the labels of one: the provisioner did not make it"
        )
    state, cluster, token = data.get("state"), data.get("cluster"), data.get("token")
    if state not in ("pending", "placed") or not cluster or not token:
        return f"ConfigMap '{name}' is a damaged marker: it needs a cluster, a token, and the state pending or placed"
    uid, replaces = data.get("uid", ""), data.get("replaces", "")
    is_made, version = data.get("made") == "true", metadata.get("resourceVersion", "")
    return Marker(sandbox_id, cluster, state, token, uid, replaces, is_made, version)


def build_record(record: Record, namespace: str) -> KubeObject:
    """Return the ConfigMap of the names, with the resourceVersion of the record, if any."""
    data = {
        "names": json.dumps(sorted(record.names)),
        "coming": json.dumps([sorted(names) for names in record.coming]),
        "epoch": str(record.epoch),
        "former": json.dumps([sorted(names) for names in record.former]),
    }
    optional = {"unlisted": record.unlisted, "taken_out": record.taken_out}
    data |= {key: json.dumps(sorted(names)) for key, names in optional.items() if names}
    labels = {kube.MANAGED_BY_LABEL: kube.MANAGED_BY, kube.KEEP_LABEL: "true"}
    return _config_map(RECORD_NAME, namespace, labels, data, record.version)


def parse_record(obj: KubeObject) -> Record | str:
    """Return the record, or a sentence that says why this ConfigMap is not one."""
    data = obj.get("data") or {}
    try:
        names = _as_names(json.loads(data["names"]))
        coming, former = (tuple(_as_names(one) for one in json.loads(data[key])) for key in ("coming", "former"))
        unlisted, taken_out = (_as_names(json.loads(data.get(key, "[]"))) for key in ("unlisted", "taken_out"))
        version, uid = (str(obj["metadata"].get(key, "")) for key in ("resourceVersion", "uid"))
        record = Record(names, coming, int(data["epoch"]), former, version, unlisted, taken_out, uid)
    except (KeyError, ValueError, TypeError):
        return f"ConfigMap '{RECORD_NAME}' is damaged: it needs names, coming, epoch and former"
    if not kube.is_managed(obj):
        return f"ConfigMap '{RECORD_NAME}' lacks the label of the provisioner, which did not make it"
    return record


def _as_names(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TypeError(value)
    return frozenset(value)
