"""Compares the requests that the service sends to the API server during a test with the Role that it is deployed with.

devcluster logs each request with its user (`devcluster.audit`). The service uses the identity of the kubeconfig; a
test that runs kubectl itself impersonates TESTER.

The tests may run in several worker processes (pytest-xdist). Each worker hands over the rights it has seen, and the
controller compares them: tests/conftest.py registers the hooks below. A run of all contract tests fails if a granted
right is never used.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from devcluster import audit
from devcluster.audit import Entry
from devcluster.authorization import Right, rights_of
from tests.contract.kubectls import new_kubectl
from tests.deploy import all_objects, objects, overlay_with

ASKED = pytest.StashKey["Asked"]()
"""Key of the rights that the service used in this session."""

HAS_ALL = pytest.StashKey[bool]()
"""Whether a session has all contract tests. If it has only some of them, unused rights are no error."""

TESTER = "tester"
AS_TESTER = (f"--as={TESTER}", "--as-group=system:masters")

DEFAULTS = "."
PRODUCTION = "overlays/production"
TEMPLATES = "components/templates"
CLUSTERS = "components/clusters"
GATEWAY = "components/gateway-apart"
ROLES = (DEFAULTS, PRODUCTION, TEMPLATES, CLUSTERS, GATEWAY)
"""The Roles to compare with, by their folder in manifests/deploy."""

NOT_GRANTED = {
    Right(
        "get", "", "namespaces"
    ): "at startup: whether it exists; forbidden is a warning, since `kubectl apply -k` made it",
    Right("create", "", "namespaces"): "at startup if it is missing; in a deployment `kubectl apply -k` has made it",
    Right("patch", "", "namespaces"): "the same, by a server-side apply",
    Right(
        "list", "", "resourcequotas"
    ): "`check` and `GET /api/clusters`: what is left of it; if forbidden, `not permitted` and null",
    Right(
        "create", "authorization.k8s.io", "selfsubjectrulesreviews"
    ): "`check` and `/readyz`: granted to all users (system:basic-user)",
    Right(
        "create", "authorization.k8s.io", "selfsubjectaccessreviews"
    ): "`check`: the same, if the rules are incomplete",
}
"""Rights that the service uses and no Role grants, with the reason. A test fails if one of them is never used."""

OPEN_PATHS = re.compile(r"/api(/v1)?|/apis(/[^/]+){0,2}|/openapi/.+|/version|/(healthz|livez|readyz)(/.*)?")
"""Discovery, schemas, version and health: `system:discovery` grants them to all authenticated users."""

ELSEWHERE = {"default", "kube-public", "kube-system"}
"""Namespaces that no test uses: a request for one of them lacks `-n`."""


@functools.cache
def role(folder: str) -> frozenset[Right]:
    """Return the rights of the Role in a folder of manifests/deploy; a component is built on top of the base.

    For GATEWAY, those of the Role of the provisioner and of the Role that the component adds: a test may run both.
    """
    if folder == GATEWAY:
        with tempfile.TemporaryDirectory() as directory:
            text = {"resources": ["../../base"], "components": ["../../components/gateway", f"../../{folder}"]}
            found = all_objects(new_kubectl(), overlay_with(Path(directory), text))
            return frozenset().union(*(rights_of(one["rules"]) for one in found if one["kind"] == "Role"))
    if not folder.startswith("components/"):
        return rights_of(objects(new_kubectl(), folder)["Role"]["rules"])
    with tempfile.TemporaryDirectory() as directory:
        text = {"resources": ["../../base"], "components": [f"../../{folder}"]}
        return rights_of(objects(new_kubectl(), overlay_with(Path(directory), text))["Role"]["rules"])


def right_of(entry: Entry) -> Right:
    """Return the right that the request of an entry needs."""
    return Right(entry.verb, entry.group, entry.resource)


def of_the_service(entry: Entry) -> bool:
    """Whether the service sent the request: by kubectl, and without impersonation."""
    return entry.agent.startswith("kubectl/") and not entry.user


def beyond(entries: Iterable[Entry], granted: frozenset[Right]) -> list[str]:
    """Return the requests that are neither granted nor excepted, each with its namespace."""
    return sorted({_where(entry) for entry in entries if not _allowed(entry, granted)})


def _allowed(entry: Entry, granted: frozenset[Right]) -> bool:
    if entry.path:
        return entry.verb == "get" and OPEN_PATHS.fullmatch(entry.path) is not None
    right = right_of(entry)
    within = entry.namespace not in {"", *ELSEWHERE}
    return right in NOT_GRANTED or (right in granted and within)


def _where(entry: Entry) -> str:
    if entry.path:
        return f"{entry.verb} {entry.path}"
    named = f"{entry.resource}.{entry.group}" if entry.group else entry.resource
    return f"{entry.verb} {named} in {entry.namespace or 'all of the cluster'}"


class Asked(logging.Filter):
    """Collects the requests of the service to every devcluster in this process, for the current test and in total.

    A logging filter that drops every record, so that the log of a failing test does not show them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._new: set[Entry] = set()
        self.in_all: set[Right] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Collect the entry and drop the record."""
        assert isinstance(record.args, tuple)
        (entry,) = record.args
        assert isinstance(entry, Entry)
        self._new.add(entry)
        return False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Collect entries while the block runs."""
        logger = logging.getLogger(audit.LOGGER)
        level = logger.level
        logger.setLevel(logging.INFO)
        logger.addFilter(self)
        try:
            yield
        finally:
            logger.removeFilter(self)
            logger.setLevel(level)

    @contextmanager
    def within(self, folder: str, elsewhere: Callable[[], Iterable[Entry]] = tuple) -> Iterator[None]:
        """Fail if the service uses a right in the block that the Role lacks; `elsewhere` returns further entries."""
        outer, self._new = self._new, set()
        try:
            yield
        finally:
            new, self._new = self._new, outer
        entries = {entry for entry in (*new, *elsewhere()) if of_the_service(entry)}
        self.in_all |= {right_of(entry) for entry in entries if not entry.path}
        too_much = beyond(entries, role(folder))
        assert not too_much, f"the service asked for what the Role of {folder} does not grant: {', '.join(too_much)}"


