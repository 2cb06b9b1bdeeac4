"""`provisioner.py check`: whether this machine and this cluster are ready, line by line. Changes nothing.

It asks what the service would need, in that order, and stops where nothing more can be asked.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandboxes.deadlines import DEADLINES
from sandboxes.errors import ClusterRefused, ClusterUnavailable, ProvisionerError, StartupError, TemplateRefused
from sandboxes.kubectl.client import Kubectl
from sandboxes.kubectl.config import child_environment, connect, find_kubectl, read_context, version_of
from sandboxes.kubectl.kubeconfig import shown_address
from sandboxes.kubectl.output import check_ready, has_line
from sandboxes.kubectl.process import Completed, OutputTooLarge
from sandboxes.kubectl.raw import quotas_of
from sandboxes.kubectl.runner import KubectlRunner
from sandboxes.kubectl.stderr import classify
from sandboxes.ops.lines import Line, Verdict, quota_line, rights_line
from sandboxes.ops.preflight import trial_of
from sandboxes.ops.rights import (
    NO_REVIEW,
    REVIEW,
    RIGHTS_WANTED,
    RulesReview,
    read_review,
    review_request,
    rights_needed,
)
from sandboxes.spec.options import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

# A kubectl is 50 MB and 80 ms of CPU.
AT_ONCE = 4


async def check(
    settings: Settings, environ: Mapping[str, str], directory: Path, templates: Mapping[str, Template]
) -> AsyncIterator[Line]:
    """Yield a line for each question, as it is answered; raises nothing of ours. `directory`: writable, for kubectl."""
    try:
        binary = find_kubectl(settings, environ)
        version = await version_of(KubectlRunner(binary, (), child_environment(environ, (), home=directory)))
    except StartupError as error:
        yield Line(Verdict.FAIL, f"kubectl: {error}", is_last=True)
        return
    yield Line(Verdict.OK, f"kubectl: {version} at {binary}")
    try:
        runner = await connect(settings, environ, directory)
    except StartupError as error:
        yield Line(Verdict.FAIL, f"kubeconfig: {error}", is_last=True)
        return
    cluster = _Asker(runner, settings)
    async for line in cluster.address():
        yield line
        if line.is_last:
            return
    reached = await cluster.reached()
    for line in reached:
        yield line
    if any(line.is_last for line in reached):
        return
    async for line in _check_namespace(cluster, settings, templates):
        yield line


async def _check_namespace(
    cluster: _Asker, settings: Settings, templates: Mapping[str, Template]
) -> AsyncIterator[Line]:
    namespace = await cluster.namespace()
    yield namespace
    review = await cluster.review()
    for resource, verbs in rights_needed(templates, settings).items():
        yield await cluster.rights(review, resource, verbs)
    for resource, (verbs, loss) in RIGHTS_WANTED.items():
        yield await cluster.rights(review, resource, verbs, loss)
    if namespace.verdict is Verdict.FAIL:
        return
    for line in await cluster.quotas():
        yield line
    for name, template in templates.items():
        yield await cluster.template(name, template)


class _Asker:
    """Asks one cluster."""

    def __init__(self, runner: KubectlRunner, settings: Settings) -> None:
        self._runner = runner
        self._settings = settings
        self._namespace = settings.k8s_namespace
        self._at_once = asyncio.Semaphore(AT_ONCE)

    async def _ask(self, *args: str, stdin: bytes | None = None) -> Completed:
        """Run kubectl; no answer in time, and no kubectl, count as its failure."""
        try:
            async with self._at_once, asyncio.timeout(DEADLINES.check):
                return await self._runner(args, stdin=stdin)
        except TimeoutError:
            return Completed(1, b"", "Unable to connect to the server: i/o timeout")
        except (OSError, OutputTooLarge) as error:
            return Completed(1, b"", f"error: {error}")

    async def address(self) -> AsyncIterator[Line]:
        """Say which kubeconfig, context and address are used."""
        try:
            context = await read_context(self._runner)
        except StartupError as error:  # it has changed meanwhile
            yield Line(Verdict.FAIL, f"kubeconfig: {error}", is_last=True)
            return
        yield Line(Verdict.OK, f"kubeconfig: {self._runner.kubeconfig}, readable, context {context.name}")
        self._server = self._settings.k8s_api_server or shown_address(context.server)
        by = "K8S_API_SERVER" if self._settings.k8s_api_server else "the kubeconfig"
        yield Line(Verdict.OK, f"address: {self._server}, by {by}")

    async def reached(self) -> list[Line]:
        """Say whether an API server that we trust, and that knows us, answers."""
        completed = await self._ask("get", "--raw", "/readyz")
        certificate = Line(Verdict.OK, f"certificate: {self._certificate()}")
        if completed.returncode == 0:
            return [certificate, self._ready(completed)]
        if "(Forbidden)" in completed.stderr:
            return [certificate, Line(Verdict.NOT_PERMITTED, "API server: it answers, but /readyz is not for us")]
        error = classify(completed.stderr)
        if "certificate" in error.public:
            return [Line(Verdict.FAIL, f"certificate: {error.public}", is_last=True)]
        return [Line(Verdict.FAIL, f"API server: {error.public}", is_last=True)]

    @staticmethod
    def _ready(completed: Completed) -> Line:
        try:
            check_ready(completed.stdout)
        except ClusterUnavailable as error:
            return Line(Verdict.FAIL, f"API server: {error.public}", is_last=True)
        return Line(Verdict.OK, "API server: ready")

    def _certificate(self) -> str:
        if self._server.startswith("http://"):
            return "none, the address is plain http"
        if self._settings.k8s_insecure_skip_tls_verify:
            return "not checked (K8S_INSECURE_SKIP_TLS_VERIFY)"
        named = [flag.partition("=")[2] for flag in self._runner.flags if flag.startswith("--tls-server-name=")]
        return f"verified, for the name {named[0]}" if named else "verified"

    async def namespace(self) -> Line:
        """Say whether the namespace is there."""
        completed = await self._ask("get", "namespace", self._namespace, "--ignore-not-found", "-o", "name")
        if completed.returncode != 0:
            return self._refused(f"namespace: {self._namespace}", completed)
        try:
            is_there = has_line(completed.stdout, f"namespace/{self._namespace}")
        except ClusterUnavailable as error:
            return Line(Verdict.FAIL, f"namespace: {error.public}")
        if is_there:
            return Line(Verdict.OK, f"namespace: {self._namespace}")
        hint = "the service makes it at its start, if it may"
        return Line(
            Verdict.FAIL, f"namespace: {self._namespace} does not exist ({hint}); quota and templates not asked"
        )

    async def review(self) -> RulesReview:
        """Return all the rules that we have, by one question; NO_REVIEW where they can't be read.

        What is the matter there, `auth can-i` is told as well, and the lines on rights say it.
        """
        completed = await self._ask(*REVIEW, stdin=review_request(self._namespace))
        if completed.returncode != 0:
            return NO_REVIEW
        try:
            return read_review(completed.stdout)
        except ClusterUnavailable:
            return NO_REVIEW

    async def rights(self, review: RulesReview, resource: str, verbs: tuple[str, ...], loss: str = "") -> Line:
        """Say which of the verbs we may not use; asks for those that an incomplete review does not show."""
        missing = [verb for verb in verbs if not review.shows(verb, resource)]
        if review.is_complete:
            return rights_line(resource, verbs, missing, loss)
        answers = await asyncio.gather(*(self._can_i(verb, resource) for verb in missing))
        refused: list[str] = []
        for verb, answer in zip(missing, answers, strict=True):
            said = answer.stdout.strip()
            if said.startswith(b"no"):  # record: can-i-no
                refused.append(verb)
            elif said != b"yes" or answer.returncode != 0:
                return self._refused(f"rights on {resource}", answer)
        return rights_line(resource, verbs, refused, loss)

    async def _can_i(self, verb: str, resource: str) -> Completed:
        plural, _, subresource = resource.partition("/")
        of_what = (plural, *([f"--subresource={subresource}"] if subresource else []), "-n", self._namespace)
        return await self._ask("auth", "can-i", verb, *of_what)

    async def quotas(self) -> list[Line]:
        """Say of each ResourceQuota what of it is used up."""
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
        """Say whether the cluster would take a sandbox of the template; only the default one must be."""
        kubectl = Kubectl(
            self._runner, max_processes=1, max_waiting=1, deadline=DEADLINES.check, kubeconfig=self._runner.kubeconfig
        )
        try:
            await kubectl.dry_run(trial_of(name, template, self._settings))
        except ProvisionerError as error:
            # A cluster without gVisor, say: creates with this template are refused, all others are not.
            goes_without = name != DEFAULT_TEMPLATE and type(error) is ClusterRefused
            verdict = Verdict.NOT_PERMITTED if goes_without else Verdict.FAIL
            more = f"\n{error.detail}" if isinstance(error, TemplateRefused) else ""
            return Line(verdict, f"template {name}: {error.public}{more}")
        return Line(Verdict.OK, f"template {name}: the cluster takes it (dry run)")

    @staticmethod
    def _refused(what: str, completed: Completed) -> Line:
        verdict = Verdict.NOT_PERMITTED if "(Forbidden)" in completed.stderr else Verdict.FAIL
        return Line(verdict, f"{what}: {classify(completed.stderr).public}")
