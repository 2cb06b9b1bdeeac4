"""Builds the error of a failed kubectl, with the part of its output that the log may show."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sandboxes.errors import ConnectionFailed, ObjectsMissing
from sandboxes.kubectl.output import shown
from sandboxes.kubectl.stderr import classify, kubeconfig_unusable, messages, tried_default_server, without_repeats
from sandboxes.kubectl.withheld import fault_of, is_of_server, may_repeat_others, not_shown, repeatable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.errors import ProvisionerError
    from sandboxes.kubectl.process import Completed


def said_by(stderr: str, kubeconfig: str) -> str:
    """Return what may be shown of a stderr, without repeats; `kubeconfig`: its path."""
    return shown(without_repeats(repeatable(stderr, kubeconfig))).strip()


def bug_report(args: Sequence[str], completed: Completed, kubeconfig: str) -> str:
    """Return the detail for the log: command, exit code, and the part of stdout and stderr that may be shown."""
    stdout, stderr = completed.stdout.decode(errors="replace"), completed.stderr
    # kubectl prompts on stdout (record: kubeconfig-no-user).
    if fault := fault_of(f"{stderr}\n{stdout}" if stdout.startswith("Please") else stderr, kubeconfig):
        stdout, stderr = "", not_shown(fault, kubeconfig)
    else:
        stdout = shown(stdout) if may_repeat_others() else "(not shown)"
        stderr = said_by(stderr, kubeconfig)
    return (
        f"command: kubectl {' '.join(args)}\n"
        f"exit code: {completed.returncode}\n"
        f"stdout: {stdout.strip() or '(none)'}\n"
        f"stderr: {stderr.strip() or '(none)'}"
    )


def errors_of_each(
    args: Sequence[str], completed: Completed, kubeconfig: str
) -> tuple[tuple[str, ProvisionerError], ...]:
    """Return the API server's message about each object that it refused, with its error.

    kubectl prints one message for each object (record: apply-forbidden). Empty if one is not the API server's.
    """
    found = messages(completed.stderr)
    if not all(is_of_server(message) for message in found):
        return ()
    alone = (replace(completed, stdout=b"", stderr=message) for message in found)
    return tuple((one.stderr, classify(one.stderr, detail=bug_report(args, one, kubeconfig))) for one in alone)


def failure_of(args: Sequence[str], completed: Completed, kubeconfig: str, server: str) -> ProvisionerError:
    """Return the error of a failed kubectl; that of an apply has `each`, that of missing objects `stdout`.

    `kubeconfig`: its path; `server`: the API server that it named at the start.
    """
    detail = bug_report(args, completed, kubeconfig)
    if completed.returncode < 0:
        return ConnectionFailed("kubectl was killed before it responded", detail=detail)
    failure = classify(completed.stderr, detail=detail)
    if isinstance(failure, ConnectionFailed) and tried_default_server(completed.stderr, server):
        return kubeconfig_unusable(f"The kubeconfig names no API server any more.\n{detail}")
    if isinstance(failure, ObjectsMissing):
        failure.stdout = completed.stdout
    if args[0] == "apply":
        failure.each = errors_of_each(args, completed, kubeconfig)
    return failure
