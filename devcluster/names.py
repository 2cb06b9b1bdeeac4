"""Validates names, labels and annotations, with the server's own messages. Knows no kinds."""

import re

from devcluster.errors import Cause, invalid_value, too_long
from devcluster.objects import Json, labels_of, metadata

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_VALUE = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
_KEY_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
MAX_LABEL, MAX_SUBDOMAIN, MAX_ANNOTATIONS = 63, 253, 262144


def _bytes(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def label_problems(name: str) -> list[str]:
    """Return why a name is not an RFC 1123 label (names of Services, namespaces, containers); empty if it is one."""
    problems = [] if len(name.encode()) <= MAX_LABEL else [_bytes(MAX_LABEL)]
    if not re.fullmatch(_LABEL, name):
        problems.append(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
            f"end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
            f"'{_LABEL}')"
        )
    return problems


def subdomain_problems(name: str) -> list[str]:
    """Return why a name is not an RFC 1123 subdomain (names of Pods and most kinds); empty if it is one."""
    problems = [] if len(name.encode()) <= MAX_SUBDOMAIN else [_bytes(MAX_SUBDOMAIN)]
    if not re.fullmatch(_SUBDOMAIN, name):
        problems.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
            f"start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
            f"'{_SUBDOMAIN}')"
        )
    return problems


def label_value_problems(value: str) -> list[str]:
    """Return why a text is not a valid label value; empty if it is one."""
    problems = [] if len(value.encode()) <= MAX_LABEL else [_bytes(MAX_LABEL)]
    if not re.fullmatch(_LABEL_VALUE, value):
        problems.append(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must "
            "start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used "
            f"for validation is '{_LABEL_VALUE}')"
        )
    return problems


def key_problems(key: str) -> list[str]:
    """Return why a text is not a valid key of a label or annotation; empty if it is one."""
    prefix, slash, name = key.rpartition("/")
    problems = [f"prefix part {problem}" for problem in subdomain_problems(prefix)] if slash else []
    if not name:
        return [*problems, "name part must be non-empty"]
    if len(name.encode()) > MAX_LABEL:
        problems.append(f"name part {_bytes(MAX_LABEL)}")
    if not re.fullmatch(_KEY_NAME, name):
        problems.append(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
            "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
            f"'{_KEY_NAME}')"
        )
    return problems


def metadata_causes(obj: Json, *, name_is_label: bool) -> list[Cause]:
    """Return the causes for which an object's metadata is invalid (`apply-invalid-name`, `apply-label-too-long`)."""
    name = metadata(obj)["name"]
    problems = label_problems(name) if name_is_label else subdomain_problems(name)
    causes = [invalid_value("metadata.name", name, problem) for problem in problems]
    for key, value in labels_of(obj).items():
        causes += [invalid_value("metadata.labels", key, problem) for problem in key_problems(key)]
        causes += [invalid_value("metadata.labels", value, problem) for problem in label_value_problems(value)]
    annotations = metadata(obj).get("annotations") or {}
    for key in annotations:
        causes += [invalid_value("metadata.annotations", key, problem) for problem in key_problems(key.lower())]
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > MAX_ANNOTATIONS:
        causes.append(too_long("metadata.annotations", MAX_ANNOTATIONS))
    return causes
