"""Variables that narrow what a sandbox sees, or keep a secret from it. Pure.

Such a variable stops the start where it can't be followed: ignored, it would open what it was to close.
"""

from __future__ import annotations

import posixpath
from string import Formatter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# DeerFlow's variables for the Lark CLI. They keep an app secret out of the sandbox: ignored, it would land there.
UNSUPPORTED = ("LARK_CLI_", "DEERFLOW_LARK_")


def message(problems: Sequence[str]) -> str:
    """Return what is printed when the start is refused: a sentence for each problem, on a line of its own."""
    return "\n".join(["The environment can't be used:", *(f"  {problem}" for problem in problems)])


def unsupported(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that is set and asks for what this version can't do."""
    return [
        f"{name} is set, but this version can't give sandboxes the Lark CLI: unset it."
        for name, value in sorted(environ.items())
        if value and name.startswith(UNSUPPORTED)
    ]


def sub_path_template(value: str) -> str:
    """Return the value of SKILLS_PVC_SUBPATH_TEMPLATE without a slash at its end; raises ValueError with a rule."""
    wrong = "a relative path without `..`, with no other placeholders than `{user_id}` and `{thread_id}`"
    try:
        parts = list(Formatter().parse(value))
    except ValueError as error:
        raise ValueError(wrong) from error
    fields = {(name, spec, conversion) for _, name, spec, conversion in parts if name is not None}
    if not fields <= {("user_id", "", None), ("thread_id", "", None)} or not value.isprintable():
        raise ValueError(wrong)
    path = value.format(user_id="u", thread_id="t")
    if path.startswith("/") or posixpath.normpath(path) != path.rstrip("/") or path.split("/")[0] in (".", ".."):
        raise ValueError(wrong)
    return value.rstrip("/")
