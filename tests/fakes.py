"""An in-memory cluster that replaces the kubectl runner, for tests of the layers above it.

It responds as kubectl does (for a missing object, an immutable Pod and rejections with the recorded stderr) and fails
on an unknown call. tests/contract and tests/e2e test a real kubectl and a real server.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import re
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
    "resourcequotas": "ResourceQuota",
}


def _ok(document: object = None) -> Completed:
    return Completed(0, b"" if document is None else json.dumps(document).encode(), "")


@dataclass
class FakeCluster:
    """Objects by (kind, namespace, name); `calls` has the arguments of every kubectl call, `events` all Events."""

    namespaces: set[str] = field(default_factory=lambda: {"deer-flow"})
    objects: dict[Key, dict[str, Any]] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    # The same calls, with their stdin.
    sent: list[tuple[tuple[str, ...], bytes | None]] = field(default_factory=list)
    # Verbs with defaults of a kuberc: apply and create are dry runs, delete asks, get ignores missing objects.
    defaults: set[str] = field(default_factory=set)
    # Logs by (Pod's name, container, whether it is the previous one).
    events: list[dict[str, Any]] = field(default_factory=list)
    written: dict[tuple[str, str, bool], str] = field(default_factory=dict)
    # The answer to a self-subject rules review.
    review: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(case("rules-review-admin").stdout))

    def __post_init__(self) -> None:
        self._planned: list[tuple[str, Callable[[], Awaitable[Completed | None]]]] = []
        self._hangs_after = ""
        self._versions = itertools.count(100)
        self._node_ports = itertools.count(30000)

    async def __call__(self, args: Sequence[str], *, stdin: bytes | None) -> Completed:
        """Respond to one kubectl call."""
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
            case "create" if args[1:3] == case("rules-review-admin").argv[2:4]:
                return _ok(self.review)
            case "create":
                return self._create(document["items"])
            case "get" if "-f" in args:
                return self._get(document["items"])
            case "get" if args[1] == "namespace":
                return Completed(0, f"namespace/{args[2]}\n".encode() if args[2] in self.namespaces else b"", "")
            case "get" if args[1:] == ("--raw", "/readyz"):
                return Completed(0, case("readyz").stdout.encode(), "")
            case "get" if args[1:] == ("--raw", "/version"):
                return _ok(case("version").stdout["serverVersion"])
            case "get" if args[1] == "--raw":
                return self._list(args[2])
            case "logs":
                return self._logs(args)
            case "delete" if "--raw" in args:
                return self._delete_exactly(args[2], document["preconditions"])
            case "delete":
                return self._delete(document["items"])
        raise AssertionError(f"unexpected kubectl call: {args}")

    # For tests: planned responses, and the state

    def answer_next(self, verb: str, name: str, times: int = 1) -> None:
        """Make the next calls of `verb` fail as in the recorded case `name`."""
        recorded = case(name)

        async def answer() -> Completed:
            return Completed(recorded.returncode, b"", recorded.stderr)

        self._planned += [(verb, answer)] * times

    def say_next(self, verb: str, stderr: str) -> None:
        """Make the next call of `verb` fail with this stderr."""

        async def answer() -> Completed:
            return Completed(1, b"", stderr)

        self._planned.append((verb, answer))

    def print_next(self, verb: str, stdout: bytes) -> None:
        """Make the next call of `verb` succeed with this stdout."""

        async def answer() -> Completed:
            return Completed(0, stdout, "")

        self._planned.append((verb, answer))

    def hold_next(self, verb: str) -> asyncio.Event:
        """Block the next call of `verb`, before it has any effect, until the returned event is set."""
        event = asyncio.Event()

        async def answer() -> None:
            await event.wait()

        self._planned.append((verb, answer))
        return event

    def hang_after_next(self, verb: str) -> None:
        """Make the next call of `verb` take effect and then never return."""
        self._hangs_after = verb

    def do_before_next(self, verb: str, action: Callable[[], None]) -> None:
        """Run `action` immediately before the next call of `verb`, as another client of the cluster."""

        async def answer() -> None:
            action()

        self._planned.append((verb, answer))

    def verbs(self) -> Counter[str]:
        """Count the calls by verb."""
        return Counter(call[0] for call in self.calls)

    def put(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Store an object without a kubectl call; return the stored copy."""
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
        """Set the phase of a sandbox's Pod to Running."""
        pod = self.pod(sandbox_id)
        assert pod is not None
        pod["status"]["phase"] = "Running"

    @staticmethod
    def key(obj: dict[str, Any]) -> Key:
        """Return the key of an object."""
        return obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]

    # Responses

    def _apply(self, items: list[dict[str, Any]], *, dry_run: bool) -> Completed:
        stored, failures = [], []
        for item in items:
            try:
                stored.append(self._apply_one(item, dry_run=dry_run))
            except _Refused as refused:
                failures.append(refused.stderr)
        if failures:
            return Completed(1, b"", "".join(failures if len(failures) == 1 else map(_one_of_several, failures)))
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
        if existing is None and "uid" in item["metadata"]:
            what = f'{_resource(item)} "{item["metadata"]["name"]}"'
            recorded = case("apply-annotation-only-uid-gone").stderr
            raise _Refused(stderr=recorded.replace('pods "sandbox-ub"', what))
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
        # Concatenated documents instead of a List (record: create-list, create-list-exists-one).
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
        # kubectl prints the objects that exist although it fails (record: get-half-missing).
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
        """Return one page of a raw list with at most `limit` items (record: raw-list-limit)."""
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
            message = f'previous terminated container "{container}" in pod "{name}" not found'
            return Completed(1, b"", f"Error from server (BadRequest): {message}\n")
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
            return Completed(1, b"", f'Error from server (NotFound): {resource} "{name}" not found\n')
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


def _one_of_several(stderr: str) -> str:
    """Return an error of one object as kubectl prints it beside others (record: apply-annotation-only-list-*)."""
    invalid = re.sub(r"\AThe (\w+ \"[^\"]*\" is invalid)", r"Error from server (Invalid): \1", stderr)
    return invalid.removeprefix("error: ")


def _resource(item: dict[str, Any]) -> str:
    return {kind: resource for resource, kind in _KINDS.items()}[item["kind"]]


def _selects(selector: str, labels: dict[str, str]) -> bool:
    """Whether a selector such as `a=b,c,d!=e` matches the labels."""
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
