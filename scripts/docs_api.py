"""Generates the reference of the REST API: routes, errors, limits of time, operations and reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.api.openapi.failures import FAILURES
from sandboxes.api.openapi.operations import OPERATIONS
from sandboxes.deadlines import DEADLINES
from sandboxes.models.requests import ANSWER_SECONDS
from sandboxes.status.advice import SUMMARIES
from sandboxes.status.reasons import HOPELESS
from scripts.docs_bodies import document, kind, model_link
from scripts.docs_markdown import table

if TYPE_CHECKING:
    from sandboxes.api.openapi.failures import Failure
    from sandboxes.api.openapi.operations import Operation


def routes_table() -> str:
    """Format every route with its status codes."""
    return table(
        ("Route", "Success", "Failure", "What it does"),
        (
            (f"`{one.method} {one.path}`", "200", ", ".join(failures(one)) or "-", f"[{one.summary}](#{anchor(one)})")
            for one in OPERATIONS
        ),
    )


def failures(operation: Operation) -> list[str]:
    """List the status codes of the errors that the document has for an operation."""
    responses = document()["paths"][operation.path][operation.method.lower()]["responses"]
    return sorted(status for status in responses if int(status) >= 400)  # noqa: PLR2004 - HTTP's errors


def anchor(operation: Operation) -> str:
    """Name the heading of an operation as MyST and GitHub do: a second one of the same text gets a number."""
    before = OPERATIONS[: OPERATIONS.index(operation)]
    same = sum(one.summary == operation.summary for one in before)
    return operation.summary.lower().replace(",", "").replace(" ", "-") + (f"-{same}" if same else "")


def errors_table() -> str:
    """Format every status of an error with the sentences that say when it is answered."""
    by_status: dict[int, list[Failure]] = {}
    for failure in FAILURES.values():
        by_status.setdefault(failure.status, []).append(failure)
    return table(("Status", "When"), ((str(status), _sentences(those)) for status, those in sorted(by_status.items())))


def _sentences(failures_of_a_status: list[Failure]) -> str:
    """Join the sentences; of several, each with its name, by which the others may refer to it."""
    if len(failures_of_a_status) == 1:
        return failures_of_a_status[0].sentence
    return " ".join(f"`{failure.name}`: {failure.sentence}" for failure in failures_of_a_status)


def limits_table() -> str:
    """Format the time that each kind of request has."""
    create = DEADLINES.create + DEADLINES.undo
    return table(
        ("Request", "Answered within"),
        (
            ("create, its rollback included", f"{create:g} s"),
            ("delete", f"{DEADLINES.delete:g} s"),
            ("any read", f"{DEADLINES.read:g} s"),
            ("create or get with `wait_seconds`", f"{ANSWER_SECONDS} s, unless the create takes longer by itself"),
            ("`/readyz`", f"{DEADLINES.ready:g} s"),
            ("a body, until it has arrived", f"{DEADLINES.body:g} s"),
        ),
    )


def operations_text() -> str:
    """Describe every operation: parameters, body, answers and errors."""
    return "\n\n".join(_operation_text(operation) for operation in OPERATIONS)


def _operation_text(operation: Operation) -> str:
    told = document()["paths"][operation.path][operation.method.lower()]
    parts = [f"### {operation.summary}", f"`{operation.method} {operation.path}`", operation.description]
    if "parameters" in told:
        rows = ((f"`{one['name']}`", one["in"], kind(one["schema"]), one["description"]) for one in told["parameters"])
        parts.append(table(("Parameter", "In", "Type", "Meaning"), rows))
    if operation.body is not None:
        parts.append(f"Body: {model_link(operation.body.__name__)}.")
    answers = [model_link(model.__name__) for model in operation.answers]
    answers = answers or [f"`{media_type}`" for media_type in operation.media_types]
    also = " 304: not modified, by `If-None-Match`." if operation.is_cached else ""
    parts.append(f"200: {' or '.join(answers)}.{also} Errors: {', '.join(failures(operation)) or 'none of its own'}.")
    return "\n\n".join(parts)


def reasons_table() -> str:
    """Format every reason with its advice, and whether a wait ends at it."""
    words = dict.fromkeys(("container", "image", "exit_code", "memory", "node"), "…")
    return table(
        ("`reason`", "`summary` in diagnostics", "Ends a wait"),
        (
            (f"`{reason}`", f"{text[0].upper()}{text[1:]}.", "yes" if reason in HOPELESS else "-")
            for reason, text in ((reason, sentence.format(**words)) for reason, sentence in SUMMARIES.items())
        ),
    )
