"""What the service asked of the API server while a test ran, held against the Role that it is deployed with.

devcluster writes down who asked for what (`devcluster.audit`). The service speaks as the kubeconfig says; what a test
does with a kubectl of its own, it does as TESTER.

Several processes may share the tests (pytest-xdist). Each hands over what was asked for in it, and the one that started
them compares: tests/conftest.py makes the hooks below known. Where a run has all contract tests, what is granted and
never asked for fails it.
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
from tests.deploy import objects, overlay_with

ASKED = pytest.StashKey["Asked"]()
"""Where a session keeps what was asked."""

HAS_ALL = pytest.StashKey[bool]()
"""Whether a session has all contract tests. Where it has only some, the others' rights are not missed."""

TESTER = "tester"
AS_TESTER = (f"--as={TESTER}", "--as-group=system:masters")

DEFAULTS = "."
PRODUCTION = "overlays/production"
TEMPLATES = "components/templates"
ROLES = (DEFAULTS, PRODUCTION, TEMPLATES)
"""The Roles that there are, by the folder of manifests/deploy that makes them."""

NOT_GRANTED = {
    Right("get", "", "namespaces"): "at the start: is it there? Refused is a warning, and `kubectl apply -k` made it",
    Right("create", "", "namespaces"): "at the start, where it is missing; deployed, `kubectl apply -k` has made it",
    Right("patch", "", "namespaces"): "the same: it is made by a server-side apply",
    Right("list", "", "resourcequotas"): "`check`: how much is left; refused, it says `not permitted`",
    Right(
        "create", "authorization.k8s.io", "selfsubjectrulesreviews"
    ): "`check`, `/readyz`: everybody's (system:basic-user)",
    Right(
        "create", "authorization.k8s.io", "selfsubjectaccessreviews"
    ): "`check`: everybody's, too, where rules are incomplete",
}
"""What the service asks for and no Role grants, with the reason. A test needs each to be asked for."""

OPEN_PATHS = re.compile(r"/api(/v1)?|/apis(/[^/]+){0,2}|/openapi/.+|/version|/(healthz|livez|readyz)(/.*)?")
"""Discovery, schemas, version and health: `system:discovery` grants them to all who have logged in."""

ELSEWHERE = {"default", "kube-public", "kube-system"}
"""Where no test has the service work: to ask for something here is to have forgotten the namespace."""


@functools.cache
def role(folder: str) -> frozenset[Right]:
    """Return the rights of the Role that a folder of manifests/deploy makes; a component's, on the base."""
    if not folder.startswith("components/"):
        return rights_of(objects(new_kubectl(), folder)["Role"]["rules"])
    with tempfile.TemporaryDirectory() as directory:
        text = {"resources": ["../../base"], "components": [f"../../{folder}"]}
        return rights_of(objects(new_kubectl(), overlay_with(Path(directory), text))["Role"]["rules"])


def right_of(entry: Entry) -> Right:
    """Return the right that an entry takes."""
    return Right(entry.verb, entry.group, entry.resource)


def of_the_service(entry: Entry) -> bool:
    """Whether the service asked: it has no client but kubectl, and speaks for nobody else."""
    return entry.agent.startswith("kubectl/") and not entry.user


def beyond(entries: Iterable[Entry], granted: frozenset[Right]) -> list[str]:
    """Return what was asked for and is neither granted nor excepted, and where."""
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
    """What the service asks of every devcluster in this process: by the test that runs, and in all.

    A filter, which lets nothing through: what a failing test shows of the log has none of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._new: set[Entry] = set()
        self.in_all: set[Right] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        """Take an entry out of the log."""
        assert isinstance(record.args, tuple)
        (entry,) = record.args
        assert isinstance(entry, Entry)
        self._new.add(entry)
        return False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Read the log while the block runs."""
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
        """Fail if the block has the service ask for more than a Role; `elsewhere` gives what another process heard."""
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
    """Return what gives the entries that have been written to a devcluster's `--audit-log` since the last time."""
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
    """Return what is granted, or excepted, and was not asked for, by the name of who grants it."""
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
    """Take over what the services of a worker's tests asked for; from one that crashed there is nothing to take."""
    _take_over(node.config, getattr(node, "workeroutput", {"asked": [], "has_all": False}))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Hand over what was asked for, as a worker; else report, as if by a test each, what never was."""
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
