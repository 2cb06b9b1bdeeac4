"""The environment as a whole: which variable takes effect, and the messages about those that can't be used. Pure.

No message shows a value that may contain a secret.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sandboxes.addresses import LISTEN_HOST, LISTEN_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import ValidationError

# Variable → fallback that is read if the variable is unset or empty.
FALLBACKS = {LISTEN_HOST: "HOST", LISTEN_PORT: "PORT"}

# DeerFlow's variables for the Lark CLI. They keep an app secret out of the sandbox; ignoring one would expose it.
LARK_PREFIXES = ("LARK_CLI_", "DEERFLOW_LARK_")
LARK_VARIABLES = frozenset({"LARK_CLI_INIT_IMAGE", "LARK_CLI_BROKER_IMAGE", "DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS"})
# Build arguments of DeerFlow's images, which restrict nothing. Its compose file puts all of `.env` into the container.
_LARK_BUILD_ARGUMENTS = frozenset({"LARK_CLI_NPM_VERSION", "LARK_CLI_VERSION"})

# Maximum length, in characters, of an invalid value that a message shows; a longer one is not a typing error.
MOST_SHOWN = 200
# User info of a URL, or the content of a kubeconfig.
_MAY_BE_SECRET = re.compile(r"@|apiVersion|\{[^}]*:")
_ADDRESS = re.compile(r"[\w.:/\[\]-]*")


def message(problems: Sequence[str]) -> str:
    """Return the message that a failed start prints: one line per problem."""
    return "\n".join(["The environment can't be used:", *(f"  {problem}" for problem in problems)])


def described(error: ValidationError, environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that the error is about, with its value if that can be shown."""
    sentences = []
    for item in error.errors():
        # pydantic names the first alias, even if the value is the fallback's.
        variable = used_variable(str(item["loc"][0]), environ)
        holds = repr(item["input"]) if may_be_shown(variable, item["input"]) else "a value that is not shown"
        sentences.append(f"{variable} holds {holds}. {rule_of(item['msg'])}.")
    return sentences


def rule_of(text: str) -> str:
    """Return pydantic's message about a value as a sentence without a full stop."""
    rule = text.replace("Value error, ", "It may hold ").replace("Input should be", "It should be")
    return rule.partition(", unable to")[0]


def unsupported(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that is set but not supported by this version."""
    return [
        f"{name} is set, but this version does not know it: unset it."
        for name, value in sorted(environ.items())
        if value and name.startswith(LARK_PREFIXES) and name not in LARK_VARIABLES | _LARK_BUILD_ARGUMENTS
    ]


def may_be_shown(variable: str, value: object) -> bool:
    """Whether an invalid value can be shown: it contains no key, password, token or file content.

    KUBECTL_PASS_ENV takes names; an assignment there may contain a secret.
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


def used_variable(variable: str, environ: Mapping[str, str]) -> str:
    """Return the variable that takes effect: the fallback if only that is set, else `variable`."""
    fallback = FALLBACKS.get(variable, variable)
    return fallback if environ.get(fallback) and not environ.get(variable) else variable


def ignored_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each fallback whose value differs from the variable that overrides it."""
    for variable, fallback in FALLBACKS.items():
        value, other = environ.get(variable), environ.get(fallback)
        if value and other and value != other:
            yield f"{fallback} is ignored: {variable} wins over it, and holds {value!r}."
