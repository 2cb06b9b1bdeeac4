"""What is said of variables that can't be followed, and what of their values may be shown. Pure.

A variable that narrows what a sandbox sees, or keeps a secret from it, stops the start where it can't be followed:
ignored, it would open what it was to close.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING

from sandboxes.errors import StartupError
from sandboxes.grammar import is_ip_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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
    # `{{user_id}}`, as other templates write it, would be one literal folder for all.
    if path.strip() != path or set(path) & set("{}"):
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


LISTEN_HOST = "LISTEN_HOST"

LISTEN_PORT = "LISTEN_PORT"

# Read where the first one is unset or empty.
FALLBACKS = {LISTEN_HOST: "HOST", LISTEN_PORT: "PORT"}


@dataclass(frozen=True)
class Address:
    """Where to listen. `host_variable`, `port_variable`: what the operator would change."""

    host: str
    port: int
    host_variable: str = LISTEN_HOST
    port_variable: str = LISTEN_PORT


def check_address(address: Address) -> None:
    """Raise StartupError if the host is a name of which the operator can't see who reaches it.

    HOST of conda or tcsh is such a name, and resolves to an address of the network on some machines.
    """
    if not is_ip_address(address.host) and address.host != "localhost":
        raise StartupError(
            f"{address.host_variable} holds {address.host!r}, which is neither an IP address nor `localhost`. Without "
            f"an API key it must be one of those: set {LISTEN_HOST}."
        )


def used_variable(variable: str, environ: Mapping[str, str]) -> str:
    """Return the variable that is read: the fallback where only that one has a value, else `variable`."""
    fallback = FALLBACKS.get(variable, variable)
    return fallback if environ.get(fallback) and not environ.get(variable) else variable


def ignored_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each fallback that holds something else than the variable that wins over it."""
    for variable, fallback in FALLBACKS.items():
        value, other = environ.get(variable), environ.get(fallback)
        if value and other and value != other:
            yield f"{fallback} is ignored: {variable} wins over it, and holds {value!r}."