def reading(path: Path) -> Callable[[], list[Entry]]:
    """Return a function that returns the entries written to a devcluster's `--audit-log` since its last call."""
    read = 0

    def new() -> list[Entry]:
        nonlocal read
        lines = path.read_bytes()[read:].splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        read += sum(map(len, whole))
        fields: list[dict[str, Any]] = [json.loads(line) for line in whole]
        return [Entry(**one) for one in fields]

    return new


def never_asked_for(asked: set[Right]) -> Mapping[str, frozenset[Right]]:
    """Return the rights that are granted or excepted, but not used, by the name of their Role or table."""
    granted = {f"the Role of {folder}": role(folder) for folder in ROLES}
    return {name: rights - asked for name, rights in {**granted, "NOT_GRANTED": frozenset(NOT_GRANTED)}.items()}


def _hand_over(config: pytest.Config) -> dict[str, Any]:
    rights = config.stash[ASKED].in_all if ASKED in config.stash else set()
    asked = [[right.verb, right.group, right.resource] for right in rights]
    return {"asked": asked, "has_all": config.stash.get(HAS_ALL, False)}


def _take_over(config: pytest.Config, handed_over: dict[str, Any]) -> None:
    config.stash.setdefault(ASKED, Asked()).in_all |= {Right(*fields) for fields in handed_over["asked"]}
    config.stash[HAS_ALL] = config.stash.get(HAS_ALL, True) and handed_over["has_all"]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add the rights that a worker has seen; a worker that crashed hands over nothing."""
    _take_over(node.config, getattr(node, "workeroutput", {"asked": [], "has_all": False}))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In a worker, hand over the used rights; else report the unused ones, with one test report for each Role."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput |= _hand_over(session.config)
        return
    is_over = exitstatus in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} and not session.shouldfail
    if not is_over or session.config.option.collectonly or not session.config.stash.get(HAS_ALL, False):
        return
    for name, rights in never_asked_for(session.config.stash[ASKED].in_all).items():
        title = f"everything in {name} is asked for by some test"
        never = ", ".join(sorted(f"{right.verb} {right.resource}.{right.group}".rstrip(".") for right in rights))
        report = pytest.TestReport(
            nodeid=f"tests/audit.py::{title}",
            location=("tests/audit.py", None, title),
            keywords={},
            outcome="failed" if rights else "passed",
            longrepr=f"no test has the service ask for: {never}" if rights else None,
            when="call",
        )
        session.config.hook.pytest_runtest_logreport(report=report)
        if rights:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
