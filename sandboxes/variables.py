"""What variables of the environment may hold, and what is said of those that can't be followed. Pure.

A variable that narrows what a sandbox sees, or keeps a secret from it, stops the start where it can't be followed:
ignored, it would open what it was to close. Each check returns the value as it is used, or raises ValueError with the
rule that stands in the message of the start.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from sandboxes.errors import StartupError
from sandboxes.grammar import (
    QuantityError,
    is_dns_label,
    is_dns_name,
    is_ip_address,
    normalize_host,
    parse_quantity,
    peer_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

# DeerFlow's variables for the Lark CLI. They keep an app secret out of the sandbox: ignored, it would land there.
LARK_PREFIXES = ("LARK_CLI_", "DEERFLOW_LARK_")
LARK_VARIABLES = frozenset({"LARK_CLI_INIT_IMAGE", "LARK_CLI_BROKER_IMAGE", "DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS"})

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
        f"{name} is set, but this version does not know it: unset it."
        for name, value in sorted(environ.items())
        if value and name.startswith(LARK_PREFIXES) and name not in LARK_VARIABLES
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


API_KEY = re.compile(r"[!-~]([ -~]*[!-~])?")


_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


# Name files from which kubectl takes its cluster and the defaults of its flags: the service decides both.
_NEVER_PASSED = ("KUBECONFIG", "KUBECTL_KUBERC", "KUBERC")


def is_clean_absolute_path(path: str) -> bool:
    """Whether `path` starts at the root, has no `..` and no control characters.

    The API server refuses a hostPath with `..` (record: apply-hostpath-backstep).
    """
    return path.startswith("/") and ".." not in path.split("/") and path.isprintable()


def _node_path(value: str) -> str:
    if not is_clean_absolute_path(value):
        raise ValueError("an absolute path on the node, without `..`")
    return posixpath.normpath(value)


def threads_path(value: str) -> str:
    """Check THREADS_HOST_PATH, which may have `{user_id}` and `{thread_id}`; raises ValueError with a rule."""
    wrong = "an absolute path on the node, without `..`, with no other placeholders than `{user_id}` and `{thread_id}`"
    filled = value.replace("{user_id}", "u").replace("{thread_id}", "t")
    if set(filled) & set("{}") or not is_clean_absolute_path(filled):
        raise ValueError(wrong)
    return posixpath.normpath(value)


def namespace(value: str) -> str:
    """Return the name of a namespace; raises ValueError with a rule."""
    if not is_dns_label(value):
        raise ValueError("lower-case letters, digits and `-`, starting and ending with a letter or digit, at most 63")
    return value


def _claim_name(value: str) -> str:
    if not is_dns_name(value):
        raise ValueError("the name of a PersistentVolumeClaim: lower-case letters, digits, `-` and `.`")
    return value


def file_path(value: Path) -> Path:
    """Return the path of a file; raises ValueError with a rule."""
    # Where a file is named, some put its content.
    if not str(value).isprintable() or "apiVersion" in str(value):
        raise ValueError("the path of a file, and not its content")
    return value


def host_or_address(value: str) -> str:
    """Return a host name or an address; raises ValueError with a rule."""
    if not is_ip_address(value) and normalize_host(value) is None:
        raise ValueError("a host name or an IP address, without scheme or port")
    return value


def api_server(value: str) -> str:
    """Return the address of an API server; raises ValueError with a rule."""
    wrong = "a URL such as `https://host.docker.internal:6443`"
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError as error:
        raise ValueError(wrong) from error
    if not usable or "@" in url.netloc or url.query or url.fragment or not value.isprintable() or " " in value:
        raise ValueError(wrong)
    return value.rstrip("/")


def api_key(value: SecretStr) -> SecretStr:
    """Return a key that can travel in a header; raises ValueError with a rule."""
    if not API_KEY.fullmatch(value.get_secret_value()):
        raise ValueError("a key in printable ASCII without white space at its ends, since it travels in a header")
    return value


def upper_case(value: object) -> object:
    """Return a text in upper case."""
    return value.upper() if isinstance(value, str) else value


def lower_case(value: object) -> object:
    """Return a text in lower case."""
    return value.lower() if isinstance(value, str) else value


def words(value: object) -> object:
    """Return the words of a text, which white space or commas part."""
    return tuple(re.split(r"[\s,]+", value.strip())) if isinstance(value, str) else value


def variable_names(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return names of variables that kubectl may see; raises ValueError with a rule."""
    if not all(_VARIABLE_NAME.fullmatch(name) for name in value):
        raise ValueError("names of environment variables, separated by commas")
    if not set(value).isdisjoint(_NEVER_PASSED):
        raise ValueError(
            "names of environment variables, separated by commas, but not "
            f"{', '.join(_NEVER_PASSED[:-1])} or {_NEVER_PASSED[-1]}: the service itself decides what kubectl reads"
        )
    return value


def ingress_from(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries of SANDBOX_INGRESS_FROM; raises ValueError with a rule."""
    for entry in value:
        peer_of(entry)
    return value


def _amount(value: str) -> str:
    try:
        amount = parse_quantity(value)
    except QuantityError:
        amount = None
    if not amount:
        raise ValueError("a Kubernetes quantity above 0, such as `500m` or `2Gi`")
    return value


Amount = Annotated[str, AfterValidator(_amount)]


ThreadsPath = Annotated[str, AfterValidator(threads_path)]


NodePath = Annotated[str, AfterValidator(_node_path)]


Port = Annotated[int, Field(ge=1, le=65535)]


ClaimName = Annotated[str, AfterValidator(_claim_name)]
