"""Validates the values of environment variables. Pure.

A variable that restricts a sandbox must stop the start if it can't be applied: ignoring it would lift the restriction.
Each validator returns the normalized value, or raises ValueError with the rule for the startup message.
"""

from __future__ import annotations

import os
import posixpath
import re
from string import Formatter
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from sandboxes.addresses import EVERY_ADDRESS
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
    from pathlib import Path


def _is_ambiguous(template: str) -> bool:
    """Whether two users may get one folder: `{user_id}-{thread_id}` is `a-b-c` for `a` and `b-c`, and `a-b` and `c`."""
    parts = template.split("/")
    return any(part.count("{user_id}") + part.count("{thread_id}") > 1 for part in parts)


def sub_path_template(value: str) -> str:
    """Return SKILLS_PVC_SUBPATH_TEMPLATE without a trailing slash. Raises ValueError with the rule."""
    wrong = (
        "a relative path without `..`, with no other placeholders than `{user_id}` and `{thread_id}`, at most one of "
        "them between two slashes"
    )
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
    # `{{user_id}}`, the syntax of other template languages, would be one literal folder for all users.
    if path.strip() != path or set(path) & set("{}") or _is_ambiguous(value):
        raise ValueError(wrong)
    return value.rstrip("/")


API_KEY = re.compile(r"[!-~]([ -~]*[!-~])?")


_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


# These select kubectl's cluster and default flags, which the service decides.
_NEVER_PASSED = ("KUBECONFIG", "KUBECTL_KUBERC", "KUBERC")


def is_clean_absolute_path(path: str) -> bool:
    """Whether `path` is absolute, without `..` and control characters.

    The API server rejects a hostPath with `..` (record: apply-hostpath-backstep).
    """
    return path.startswith("/") and ".." not in path.split("/") and path.isprintable()


def normalized(path: str) -> str:
    """Return the absolute path in its shortest form, with one leading slash."""
    # POSIX leaves the meaning of exactly two leading slashes open, and normpath keeps them: here they are one.
    return "/" + posixpath.normpath(path).lstrip("/")


def _node_path(value: str) -> str:
    if not is_clean_absolute_path(value):
        raise ValueError("an absolute path on the node, without `..`")
    return normalized(value)


def threads_path(value: str) -> str:
    """Check THREADS_HOST_PATH, which may have `{user_id}` and `{thread_id}`; raises ValueError with a rule."""
    wrong = (
        "an absolute path on the node, without `..`, with no other placeholders than `{user_id}` and `{thread_id}`, at "
        "most one of them between two slashes"
    )
    filled = value.replace("{user_id}", "u").replace("{thread_id}", "t")
    if set(filled) & set("{}") or not is_clean_absolute_path(filled) or _is_ambiguous(value):
        raise ValueError(wrong)
    return normalized(value)


def namespace(value: str) -> str:
    """Return the name of a namespace. Raises ValueError with the rule."""
    if not is_dns_label(value):
        raise ValueError("lower-case letters, digits and `-`, starting and ending with a letter or digit, at most 63")
    return value


def dns_domain(value: str) -> str:
    """Return the DNS domain of a cluster. Raises ValueError with the rule."""
    if not is_dns_name(value) or not all(map(is_dns_label, value.split("."))):
        raise ValueError("a DNS name in lower case, such as `cluster.local`, without dots at its ends")
    return value


def _claim_name(value: str) -> str:
    if not is_dns_name(value):
        raise ValueError("the name of a PersistentVolumeClaim: lower-case letters, digits, `-` and `.`")
    return value


def file_path(value: Path) -> Path:
    """Return the path of a file. Raises ValueError with the rule."""
    # A common mistake is to set the content instead of the path.
    if not str(value).isprintable() or "apiVersion" in str(value):
        raise ValueError("the path of a file, and not its content")
    return value


def path_list(value: object) -> object:
    """Split a list of paths as kubectl does; return other values unchanged. Raises ValueError with the rule."""
    if not isinstance(value, str):
        return value
    paths = tuple(dict.fromkeys(path for path in value.split(os.pathsep) if path))
    if not paths:
        raise ValueError(f"paths of files, separated by `{os.pathsep}`")
    return paths


def file_paths(value: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the paths of files. Raises ValueError with the rule."""
    return tuple(map(file_path, value))


def host_or_address(value: str) -> str:
    """Return a host name or an IP address. Raises ValueError with the rule."""
    if not is_ip_address(value) and normalize_host(value) is None:
        raise ValueError("a host name or an IP address, without scheme or port")
    return value


def listen_hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return hosts to listen on, without brackets and repetitions. Raises ValueError with the rule.

    `::` stands for all addresses of both families: what a socket of it accepts depends on the operating system.
    """
    hosts: list[str] = []
    for value in values:
        host = value[1:-1] if value.startswith("[") and value.endswith("]") and ":" in value else value
        try:
            hosts.append(host_or_address(host))
        except ValueError as error:
            raise ValueError("host names or IP addresses, without scheme or port, separated by commas") from error
    if "::" in hosts:
        hosts += EVERY_ADDRESS
    return tuple(dict.fromkeys(hosts))


def api_server(value: str) -> str:
    """Return the URL of an API server without a trailing slash. Raises ValueError with the rule."""
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
    """Return an API key that is a valid header value. Raises ValueError with the rule."""
    if not API_KEY.fullmatch(value.get_secret_value()):
        raise ValueError("a key in printable ASCII without white space at its ends, since it travels in a header")
    return value


def upper_case(value: object) -> object:
    """Convert a string to upper case; return other values unchanged."""
    return value.upper() if isinstance(value, str) else value


def lower_case(value: object) -> object:
    """Convert a string to lower case; return other values unchanged."""
    return value.lower() if isinstance(value, str) else value


def words(value: object) -> object:
    """Split a string at white space and commas; return other values unchanged."""
    return tuple(re.split(r"[\s,]+", value.strip())) if isinstance(value, str) else value


def comma_separated(value: object) -> object:
    """Split a string at commas; return other values unchanged."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def variable_names(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of KUBECTL_PASS_ENV. Raises ValueError with the rule."""
    if not all(_VARIABLE_NAME.fullmatch(name) for name in value):
        raise ValueError("names of environment variables, separated by commas")
    if not set(value).isdisjoint(_NEVER_PASSED):
        raise ValueError(
            "names of environment variables, separated by commas, but not "
            f"{', '.join(_NEVER_PASSED[:-1])} or {_NEVER_PASSED[-1]}: the service itself decides what kubectl reads"
        )
    return value


def ingress_from(value: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries of SANDBOX_INGRESS_FROM. Raises ValueError with the rule."""
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


ListenHosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_separated), AfterValidator(listen_hosts)]
