"""The kubectl client: apply, create, annotate, get, list, delete and logs, on top of `run()`.

Every access to a cluster goes through here. A failed call raises an error of `errors.py`, which `stderr.py` makes from
kubectl's stderr; its `detail` has command, exit code, stdout and stderr, for the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import (
    Busy,
    ClusterRefused,
    ClusterTimeout,
    KubectlNotRun,
    NamespaceMissing,
    ObjectsMissing,
    PatchForbidden,
    ProvisionerError,
)
from sandboxes.kubectl import raw
from sandboxes.kubectl.output import (
    LONG,
    check_changed,
    check_deleted,
    check_deleted_exactly,
    check_ready,
    has_line,
    objects_created,
    objects_named,
    objects_stored,
    objects_tried,
    unreadable,
)
from sandboxes.kubectl.plugins import PluginWatch
from sandboxes.kubectl.process import Completed, OutputTooLarge
from sandboxes.kubectl.report import failure_of
from sandboxes.kubectl.stderr import DEFAULT_SERVER
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from sandboxes.kubectl.raw import Collection, Page
    from sandboxes.kubectl.runner import Runner
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)

# Field manager of server-side apply; an operator who applies by hand is another one.
FIELD_MANAGER = "provisioner"

# Overrides --dry-run in the user's kuberc (record: kuberc-apply-dry-run-none), in case kubectl reads one despite
# config.child_environment. kubectl 1.27 has this flag, too.
STORES = "--dry-run=none"

# These calls read objects from stdin and do nothing before, so their processes can be started ahead.
APPLY = (
    "apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}",
    # Client-side validation doubles kubectl's CPU time, and server-side apply rejects unknown fields anyway
    # (record: apply-unknown-field-ignored).
    "--validate=ignore", "-o", "json", STORES, "-f", "-",
)  # fmt: skip
# Unlike apply, create fails if the object exists: of concurrent creates, one succeeds. Without validation it would drop
# unknown fields silently, which could open a NetworkPolicy.
CREATE = ("create", f"--field-manager={FIELD_MANAGER}", "--validate=strict", "-o", "json", STORES, "-f", "-")
# Without --ignore-not-found, which treats every 404 as "not found", even a proxy's.
GET = ("get", "-o", "json", "-f", "-")
DELETE = ("delete", "--wait=false", "-o", "name", STORES, "-f", "-")

# Processes for urgent calls, in addition to `max_processes`.
URGENT_PROCESSES = 2


class Kubectl:
    """Calls kubectl for one cluster, with at most `max_processes` at a time and a queue of at most `max_waiting`.

    `deadline`: seconds per call, including the wait for a free process. For a shorter limit, wrap the call in
    asyncio.timeout: cancellation kills and reaps the process. `kubeconfig`: the path, for log messages. `plugins`: the
    runner's, to name a credential plugin that does not answer. `server`: the API server that the kubeconfig names.
    """

    def __init__(  # noqa: PLR0913 - what all calls share
        self,
        runner: Runner,
        *,
        max_processes: int,
        max_waiting: int,
        deadline: float = DEADLINES.kubectl_call,
        kubeconfig: str = "",
        plugins: PluginWatch | None = None,
        server: str = DEFAULT_SERVER,
    ) -> None:
        self._runner = runner
        self._plugins = plugins or PluginWatch()
        self._kubeconfig = kubeconfig
        self._server = server
        self._deadline = deadline
        self._slots = asyncio.Semaphore(max_processes)
        self._urgent_slots = asyncio.Semaphore(URGENT_PROCESSES)
        self._probe_slots = asyncio.Semaphore(1)
        self._max_waiting = max_waiting
        self._waiting = 0
        self.running = 0
        # Sent after each call: its verb, `ok` or the error's class, and its duration in seconds.
        self.called: Signal[[str, str, float]] = Signal()

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a process."""
        return self._waiting

    async def run(self, *args: str, stdin: bytes | None = None, urgent: bool = False, is_probe: bool = False) -> bytes:
        """Run kubectl and return its stdout.

        `urgent` calls skip the queue: they clean up after a failure, which must work under load. A probe waits only for
        other probes, so that neither load nor cleanup makes this replica look dead. Raises the error of
        `stderr.classify`, ClusterTimeout at the deadline, Busy if the queue is full, and KubectlNotRun if kubectl can't
        be started. stdout is valid only if the exit code is 0 (kubectl.md 3), and even then callers must check that it
        answers the call.
        """
        slots = self._probe_slots if is_probe else self._urgent_slots if urgent else self._slots
        return await self._call(args, stdin, slots)

    async def probe(self) -> None:
        """Check that the API server reports ready (record: readyz); raises the errors of run()."""
        check_ready(await self.run("get", "--raw", "/readyz", is_probe=True))

    async def _call(self, args: Sequence[str], stdin: bytes | None, slots: asyncio.Semaphore) -> bytes:
        """Run kubectl as soon as a slot is free; see run()."""
        started = time.monotonic()
        ended, outcome = "not started", "cancelled"
        try:
            async with asyncio.timeout(self._deadline), self._slot(slots):
                ended = "no answer"
                completed = await self._runner(args, stdin=stdin)
            ended = f"exit {completed.returncode}"
            stdout = self._printed(args, completed)
            outcome = "ok"
        except (OSError, OutputTooLarge) as error:  # TimeoutError is an OSError
            failure = self._not_answered(args, error)
            outcome = type(failure).__name__
            raise failure from error
        except ProvisionerError as error:
            outcome = type(error).__name__
            raise
        finally:
            seconds = time.monotonic() - started
            logger.debug("kubectl %s: %s, %.0f ms", " ".join(args), ended, seconds * 1000)
            self.called.send(args[0], outcome, seconds)
        return stdout

    @contextlib.asynccontextmanager
    async def _slot(self, slots: asyncio.Semaphore) -> AsyncIterator[None]:
        """Acquire a slot for the block. Raises Busy if the queue is full."""
        is_in_line = slots is self._slots
        if is_in_line and slots.locked() and self._waiting >= self._max_waiting:
            raise Busy
        self._waiting += is_in_line
        try:
            await slots.acquire()
        finally:
            self._waiting -= is_in_line
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            slots.release()

    def _printed(self, args: Sequence[str], completed: Completed) -> bytes:
        """Return stdout of a successful kubectl; raise the error that its exit code and stderr mean otherwise."""
        if completed.returncode == 0:
            return completed.stdout
        raise failure_of(args, completed, self._kubeconfig, self._server)

    def _not_answered(self, args: Sequence[str], error: Exception) -> ProvisionerError:
        """Return the error for a kubectl that was killed by the service, or could not be started."""
        if isinstance(error, TimeoutError):
            detail = f"kubectl {' '.join(args)}: killed after {self._deadline:g} s"
            return self.explained(ClusterTimeout(detail=detail))
        if isinstance(error, OutputTooLarge):
            return ClusterRefused("The cluster's answer is too large", detail=f"kubectl {args}: {error}")
        return KubectlNotRun("The provisioner can't run kubectl", detail=f"kubectl can't be started: {error}")

    def explained(self, error: ProvisionerError) -> ProvisionerError:
        """Return the error; for a timeout while kubectl waits for its credential plugin, one that says so."""
        waiting = self._plugins.waiting() if isinstance(error, ClusterTimeout) else None
        if waiting is None or error.public == waiting.sentence:
            return error
        return ClusterTimeout(waiting.sentence, detail=f"{error.detail}\nstderr: {waiting.said or '(none)'}")

    async def apply(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Apply objects by server-side apply and return them as stored, in the same order.

        If one fails, the others may or may not have been applied: read them (kubectl.md 2).
        """
        return objects_stored(await self.run(*APPLY, stdin=_stdin(objects)), objects)

    async def create(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Create objects and return them as stored, in the same order. Raises AlreadyThere if one exists.

        If one fails, the others may or may not have been created: read them (kubectl.md 2).
        """
        return objects_created(await self.run(*CREATE, stdin=_stdin(objects)), objects)

    async def annotate(self, obj: KubeObject, annotations: dict[str, str], *, manager: str) -> KubeObject:
        """Set annotations of the object if its uid is unchanged, and return it as stored.

        They have their own field manager, `provisioner-MANAGER`: the next apply by the same manager would remove them
        (kubectl.md 20). Raises ObjectsChanged, and changes nothing, if the object was deleted or replaced (kubectl.md
        16).
        """
        return (await self.annotate_all([(obj, annotations)], manager=manager))[0]

    async def annotate_all(
        self, changes: Sequence[tuple[KubeObject, dict[str, str]]], *, manager: str, unchanged: bool = False
    ) -> list[KubeObject]:
        """Annotate many objects in one call; see annotate(). Returns them in the same order.

        `unchanged`: only objects whose resourceVersion is unchanged (record: apply-annotation-only-stale-version), in
        an urgent call.
        """
        flag = f"--field-manager={FIELD_MANAGER}"
        args = [f"{flag}-{manager}" if arg == flag else arg for arg in APPLY]
        fields = ("name", "namespace", "uid", *(["resourceVersion"] if unchanged else []))
        partials = [_partial(obj, fields, annotations) for obj, annotations in changes]
        stored = objects_stored(await self.run(*args, stdin=_stdin(partials), urgent=unchanged), partials)
        # Objects that already have these values keep their version.
        check_changed(stored, [obj for obj, annotations in changes if not _has(obj, annotations)])
        return stored

    async def dry_run(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Return the objects as the API server would store them, after validation and admission; change nothing.

        An apply, or a create without the right to patch.
        """
        changes = {"--validate=ignore": "--validate=strict", STORES: "--dry-run=server"}
        apply, create = ([changes.get(arg, arg) for arg in args] for args in (APPLY, CREATE))
        try:
            return objects_named(await self.run(*apply, stdin=_stdin(objects)), objects)
        except PatchForbidden:
            return objects_tried(await self.run(*create, stdin=_stdin(objects)), objects)

    async def get(self, references: list[KubeObject], *, urgent: bool = False) -> list[KubeObject]:
        """Return the referenced objects that exist."""
        wanted = references
        while wanted:
            try:
                stdout = await self.run(*GET, stdin=_stdin(wanted), urgent=urgent)
            except ObjectsMissing as error:
                there = [obj for obj in wanted if _name(obj) not in error.names]
                if len(there) == len(wanted):
                    raise
                wanted = there
            except NamespaceMissing:  # if an object is missing, kubectl also checks its namespace
                return []
            else:
                return objects_named(stdout, wanted)
        return []

    async def pages(self, collection: Collection, *, urgent: bool = False) -> AsyncGenerator[Page]:
        """Yield the pages of a list; all show the state at one resourceVersion.

        `urgent`: see `run`. Raises ServerFailed if the continue token has expired.
        """
        proceed = ""
        while True:
            stdout = await self.run("get", "--raw", collection.list_path(proceed), urgent=urgent)
            is_long = len(stdout) >= LONG
            page = await asyncio.to_thread(collection.read_page, stdout) if is_long else collection.read_page(stdout)
            yield page
            if not page.proceed:
                return
            if page.proceed == proceed:  # a cache on the way that repeats itself
                raise unreadable("the next page of a list", stdout)
            proceed = page.proceed

    async def list_objects(self, *collections: Collection) -> list[KubeObject]:
        """Return the objects of these collections; lists them one by one, so that it uses one process at a time."""
        return [obj for one in collections async for page in self.pages(one) for obj in page.objects]

    async def list_sandboxes(self, namespace: str) -> list[KubeObject]:
        """Return every Pod and Service with the sandboxes' label."""
        return await self.list_objects(raw.sandboxes_of(namespace, "Pod"), raw.sandboxes_of(namespace, "Service"))

    async def list_extras(self, namespace: str) -> list[KubeObject]:
        """Return the objects of templates, except those that outlive their sandbox."""
        return await self.list_objects(*raw.extras_of(namespace))

    async def events_of(self, obj: KubeObject) -> list[KubeObject]:
        """Return the Events of this object (record: events-failed-mount)."""
        return await self.list_objects(raw.events_of(obj))

    async def logs(self, pod: KubeObject, container: str, *, lines: int, most: int, previous: bool = False) -> bytes:
        """Return the last `lines` lines of a container's log; `previous`: of the run before its last restart.

        `most`: limit in bytes, which cuts off the newest lines (the kubelet reads from the oldest). Raises LogMissing
        if there is no log (record: logs-waiting).
        """
        metadata = pod["metadata"]
        limits = (f"--tail={lines}", f"--limit-bytes={most}", *(["--previous"] if previous else []))
        return await self.run("logs", "-n", metadata["namespace"], metadata["name"], "-c", container, *limits)

    async def delete(self, references: list[KubeObject], *, urgent: bool = False) -> None:
        """Delete objects without waiting until they are gone; ignores missing ones.

        Passes them on stdin, since a delete by name costs 110 ms per object (kubectl.md, Cost).
        """
        try:
            stdout = await self.run(*DELETE, stdin=_stdin(references), urgent=urgent)
        except ObjectsMissing as error:
            # kubectl continues after a missing object, and prints the names of the others.
            logger.debug("gone already: %s", error.names)
            check_deleted(error.stdout, [one for one in references if _name(one) not in error.names])
        else:
            check_deleted(stdout, references)

    async def delete_exactly(self, obj: KubeObject, *, urgent: bool = False, force: bool = False) -> bool:
        """Delete `obj` if its uid and resourceVersion are unchanged; return False if it was gone already.

        An object without a uid, of which only the resourceVersion is known, is compared by that alone.
        Raises PreconditionFailed if it was modified or replaced (record: delete-precondition-stale, -other-uid).
        `force`: at once, without its node's confirmation (record: delete-force-node-lost), if the uid is unchanged.
        """
        metadata = obj["metadata"]
        compared = ("uid",) if force else ("uid", "resourceVersion") if "uid" in metadata else ("resourceVersion",)
        preconditions = {key: metadata[key] for key in compared}
        options: dict[str, object] = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        if force:
            options["gracePeriodSeconds"] = 0
        path = kube.path_of(obj)
        try:
            stdout = await self.run(
                "delete", "--raw", path, "-f", "-", stdin=json.dumps(options).encode(), urgent=urgent
            )
        except ObjectsMissing as error:
            if error.names != {_name(obj)}:
                raise
            logger.debug("%s was gone already", path)
            return False
        check_deleted_exactly(stdout, obj)
        return True

    async def ensure_namespace(self, namespace: str) -> None:
        """Create the namespace if it does not exist. Needs cluster-wide rights; raises the errors of apply()."""
        metadata = {"name": namespace, "labels": {"app.kubernetes.io/name": "deer-flow"}}
        await self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])

    async def namespace_exists(self, namespace: str) -> bool:
        """Whether the namespace exists (record: namespace-get-missing-ignored)."""
        args = ("get", "namespace", namespace, "--ignore-not-found", "-o", "name")
        return has_line(await self.run(*args), f"namespace/{namespace}")


def _stdin(objects: list[KubeObject]) -> bytes:
    return json.dumps(kube.as_list(objects), separators=(",", ":")).encode()


def _partial(obj: KubeObject, fields: Sequence[str], annotations: dict[str, str]) -> KubeObject:
    """Return an apply configuration that sets the annotations; of the metadata's `fields`, some are preconditions."""
    metadata = {key: obj["metadata"][key] for key in fields}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": {**metadata, "annotations": annotations}}


def _has(obj: KubeObject, annotations: dict[str, str]) -> bool:
    return annotations.items() <= kube.get_annotations(obj).items()


def _name(reference: KubeObject) -> tuple[str, str]:
    return kube.RESOURCES[reference["kind"]], reference["metadata"]["name"]
