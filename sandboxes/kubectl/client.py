"""kubectl as the service uses it: `run()`, and on it apply, create, get, list, delete and logs.

Everything that is done to a cluster goes through here. A failed call raises an error of `errors.py`, made from
kubectl's stderr by `stderr.py`; its `detail` is a whole bug report, for the log.
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
    ConnectionFailed,
    KubectlNotRun,
    NamespaceMissing,
    ObjectsMissing,
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
    shown,
    unreadable,
)
from sandboxes.kubectl.process import Completed, OutputTooLarge
from sandboxes.kubectl.stderr import classify, without_repeats
from sandboxes.kubectl.withheld import fault_of, may_repeat_others, not_shown, repeatable
from sandboxes.tasks import Signal

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from sandboxes.kubectl.raw import Collection, Page
    from sandboxes.kubectl.runner import Runner
    from sandboxes.objects import KubeObject

logger = logging.getLogger(__name__)

# Whose fields these are in the eyes of server-side apply; an operator who applies by hand is another manager.
FIELD_MANAGER = "provisioner"

# A flag on the command line wins over the user's kuberc (record: kuberc-apply-dry-run-none), should kubectl read it in
# spite of the environment that it is given (config.child_environment). kubectl 1.27 has these flags, too.
STORES = "--dry-run=none"

# The calls that read objects on stdin, and do nothing until they have them: these can be started ahead.
APPLY = (
    "apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}",
    # Validation by schema costs kubectl twice the CPU, and server-side apply refuses unknown fields anyway
    # (record: apply-unknown-field-ignored).
    "--validate=ignore", "-o", "json", STORES, "-f", "-",
)  # fmt: skip
# Unlike an apply, a create of what is there already fails: of those who make the same object at once, one does.
# It drops a field that it does not know, which in a NetworkPolicy is no small thing: so it validates.
CREATE = ("create", f"--field-manager={FIELD_MANAGER}", "--validate=strict", "-o", "json", STORES, "-f", "-")
# Without --ignore-not-found, which takes every 404 for "not there", be it the API server's word or a proxy's.
GET = ("get", "-o", "json", "-f", "-")
DELETE = ("delete", "--wait=false", "-o", "name", STORES, "-f", "-")

# Processes for what does not wait in line, besides those that do.
URGENT_PROCESSES = 2


class Kubectl:
    """One cluster's kubectl, with a limit on processes at once and a bounded line before it.

    `deadline`: seconds that any one call may take, the wait for a free slot included. Whoever has less time wraps
    the call in asyncio.timeout: on cancellation, too, the process is ended and reaped. `kubeconfig`: the path, for the
    log to name.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_processes: int,
        max_waiting: int,
        deadline: float = DEADLINES.kubectl_call,
        kubeconfig: str = "",
    ) -> None:
        self._runner = runner
        self._kubeconfig = kubeconfig
        self._deadline = deadline
        self._slots = asyncio.Semaphore(max_processes)
        self._urgent_slots = asyncio.Semaphore(URGENT_PROCESSES)
        self._probe_slots = asyncio.Semaphore(1)
        self._max_waiting = max_waiting
        self._waiting = 0
        self.running = 0
        # After each call: its verb, `ok` or the error's class, and how many seconds it took.
        self.called: Signal[[str, str, float]] = Signal()

    @property
    def waiting(self) -> int:
        """How many calls wait for a process."""
        return self._waiting

    async def run(self, *args: str, stdin: bytes | None = None, urgent: bool = False) -> bytes:
        """Run kubectl and return what it printed on stdout.

        `urgent` calls do not wait in line: they clean up after a failure, which must not fail because of the load.
        Raises what `stderr.classify` makes of its stderr, ClusterTimeout at the deadline, Busy when the line is
        full, KubectlNotRun when kubectl can't be run.
        stdout counts only if the exit code is 0 (kubectl.md 3), and even then proves nothing by itself: each caller
        checks that it is the answer to what was asked.
        """
        return await self._call(args, stdin, self._urgent_slots if urgent else self._slots)

    async def probe(self) -> None:
        """Return if the API server says that it is ready (record: readyz); raises what run() raises.

        Waits for nobody but other probes, so that neither load nor clean-up makes this replica look dead.
        """
        check_ready(await self._call(("get", "--raw", "/readyz"), None, self._probe_slots))

    async def _call(self, args: Sequence[str], stdin: bytes | None, slots: asyncio.Semaphore) -> bytes:
        """Run kubectl when a slot is free, and return what it printed; see run()."""
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
        """Wait for one of the slots and have it for the block; raises Busy if too many wait in line already."""
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
        """Return what a kubectl that has ended well printed; raises what its end means otherwise."""
        if completed.returncode == 0:
            return completed.stdout
        detail = _bug_report(args, completed, self._kubeconfig)
        if completed.returncode < 0:
            raise ConnectionFailed("kubectl was ended before it could answer", detail=detail)
        failure = classify(completed.stderr, detail=detail)
        if isinstance(failure, ObjectsMissing):
            failure.stdout = completed.stdout
        raise failure

    def _not_answered(self, args: Sequence[str], error: Exception) -> ProvisionerError:
        """Return the error for a kubectl that was ended by us, or never ran."""
        if isinstance(error, TimeoutError):
            detail = f"kubectl {' '.join(args)}: ended by us after {self._deadline:g} s"
            return ClusterTimeout(detail=detail)
        if isinstance(error, OutputTooLarge):
            return ClusterRefused("The cluster's answer is too large", detail=f"kubectl {args}: {error}")
        return KubectlNotRun("The provisioner can't run kubectl", detail=f"kubectl can't be started: {error}")

    async def apply(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Apply by server-side apply and return the objects as the server stored them, in the same order.

        If any of them fails the error is raised and nothing is known of the others: look (kubectl.md 2).
        """
        return objects_stored(await self.run(*APPLY, stdin=_stdin(objects)), objects)

    async def create(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Make new objects and return them as the server stored them; raises AlreadyThere if one is there already.

        If any of them fails the error is raised and nothing is known of the others: look (kubectl.md 2).
        """
        return objects_created(await self.run(*CREATE, stdin=_stdin(objects)), objects)

    async def annotate(self, obj: KubeObject, annotations: dict[str, str], *, manager: str) -> KubeObject:
        """Set annotations of the very object that was read, under a field manager of their own; return it as stored.

        A later apply of other fields under this manager would remove them (kubectl.md 20). Raises ObjectsChanged if
        the object is gone or another by now: then nothing was changed (kubectl.md 16).
        """
        return (await self.annotate_all([(obj, annotations)], manager=manager))[0]

    async def annotate_all(
        self, changes: Sequence[tuple[KubeObject, dict[str, str]]], *, manager: str
    ) -> list[KubeObject]:
        """Do what `annotate` does for many objects in one call; return them in the same order."""
        flag = f"--field-manager={FIELD_MANAGER}"
        args = [f"{flag}-{manager}" if arg == flag else arg for arg in APPLY]
        partials = [_partial(obj, annotations) for obj, annotations in changes]
        stored = objects_stored(await self.run(*args, stdin=_stdin(partials)), partials)
        # What already has these values is not stored again.
        check_changed(stored, [obj for obj, annotations in changes if not _has(obj, annotations)])
        return stored

    async def dry_run(self, objects: list[KubeObject]) -> list[KubeObject]:
        """Return what the server would store, schema checked and admission asked; changes nothing."""
        changes = {"--validate=ignore": "--validate=strict", STORES: "--dry-run=server"}
        args = [changes.get(arg, arg) for arg in APPLY]
        return objects_named(await self.run(*args, stdin=_stdin(objects)), objects)

    async def get(self, references: list[KubeObject], *, urgent: bool = False) -> list[KubeObject]:
        """Return those of the named objects that exist."""
        wanted = references
        while wanted:
            try:
                stdout = await self.run(*GET, stdin=_stdin(wanted), urgent=urgent)
            except ObjectsMissing as error:
                there = [obj for obj in wanted if _name(obj) not in error.names]
                if len(there) == len(wanted):
                    raise
                wanted = there
            except NamespaceMissing:  # kubectl looks for the namespace of what it didn't find
                return []
            else:
                return objects_named(stdout, wanted)
        return []

    async def pages(self, collection: Collection, *, urgent: bool = False) -> AsyncGenerator[Page]:
        """Yield a list page by page; together they show one moment, whose version each of them has.

        `urgent`: see `run`. Raises ServerFailed if reading them took too long: the API server forgets that moment.
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
        """Return the objects of these collections, one after another: a list takes one process at a time."""
        return [obj for one in collections async for page in self.pages(one) for obj in page.objects]

    async def list_sandboxes(self, namespace: str) -> list[KubeObject]:
        """Return every Pod and Service with the label of sandboxes."""
        return await self.list_objects(raw.sandboxes_of(namespace, "Pod"), raw.sandboxes_of(namespace, "Service"))

    async def list_extras(self, namespace: str) -> list[KubeObject]:
        """Return what templates brought, but for what stays when its sandbox goes."""
        return await self.list_objects(*raw.extras_of(namespace))

    async def events_of(self, obj: KubeObject) -> list[KubeObject]:
        """Return the Events about this very object (record: events-failed-mount)."""
        return await self.list_objects(raw.events_of(obj))

    async def logs(self, pod: KubeObject, container: str, *, lines: int, most: int, previous: bool = False) -> bytes:
        """Return the last `lines` of what a container has written, the one before its last restart if `previous`.

        `most`: bytes; of more, it is the newest that are missing (kubelet reads the lines from the oldest on).
        Raises LogMissing where there is none (record: logs-waiting).
        """
        metadata = pod["metadata"]
        limits = (f"--tail={lines}", f"--limit-bytes={most}", *(["--previous"] if previous else []))
        return await self.run("logs", "-n", metadata["namespace"], metadata["name"], "-c", container, *limits)

    async def delete(self, references: list[KubeObject]) -> None:
        """Have the named objects deleted, without waiting until they are gone; those that aren't there don't matter.

        By stdin, since a delete by name costs 110 ms an object (kubectl.md, Cost).
        """
        try:
            stdout = await self.run(*DELETE, stdin=_stdin(references))
        except ObjectsMissing as error:
            # kubectl goes on after what is missing, and prints the names of the others.
            logger.debug("gone already: %s", error.names)
            check_deleted(error.stdout, [one for one in references if _name(one) not in error.names])
        else:
            check_deleted(stdout, references)

    async def delete_exactly(self, obj: KubeObject, *, urgent: bool = False) -> bool:
        """Delete `obj` if it is still the very version that was read; whether it was there, and not gone already.

        Raises PreconditionFailed if somebody touched or replaced it (record: delete-precondition-stale, -other-uid).
        """
        metadata = obj["metadata"]
        preconditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions}
        path = kube.path_of(obj)
        try:
            stdout = await self.run(
                "delete", "--raw", path, "-f", "-", stdin=json.dumps(options).encode(), urgent=urgent
            )
        except ObjectsMissing:
            logger.debug("%s was gone already", path)
            return False
        check_deleted_exactly(stdout, obj)
        return True

    async def ensure_namespace(self, namespace: str) -> None:
        """Make the namespace if it is missing. Needs rights on the cluster; raises what apply raises."""
        metadata = {"name": namespace, "labels": {"app.kubernetes.io/name": "deer-flow"}}
        await self.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])

    async def namespace_exists(self, namespace: str) -> bool:
        """Whether the namespace is there (record: namespace-get-missing-ignored)."""
        args = ("get", "namespace", namespace, "--ignore-not-found", "-o", "name")
        return has_line(await self.run(*args), f"namespace/{namespace}")


def _stdin(objects: list[KubeObject]) -> bytes:
    return json.dumps(kube.as_list(objects), separators=(",", ":")).encode()


def _partial(obj: KubeObject, annotations: dict[str, str]) -> KubeObject:
    """Return what sets annotations of this very object, and of no other that bears its name by now."""
    metadata = {key: obj["metadata"][key] for key in ("name", "namespace", "uid")}
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": {**metadata, "annotations": annotations}}


def _has(obj: KubeObject, annotations: dict[str, str]) -> bool:
    return annotations.items() <= kube.get_annotations(obj).items()


def _name(reference: KubeObject) -> tuple[str, str]:
    return kube.RESOURCES[reference["kind"]], reference["metadata"]["name"]


def _bug_report(args: Sequence[str], completed: Completed, kubeconfig: str) -> str:
    stdout, stderr = completed.stdout.decode(errors="replace"), completed.stderr
    # kubectl prompts on stdout (record: kubeconfig-no-user).
    if fault := fault_of(f"{stderr}\n{stdout}" if stdout.startswith("Please") else stderr, kubeconfig):
        stdout, stderr = "", not_shown(fault, kubeconfig)
    else:
        stdout = shown(stdout) if may_repeat_others() else "(not shown)"
        stderr = shown(without_repeats(repeatable(stderr, kubeconfig)))
    return (
        f"command: kubectl {' '.join(args)}\n"
        f"exit code: {completed.returncode}\n"
        f"stdout: {stdout.strip() or '(none)'}\n"
        f"stderr: {stderr.strip() or '(none)'}"
    )
