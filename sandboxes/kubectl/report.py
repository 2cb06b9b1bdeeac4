"""Describes a failed call for the log: what kubectl printed, as far as it may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.kubectl.output import shown
from sandboxes.kubectl.stderr import without_repeats
from sandboxes.kubectl.withheld import fault_of, may_repeat_others, not_shown, repeatable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandboxes.kubectl.process import Completed


def said_by(stderr: str, kubeconfig: str) -> str:
    """Return what may be shown of a stderr, without repeats; `kubeconfig`: its path."""
    return shown(without_repeats(repeatable(stderr, kubeconfig))).strip()


def bug_report(args: Sequence[str], completed: Completed, kubeconfig: str) -> str:
    """Return command, exit code, stdout and stderr."""
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
