"""What is said of variables that can't be followed, and what of their values may be shown. Pure.

A variable that narrows what a sandbox sees, or keeps a secret from it, stops the start where it can't be followed:
ignored, it would open what it was to close.
"""

from __future__ import annotations

import posixpath
import re
from string import Formatter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# DeerFlow's variables for the Lark CLI. They keep an app secret out of the sandbox: ignored, it would land there.
UNSUPPORTED = ("LARK_CLI_", "DEERFLOW_LARK_")

# Characters of a refused value that a message shows; what is longer is no value that somebody mistyped.
MOST_SHOWN = 200
# User info, a kubeconfig.
_MAY_BE_SECRET = re.compile(r"@|apiVersion|\{[^}]*:")
_ADDRESS = re.compile(r"[\w.:/\[\]-]*")


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


def may_be_shown(variable: str, value: object) -> bool:
    """Whether no secret can stand in a value that was refused: a key, a password or token in an address, a whole file.

    Nor the value of a variable where its name belongs (KUBECTL_PASS_ENV).
    """
    text = value if isinstance(value, str) else "".join(map(str, value)) if isinstance(value, tuple) else str(value)
    if variable == "PROVISIONER_API_KEY" or (variable == "KUBECTL_PASS_ENV" and "=" in text):
        return False
    is_an_address = variable == "K8S_API_SERVER" or "://" in text
    return (
        len(text) <= MOST_SHOWN
        and text.isprintable()
        and not _MAY_BE_SECRET.search(text)
        and (not is_an_address or bool(_ADDRESS.fullmatch(text)))
    )
