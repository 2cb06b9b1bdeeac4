"""A cluster in memory, at the one seam where kubectl is started: for tests of what is above it.

It answers as kubectl does (a missing object, an immutable Pod and refusals by their recorded text) and fails on a
call that it does not know. What a real kubectl and a real server do is tested in tests/contract and tests/e2e.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from sandboxes.kubectl.process import Completed
from tests.record import RECORDED, case

Key = tuple[str, str, str]
LOGS_MISSING: str = json.loads((RECORDED / "http" / "logs-missing.json").read_text(encoding="utf-8"))["stderr"]
_KINDS = {
    "pods": "Pod",
    "services": "Service",
    "persistentvolumeclaims": "PersistentVolumeClaim",
    "configmaps": "ConfigMap",
    "networkpolicies.networking.k8s.io": "NetworkPolicy",
}


def _ok(document: object = None) -> Completed:
    return Completed(0, b"" if document is None else json.dumps(document).encode(), "")


@dataclass
class FakeCluster:
    """Holds objects by (kind, namespace, name); `calls` is every kubectl call's arguments, `events` all Events."""

    namespaces: set[str] = field(default_factory=lambda: {"deer-flow"})
    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    # The same calls, with their stdin.
    sent: list[tuple[tuple[str, ...], bytes | None]] = field(default_factory=list)
    # The verbs for which a kuberc of the user's holds in spite of all switches: applies and creates are dry runs, a
    # delete asks a question, a get is silent about what is missing.
    defaults: set[str] = field(default_factory=set)
    # Events, and what containers have written by (Pod's name, container, whether it is the previous one).
    events: list[dict[str, Any]] = field(default_factory=list)
    written: dict[tuple[str, str, bool], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._planned: list[tuple[str, Callable[[], Awaitable[Completed | None]]]] = []
        self._hangs_after = ""
        self._versions = itertools.count(100)
        self._node_ports = itertools.count(30000)

    async def __call__(self, args: Sequence[str], *, stdin: bytes | None) -> Completed:
        """Answer one call of kubectl."""
        self.calls.append(tuple(args))
        self.sent.append((tuple(args), stdin))
        completed = await self._answer(args, stdin)
        if args[0] == self._hangs_after:
            self._hangs_after = ""
            await asyncio.Event().wait()
        return completed

    async def _answer(self, args: Sequence[str], stdin: bytes | None) -> Completed:
        for index, (verb, answer) in enumerate(self._planned):
            if args[0] == verb:
                del self._planned[index]
                planned = await answer()
                if planned is not None:
                    return planned
                break
        document = json.loads(stdin) if stdin else {}
        match args[0]:
            case "apply":
                dry_run = "--dry-run=server" in args or "apply" in self.defaults
                return self._apply(document["items"], dry_run=dry_run)
            case "create":
                return self._create(document["items"])
            case "get" if "-f" in args:
                return self._get(document["items"])
            case "get" if args[1] == "namespace":
                return Completed(0, f"namespace/{args[2]}\n".encode() if args[2] in self.namespaces else b"", "")
            case "get" if args[1:] == ("--raw", "/readyz"):
                return Completed(0, case("readyz").stdout.encode(), "")
            case "get" if args[1] == "--raw":
                return self._list(args[2])
            case "logs":
                return self._logs(args)
            case "delete" if "--raw" in args:
                return self._delete_exactly(args[2], document["preconditions"])
            case "delete":
                return self._delete(document["items"])
        raise AssertionError(f"a call that nobody expects: {args}")

    # What a test plans and looks at

    def answer_next(self, verb: str, name: str, times: int = 1) -> None:
        """Have the next calls of `verb` answered as in the recorded case `name`."""
        recorded = case(name)

        async def answer() -> Completed:
            return Completed(recorded.returncode, b"", recorded.stderr)

        self._planned += [(verb, answer)] * times

    def say_next(self, verb: str, stderr: str) -> None:
        """Have the next call of `verb` fail with these words."""

        async def answer() -> Completed:
            return Completed(1, b"", stderr)

        self._planned.append((verb, answer))

    def print_next(self, verb: str, stdout: bytes) -> None:
        """Have the next call of `verb` succeed and print this."""

        async def answer() -> Completed:
            return Completed(0, stdout, "")

        self._planned.append((verb, answer))

    def hold_next(self, verb: str) -> asyncio.Event:
        """Have the next call of `verb` wait, before it does anything, until the event is set."""
        event = asyncio.Event()

        async def answer() -> None:
            await event.wait()

        self._planned.append((verb, answer))
        return event

    def hang_after_next(self, verb: str) -> None:
        """Have the next call of `verb` do all that it should, and then never end."""
        self._hangs_after = verb

    def do_before_next(self, verb: str, action: Callable[[], None]) -> None:
        """Have something happen behind the service's back just before the next call of `verb`."""

        async def answer() -> None:
            action()

        self._planned.append((verb, answer))

    def verbs(self) -> Counter[str]:
        """Count the calls by verb."""
        return Counter(call[0] for call in self.calls)

    def put(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Store an object as if it had been there before; returns the stored one."""
        key = self.key(obj)
        stored = copy.deepcopy(obj)
        stored["metadata"].setdefault("uid", f"uid-{next(self._versions)}")
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key] = stored
        return stored

    def pod(self, sandbox_id: str, namespace: str = "deer-flow") -> dict[str, Any] | None:
        """Return a sandbox's Pod."""
        return self.objects.get(("Pod", namespace, f"sandbox-{sandbox_id}"))

    def service(self, sandbox_id: str, namespace: str = "deer-flow") -> dict[str, Any] | None:
        """Return a sandbox's Service."""
        return self.objects.get(("Service", namespace, f"sandbox-{sandbox_id}-svc"))

    def run_pod(self, sandbox_id: str) -> None:
        """Let a sandbox's Pod be Running."""
        pod = self.pod(sandbox_id)
        assert pod is not None
        pod["status"]["phase"] = "Running"

    @staticmethod
    def key(obj: dict[str, Any]) -> Key:
        """Return the key of an object."""
        return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

    # How it answers

    def _apply(self, items: list[dict[str, Any]], *, dry_run: bool) -> Completed:
        stored, failures = [], []
        for item in items:
            try:
                stored.append(self._apply_one(item, dry_run=dry_run))
            except _Refused as refused:
                failures.append(refused.stderr)
        if failures:
            return Completed(1, b"", "".join(failures))
        return _ok({"kind": "List", "items": stored} if len(stored) > 1 else stored[0])

    def _apply_one(self, item: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
        if item["kind"] == "Namespace":
            if dry_run:
                return self._new(item)
            self.namespaces.add(item["metadata"]["name"])
            return self.put(item)
        key = self.key(item)
        if key[1] not in self.namespaces:
            raise _Refused("apply-missing-namespace", lines=1)
        existing = self.objects.get(key)
        if existing is None and "uid" in item["metadata"]:  # in the words of the API server's source
            uid = item["metadata"]["uid"]
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            what = f'{_resource(item)} "{item["metadata"]["name"]}"'
            raise _Refused(stderr=f"Error from server (Conflict): Operation cannot be fulfilled on {what}: {why}\n")
        if (
            existing is not None
            and item["metadata"].get("uid", existing["metadata"]["uid"]) != existing["metadata"]["uid"]
        ):
            raise _Refused("apply-annotation-only-other-uid")
        if existing is not None:
            version = existing["metadata"]["resourceVersion"]
            if item["metadata"].get("resourceVersion", version) != version:
                raise _Refused("apply-annotation-only-stale-version")
        if existing is not None and key[0] == "Pod" and "spec" in item and _env(existing) != _env(item):
            raise _Refused("apply-immutable-change")
        obj = copy.deepcopy(existing) if existing else self._new(item)
        if existing:
            for part in ("labels", "annotations"):
                obj["metadata"].setdefault(part, {}).update(item["metadata"].get(part, {}))
        if not dry_run:
            obj = self.put(obj)
        return obj

    def _create(self, items: list[dict[str, Any]]) -> Completed:
        stored, failures = [], []
        for item in items:
            namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
            if namespace not in self.namespaces:
                failures.append(
                    f'Error from server (NotFound): error when creating "STDIN": namespaces "{namespace}" not found\n'
                )
            elif self.key(item) in self.objects:
                what = f'{_resource(item)} "{name}" already exists'
                failures.append(f'Error from server (AlreadyExists): error when creating "STDIN": {what}\n')
            else:
                new = self._new(item)
                stored.append(new if "create" in self.defaults else self.put(new))
        # One document after another, and no List (record: create-list, create-list-exists-one).
        printed = "\n".join(json.dumps(obj, indent=4) for obj in stored)
        return Completed(1 if failures else 0, printed.encode(), "".join(failures))

    def _new(self, item: dict[str, Any]) -> dict[str, Any]:
        obj = copy.deepcopy(item)
        obj["metadata"].setdefault("uid", f"uid-{next(self._versions)}")
        obj["metadata"]["creationTimestamp"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if obj["kind"] == "Pod":
            obj["status"] = {"phase": "Pending"}
        elif obj["kind"] == "Service" and obj["spec"]["type"] == "NodePort":
            for port in obj["spec"]["ports"]:
                port["nodePort"] = next(self._node_ports)
        return obj

    def _get(self, items: list[dict[str, Any]]) -> Completed:
        missing = self._missing(items, 'Error from server (NotFound): {} "{}" not found\n')
        found = [self.objects[self.key(item)] for item in items if self.key(item) in self.objects]
        # as recorded in get-half-missing: what is there is printed all the same, for nobody to read
        printed = json.dumps({"kind": "List", "items": found} if len(items) > 1 or not found else found[0])
        if "get" in self.defaults:
            return Completed(0, printed.encode() if found else b"", "")
        return Completed(1 if missing else 0, printed.encode(), missing)

    def _delete(self, items: list[dict[str, Any]]) -> Completed:
        if "delete" in self.defaults:
            head, *_, question = case("kuberc-delete-interactive").stdout.splitlines()
            names = [f"{item['kind'].lower()}/{item['metadata']['name']}" for item in items]
            return Completed(0, "\n".join([head, *names, question, ""]).encode(), "")
        missing = self._missing(items, 'Error from server (NotFound): error when deleting "STDIN": {} "{}" not found\n')
        there = [item for item in items if self.objects.pop(self.key(item), None) is not None]
        printed = "".join(f"{item['kind'].lower()}/{item['metadata']['name']}\n" for item in there)
        return Completed(1 if missing else 0, printed.encode(), missing)

    def _missing(self, items: list[dict[str, Any]], sentence: str) -> str:
        missing = [item for item in items if self.key(item) not in self.objects]
        return "".join(sentence.format(_resource(item), item["metadata"]["name"]) for item in missing)

    def _list(self, path_and_query: str) -> Completed:
        """Return one page of a raw list, with as many items as it may have (record: raw-list-limit)."""
        path, _, query_string = path_and_query.partition("?")
        query = dict(parse_qsl(query_string))
        *root, _, namespace, plural = path.split("/")
        kind = "Event" if plural == "events" else _KINDS[plural if root[1] == "api" else f"{plural}.{root[2]}"]
        fields = dict(term.split("=") for term in query["fieldSelector"].split(",")) if "fieldSelector" in query else {}
        of_kind = self.events if kind == "Event" else [obj for key, obj in self.objects.items() if key[0] == kind]
        found = [
            obj
            for obj in of_kind
            if obj["metadata"]["namespace"] == namespace
            and _selects(query.get("labelSelector", ""), obj["metadata"].get("labels", {}))
            and all(obj["involvedObject"][field.rpartition(".")[2]] == value for field, value in fields.items())
        ]
        start = int(query.get("continue", "0"))
        end = start + int(query["limit"])
        metadata = {"resourceVersion": str(next(self._versions))} | ({"continue": str(end)} if found[end:] else {})
        items = [
            {key: part for key, part in obj.items() if key not in ("kind", "apiVersion")} for obj in found[start:end]
        ]
        version = "/".join(root[2:])
        return _ok({"kind": f"{kind}List", "apiVersion": version, "metadata": metadata, "items": items})

    def _logs(self, args: Sequence[str]) -> Completed:
        namespace, name, container = args[2], args[3], args[args.index("-c") + 1]
        if ("Pod", namespace, name) not in self.objects:
            return Completed(1, b"", LOGS_MISSING.replace("sandbox-b", name).replace("rechttp", namespace))
        previous = "--previous" in args
        text = self.written.get((name, container, previous))
        if text is None and previous:
            said = f'previous terminated container "{container}" in pod "{name}" not found'
            return Completed(1, b"", f"Error from server (BadRequest): {said}\n")
        if text is None:
            return Completed(1, b"", case("logs-waiting").stderr.replace("sandbox-nopull", name))
        options = dict(arg.split("=") for arg in args if "=" in arg)
        lines = text.splitlines(keepends=True)[-int(options["--tail"]) :]
        return Completed(0, "".join(lines).encode()[: int(options["--limit-bytes"])], "")

    def _delete_exactly(self, path: str, preconditions: dict[str, str]) -> Completed:
        *root, _, namespace, plural, name = path.split("/")
        resource = plural if root[1] == "api" else f"{plural}.{root[2]}"
        key = (_KINDS[resource], namespace, name)
        obj = self.objects.get(key)
        if obj is None:
            return Completed(1, b"", case("delete-precondition-missing").stderr)
        if preconditions["uid"] != obj["metadata"]["uid"]:
            return Completed(1, b"", case("delete-precondition-other-uid").stderr)
        version = obj["metadata"]["resourceVersion"]
        if preconditions.get("resourceVersion", version) != version:
            return Completed(1, b"", case("delete-precondition-stale").stderr)
        del self.objects[key]
        return _ok({"kind": "Status", "status": "Success"})


class _Refused(Exception):
    def __init__(self, name: str = "", lines: int | None = None, stderr: str = "") -> None:
        self.stderr = stderr or "".join(case(name).stderr.splitlines(keepends=True)[:lines])


def _resource(item: dict[str, Any]) -> str:
    return {kind: resource for resource, kind in _KINDS.items()}[item["kind"]]


def _selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether `a=b,c,d!=e` is true of the labels."""
    for part in filter(None, selector.split(",")):
        if "!=" in part:
            key, _, value = part.partition("!=")
            if labels.get(key) == value:
                return False
        elif "=" in part:
            key, _, value = part.partition("=")
            if labels.get(key) != value:
                return False
        elif part not in labels:
            return False
    return True


def _env(pod: dict[str, Any]) -> object:
    return [container.get("env") for container in pod["spec"]["containers"]]


def events_about(pod: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    """Return the Events of the recorded case `name`, as if they were about this Pod."""
    assert pod is not None
    events = copy.deepcopy(case(name).items)
    metadata = pod["metadata"]
    for event in events:
        event["metadata"]["namespace"] = metadata["namespace"]
        event["involvedObject"] |= {key: metadata[key] for key in ("name", "uid", "namespace")}
    return events
