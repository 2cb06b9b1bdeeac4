"""Lists and watches by `kubectl get --raw`: builds the paths, and parses and checks the responses.

kubectl copies these responses unchanged. A list of 2,000 Pods costs it 0.1 s of CPU and 48 MB; decoding the same list
for `-o json` costs 3 s and 300 MB (kubectl.md 36). The server's JSON differs from kubectl's: the items of a list have
neither `kind` nor `apiVersion`, and every object has `managedFields`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urlencode

from sandboxes import objects as kube
from sandboxes.kubectl.output import loads, unreadable, without_managed_fields

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject

# Objects per page: twice those of client-go's pager, for each page costs a process. One of 1,000 is parsed in a thread.
PAGE = 1000

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
_TYPES: frozenset[str] = frozenset({"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"})


class Page(NamedTuple):
    """A page of a list. `version`: resourceVersion of the list; `proceed`: continue token, empty on the last page."""

    objects: list[KubeObject]
    version: int
    proceed: str


class Event(NamedTuple):
    """One line of a watch. `version`: the object's resourceVersion, 0 for an ERROR, whose object is a Status."""

    type: EventType
    obj: KubeObject
    version: int


@dataclass(frozen=True)
class Collection:
    """The objects of one kind in one namespace, filtered by labels and fields.

    `resource`: the plural in the path, such as `pods`; `labels`, `fields`: selectors in kubectl's syntax.
    """

    kind: str
    resource: str
    api_version: str
    namespace: str
    labels: str = ""
    fields: str = ""

    def list_path(self, proceed: str = "") -> str:
        """Return the path of the page with this continue token, or of the first page."""
        return self._path(limit=str(PAGE), **({"continue": proceed} if proceed else {}))

    def watch_path(self, version: int, seconds: int) -> str:
        """Return the path of a watch that starts after `version`; the API server ends it after `seconds`."""
        return self._path(
            watch="1", resourceVersion=str(version), allowWatchBookmarks="true", timeoutSeconds=str(seconds)
        )

    def _path(self, **parameters: str) -> str:
        root = "apis" if "/" in self.api_version else "api"
        selectors = {"labelSelector": self.labels, "fieldSelector": self.fields}
        query = urlencode({**{name: value for name, value in selectors.items() if value}, **parameters})
        return f"/{root}/{self.api_version}/namespaces/{self.namespace}/{self.resource}?{query}"

    def read_page(self, stdout: bytes) -> Page:
        """Parse a page, with its objects as `kubectl -o json` prints them.

        Raises ClusterUnavailable if it is not a list of this kind.
        """
        try:
            return self._page(loads(stdout))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise unreadable(f"a list of {self.resource} ({error})", stdout) from error

    def read_event(self, line: bytes) -> Event:
        """Parse a line of a watch. Raises ValueError if it is not an event of this kind."""
        try:
            event: Any = loads(line)
            kind_of_event, obj = event["type"], event["object"]
            if kind_of_event not in _TYPES:
                raise ValueError(f"an event of type {kind_of_event!r}")
            if kind_of_event == "ERROR":
                return Event("ERROR", dict(obj), 0)
            if obj["kind"] != self.kind:
                raise ValueError(f"an event about a {obj['kind']}")
            version = int(obj["metadata"]["resourceVersion"])
            if kind_of_event != "BOOKMARK":
                _check(obj)
                without_managed_fields(obj)
            return Event(kind_of_event, obj, version)
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"no event: {error!r}") from error

    def _page(self, document: Any) -> Page:  # noqa: ANN401 - JSON
        if document["kind"] != f"{self.kind}List":
            raise ValueError(f"a {document['kind']}")
        objects = [self._whole(item) for item in document["items"] or []]  # Go encodes an empty list as null
        for obj in objects:
            _check(obj)
        metadata = document["metadata"]
        return Page(objects, int(metadata["resourceVersion"]), metadata.get("continue") or "")

    def _whole(self, item: KubeObject) -> KubeObject:
        return without_managed_fields({"apiVersion": self.api_version, "kind": self.kind, **item})


def sandboxes_of(namespace: str, kind: str) -> Collection:
    """Return the collection of the sandboxes' Pods or Services."""
    return Collection(kind, kube.RESOURCES[kind], "v1", namespace, labels=f"{kube.APP_LABEL}={kube.APP}")


def extras_of(namespace: str) -> list[Collection]:
    """Return the collections of template objects, without those that outlive their sandbox."""
    labels = f"{kube.ID_LABEL},{kube.MANAGED_BY_LABEL}={kube.MANAGED_BY},{kube.KEEP_LABEL}!=true"
    return [
        Collection(kind, kube.resource_of(kind), api_version, namespace, labels=labels)
        for api_version, kind in sorted(kube.EXTRA_KINDS)
    ]


def config_maps_of_directory(namespace: str) -> Collection:
    """Return the collection of the provisioner's ConfigMaps that no reaper takes for leftovers.

    These are the directory's, and those of templates that outlive their sandbox.
    """
    labels = f"{kube.MANAGED_BY_LABEL}={kube.MANAGED_BY},{kube.KEEP_LABEL}=true"
    return Collection("ConfigMap", kube.resource_of("ConfigMap"), "v1", namespace, labels=labels)


def events_of(obj: KubeObject) -> Collection:
    """Return the collection of Events of this object, selected by name and uid (record: events-failed-mount)."""
    metadata = obj["metadata"]
    about = f"involvedObject.name={metadata['name']},involvedObject.uid={metadata['uid']}"
    return Collection("Event", "events", "v1", metadata["namespace"], fields=about)


def quotas_of(namespace: str) -> Collection:
    """Return the collection of ResourceQuotas in a namespace."""
    return Collection("ResourceQuota", "resourcequotas", "v1", namespace)


def version_of(obj: KubeObject) -> int:
    """Return an object's resourceVersion, which increases with each change of its kind (KEP-5504).

    Raises KeyError or ValueError if there is none.
    """
    return int(obj["metadata"]["resourceVersion"])


def _check(obj: KubeObject) -> None:
    """Raise KeyError or ValueError for an object that can't be told from others."""
    if not all(obj["metadata"][field] for field in ("name", "namespace", "uid")):
        raise ValueError("an object without a name, a namespace or a uid")
    version_of(obj)
