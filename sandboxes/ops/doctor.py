"""`provisioner.py check`: checks whether this machine and the cluster are ready, line by line. Changes nothing.

Checks what the service needs, in the order of its startup, and stops if no further check is possible.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from sandboxes.access.start import gateway_keys
from sandboxes.deadlines import DEADLINES
from sandboxes.errors import (
    ClusterRefused,
    ClusterTimeout,
    ClusterUnavailable,
    ProvisionerError,
    StartupError,
    TemplateRefused,
)
from sandboxes.fleet.markers import RECORD_NAME
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.config import Connection, child_environment, find_kubectl, is_plain_http, prepare, version_of
from sandboxes.kubectl.kubeconfig import shown_address
from sandboxes.kubectl.output import check_ready, has_line
from sandboxes.kubectl.places import place_of
from sandboxes.kubectl.process import Completed, OutputTooLarge
from sandboxes.kubectl.raw import quotas_of
from sandboxes.kubectl.rules import KUBECONFIG_UNUSABLE
from sandboxes.kubectl.runner import KubectlRunner
from sandboxes.kubectl.stderr import UNKNOWN_REASON, classify, is_forbidden
from sandboxes.ops.lines import Line, Verdict, quota_line, rights_line
from sandboxes.ops.preflight import trial_of
from sandboxes.ops.rights import (
    NO_REVIEW,
    REVIEW,
    RulesReview,
    Wanted,
    read_review,
    review_request,
    rights_wanted,
)
from sandboxes.spec.options import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from sandboxes.kubectl.places import Place
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

_Key = TypeVar("_Key")

# A kubectl is 50 MB and 80 ms of CPU.
AT_ONCE = 4


def gateway_line(settings: Settings, *, in_pod: bool) -> Line | None:
    """Check the settings of the gateway, as the start does; None if there is no gateway. `in_pod`: see gateway_keys."""
    try:
        keys = gateway_keys(settings, (settings,), in_pod=in_pod)
    except StartupError as error:
        return Line(Verdict.FAIL, f"gateway: {error}")
    return None if keys is None else Line(Verdict.OK, f"gateway: URLs begin with {settings.gateway_url}")


class Checked:
    """The clusters of one list that were checked so far, to find two entries for the same cluster and namespace.

    The service makes a ConfigMap in each, whose uid tells them apart.
    """

    def __init__(self) -> None:
        self._places: dict[Place, str] = {}
        self._uids: dict[str, str] = {}

    def by_place(self, name: str, place: Place) -> str | None:
        """Add a cluster; return the first one with this place, if there is one."""
        return self._first(self._places, name, place)

    def by_uid(self, name: str, uid: str) -> str | None:
        """Add a cluster; return the first one with this uid, if there is one. Empty: not known."""
        return self._first(self._uids, name, uid) if uid else None

    @staticmethod
    def _first(found: dict[_Key, str], name: str, key: _Key) -> str | None:
        first = found.setdefault(key, name)
        return None if first == name else first


async def check(  # noqa: PLR0913 - each is independent of the others
    settings: Settings,
    environ: Mapping[str, str],
    directory: Path,
    templates: Mapping[str, Template],
    context: str | None = None,
    *,
    checked: Checked | None = None,
) -> AsyncIterator[Line]:
    """Yield the result of each check when it is known. Errors become lines.

    `directory`: writable, for kubectl. `context`: of the kubeconfig; None: the current one. `checked`: the clusters of
    the same list that were checked before this one, to which it is added; None for one that needs not be another.
    """
    try:
        binary = find_kubectl(settings, environ)
        version = await version_of(KubectlRunner(binary, (), child_environment(environ, (), home=directory)))
    except StartupError as error:
        yield Line(Verdict.FAIL, f"kubectl: {error}", is_last=True)
        return
    yield Line(Verdict.OK, f"kubectl: {version} at {binary}")
    try:
        connection = await prepare(settings, environ, directory, context=context)
    except StartupError as error:
        yield Line(Verdict.FAIL, f"kubeconfig: {error}", is_last=True)
        return
    cluster = _ClusterChecks(connection, settings)
    for line in cluster.address():
        yield line
    name, first = settings.cluster or "", None
    if checked is not None:
        first = checked.by_place(name, place_of(connection.context, settings))
    reached = await cluster.reached()
    for line in reached:
        yield line
    if any(line.is_last for line in reached):
        return
    if checked is not None and first is None:
        first = checked.by_uid(name, await cluster.uid_of_config_map(RECORD_NAME))
    if first is not None:
        yield Line(Verdict.FAIL, f"list of clusters: this is the same cluster and namespace as {first}; take one out")
    async for line in _check_namespace(cluster, settings, templates):
        yield line


async def _check_namespace(
    cluster: _ClusterChecks, settings: Settings, templates: Mapping[str, Template]
) -> AsyncIterator[Line]:
    namespace = await cluster.namespace()
    yield namespace
    review = await cluster.review()
    for resource, wanted in rights_wanted(templates, settings).items():
        yield await cluster.rights(review, resource, wanted)
    if namespace.verdict is Verdict.FAIL:
        return
    for line in await cluster.quotas():
        yield line
    for name, template in templates.items():
        yield await cluster.template(name, template)


class _ClusterChecks:
    """Runs the checks against one cluster."""

    def __init__(self, connection: Connection, settings: Settings) -> None:
        self._runner, self._context = connection
        self._settings = settings
        self._namespace = settings.k8s_namespace
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def _ask(self, *args: str, stdin: bytes | None = None) -> Completed:
        """Run kubectl. A timeout, or an error when starting it, is returned as a failed call."""
        try:
            async with self._at_once, asyncio.timeout(DEADLINES.check):
                return await self._runner(args, stdin=stdin)
        except TimeoutError:
            return Completed(1, b"", "Unable to connect to the server: i/o timeout")
        except (OSError, OutputTooLarge) as error:
            return Completed(1, b"", f"error: {error}")

    def address(self) -> Iterator[Line]:
        """Report the kubeconfig, context and address in use."""
        yield Line(Verdict.OK, f"kubeconfig: {self._runner.kubeconfig}, readable, context {self._context.name}")
        shown = self._settings.k8s_api_server or shown_address(self._context.server)
        by = "K8S_API_SERVER" if self._settings.k8s_api_server else "the kubeconfig"
        yield Line(Verdict.OK, f"address: {shown}, by {by}")

    async def reached(self) -> list[Line]:
        """Check that the API server answers, its certificate and our credentials."""
        completed = await self._ask("get", "--raw", "/readyz")
        certificate = Line(Verdict.OK, f"certificate: {self._certificate()}")
        if completed.returncode == 0:
            return [certificate, self._ready(completed)]
        if is_forbidden(completed.stderr):
            return [certificate, Line(Verdict.NOT_PERMITTED, "API server: reachable, but /readyz is forbidden")]
        error = classify(completed.stderr)
        if isinstance(error, ClusterTimeout) and (waiting := self._runner.plugins.waiting()):
            said = f"\n{waiting.said}" if waiting.said else ""
            return [Line(Verdict.FAIL, f"API server: {waiting.sentence}{said}", is_last=True)]
        what = "certificate" if "certificate" in error.public else "API server"
        said = "\n".join(filter(None, (f"{what}: {error.public}", _words_of(error))))
        return [Line(Verdict.FAIL, said, is_last=True)]

    @staticmethod
    def _ready(completed: Completed) -> Line:
        try:
            check_ready(completed.stdout)
        except ClusterUnavailable as error:
            return Line(Verdict.FAIL, f"API server: {error.public}", is_last=True)
        return Line(Verdict.OK, "API server: ready")

    def _certificate(self) -> str:
        """Describe the check of the certificate in a call that has succeeded."""
        if is_plain_http(self._settings.k8s_api_server or self._context.server):
            return "none, the address is plain http"
        if self._settings.k8s_insecure_skip_tls_verify:
            return "not checked (K8S_INSECURE_SKIP_TLS_VERIFY)"
        if self._context.is_insecure:
            return "not checked (insecure-skip-tls-verify in the kubeconfig)"
        named = [flag.partition("=")[2] for flag in self._runner.flags if flag.startswith("--tls-server-name=")]
        name = next(iter(named), self._context.tls_server_name)
        return f"verified, for the name {name}" if name else "verified"

    async def uid_of_config_map(self, name: str) -> str:
        """Return the uid of the ConfigMap; empty if there is none, or it can't be read."""
        path = "-o=jsonpath={.metadata.uid}"
        completed = await self._ask("get", "configmap", name, "-n", self._namespace, "--ignore-not-found", path)
        return completed.stdout.decode(errors="replace").strip() if completed.returncode == 0 else ""

    async def namespace(self) -> Line:
        """Check that the namespace exists."""
        completed = await self._ask("get", "namespace", self._namespace, "--ignore-not-found", "-o", "name")
        if completed.returncode != 0:
            return self._refused(f"namespace: {self._namespace}", completed)
        try:
            is_there = has_line(completed.stdout, f"namespace/{self._namespace}")
        except ClusterUnavailable as error:
            return Line(Verdict.FAIL, f"namespace: {error.public}")
        if is_there:
            return Line(Verdict.OK, f"namespace: {self._namespace}")
        hint = "the service creates it at startup, if its rights allow it"
        return Line(
            Verdict.FAIL, f"namespace: {self._namespace} does not exist ({hint}); quota and templates not checked"
        )

    async def review(self) -> RulesReview:
        """Return all our rules, from one call; NO_REVIEW if they can't be read.

        `auth can-i` fails for the same cause then, and the lines on rights report it.
        """
        completed = await self._ask(*REVIEW, stdin=review_request(self._namespace))
        if completed.returncode != 0:
            return NO_REVIEW
        try:
            return read_review(completed.stdout)
        except ClusterUnavailable:
            return NO_REVIEW

    async def rights(self, review: RulesReview, resource: str, wanted: Wanted) -> Line:
        """Check our rights on a resource. If the review is incomplete, run `auth can-i` for verbs that it lacks."""
        missing = [verb for verb in wanted.verbs if not review.shows(verb, resource)]
        if review.is_complete:
            return rights_line(resource, wanted, missing)
        answers = await asyncio.gather(*(self._can_i(verb, resource) for verb in missing))
        refused: list[str] = []
        for verb, answer in zip(missing, answers, strict=True):
            said = answer.stdout.strip()
            if said.startswith(b"no"):  # record: can-i-no
                refused.append(verb)
            elif said != b"yes" or answer.returncode != 0:
                return self._refused(f"rights on {resource}", answer)
        return rights_line(resource, wanted, refused)

    async def _can_i(self, verb: str, resource: str) -> Completed:
        plural, _, subresource = resource.partition("/")
        of_what = (plural, *([f"--subresource={subresource}"] if subresource else []), "-n", self._namespace)
        return await self._ask("auth", "can-i", verb, *of_what)

    async def quotas(self) -> list[Line]:
        """Report the usage of each ResourceQuota."""
        quotas = quotas_of(self._namespace)
        completed = await self._ask("get", "--raw", quotas.list_path())
        if completed.returncode != 0:
            return [self._refused("quota", completed)]
        try:
            items = quotas.read_page(completed.stdout).objects
        except ClusterUnavailable as error:
            return [Line(Verdict.FAIL, f"quota: {error.public}")]
        return [quota_line(item) for item in items] or [Line(Verdict.OK, "quota: none")]

    async def template(self, name: str, template: Template) -> Line:
        """Check by a dry run that the cluster accepts the template. Only the default template must pass."""
        kubectl = Kubectl(
            self._runner, max_processes=1, max_waiting=1, deadline=DEADLINES.check, kubeconfig=self._runner.kubeconfig
        )
        try:
            await kubectl.dry_run(trial_of(name, template, self._settings))
        except ProvisionerError as error:
            # Such as a cluster without gVisor: only creates with this template are refused.
            is_optional = name != DEFAULT_TEMPLATE and type(error) is ClusterRefused
            verdict = Verdict.NOT_PERMITTED if is_optional else Verdict.FAIL
            more = error.detail if isinstance(error, TemplateRefused) else _words_of(error)
            return Line(verdict, "\n".join(filter(None, (f"template {name}: {error.public}", more))))
        return Line(Verdict.OK, f"template {name}: the cluster accepts it (dry run)")

    @staticmethod
    def _refused(what: str, completed: Completed) -> Line:
        verdict = Verdict.NOT_PERMITTED if is_forbidden(completed.stderr) else Verdict.FAIL
        error = classify(completed.stderr)
        return Line(verdict, "\n".join(filter(None, (f"{what}: {error.public}", _words_of(error)))))


def _words_of(error: ProvisionerError) -> str:
    """Return the API server's or kubectl's words that may be shown, if the sentence does not say what is wrong."""
    if isinstance(error, ClusterRefused) and error.words:
        return error.words
    return error.detail.strip() if error.public in (KUBECONFIG_UNUSABLE, UNKNOWN_REASON) else ""
