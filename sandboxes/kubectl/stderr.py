"""Parses kubectl's stderr into messages and maps them to exceptions of `errors.py`, by the table in `rules.py`.

kubectl's exit code is 1 for every failure, so only its text tells them apart (kubectl.md 1).
"""

from __future__ import annotations

import re

from sandboxes.errors import ClusterRefused, ObjectsMissing, ProvisionerError
from sandboxes.kubectl.rules import KUBECONFIG_UNUSABLE, RULES, UNAUTHORIZED
from sandboxes.kubectl.withheld import is_about_configuration, is_kubectls_own, is_of_server, repeatable

# Lines of klog: severity and date, then time, pid, file. kubectl's last line has the same information.
_LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ ")
_MESSAGE_START = re.compile(
    r'Error from server|error: |The [A-Z]\w* "[^"]*" is invalid|The connection to the server|Unable to connect'
)

UNKNOWN = "The cluster refused the request for an unknown reason"

# Maximum characters of a message to match: the rest only quotes objects, and some patterns take quadratic time.
MOST_MATCHED = 8_000

_VALUE = re.compile(r'("[Vv]alue":\s*)"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)
_EXPIRED = re.compile(r"Error from server \((?:Expired|Gone)\)")

# What kubectl connects to if it finds no kubeconfig, or no usable context in it (record: kubeconfig-empty-file).
DEFAULT_SERVER = "localhost:8080"
_DEFAULT_TRIED = re.compile(rf'The connection to the server {DEFAULT_SERVER} |Get \\?"http://{DEFAULT_SERVER}/')

# A named object does not exist. Any other 404 is not about an object.
_MISSING = re.compile(
    r'Error from server \(NotFound\): (?:error when deleting "STDIN": )?'
    r'(?P<resource>[\w.]+) "(?P<name>[^"]+)" not found\s*\Z'
)


def is_expired(stderr: str) -> bool:
    """Whether the API server has discarded the requested resourceVersion or continue token (410)."""
    return any(_EXPIRED.match(message) for message in messages(stderr))


def is_unauthorized(stderr: str) -> bool:
    """Whether the cluster rejected the credentials."""
    return bool(UNAUTHORIZED.search(stderr))


def tried_default_server(stderr: str, server: str) -> bool:
    """Whether kubectl tried to reach its default API server, which is not `server`, the kubeconfig's."""
    return bool(_DEFAULT_TRIED.search(stderr)) and DEFAULT_SERVER not in server


def messages(stderr: str) -> list[str]:
    """Split stderr into kubectl's messages, which may have several lines; drop log lines and warnings."""
    found: list[list[str]] = []
    for line in stderr.splitlines():
        if _LOG_LINE.match(line) or line.startswith("Warning: "):
            continue
        if found and not _MESSAGE_START.match(line):
            found[-1].append(line)
        elif line.strip():
            found.append([line])
    return ["\n".join(lines) for lines in found]


def without_repeats(stderr: str) -> str:
    """Drop repeated log lines: kubectl tries discovery five times and logs each attempt."""
    seen: set[str] = set()
    kept: list[str] = []
    for line in stderr.splitlines():
        text = line.partition("] ")[2] if _LOG_LINE.match(line) else ""
        if text not in seen:
            kept.append(line)
        seen.update([text] if text else [])
    return "\n".join(kept)


def without_values(text: str) -> str:
    """Mask the values of environment variables.

    They are at `"value"` in an object, and at `"Value"` in the diff that the API server prints for an immutable Pod
    (record: apply-immutable-change), where they may belong to another caller.
    """
    return _VALUE.sub(r'\1"(hidden)"', text)


def classify(stderr: str, *, detail: str | None = None) -> ProvisionerError:
    """Return the error for the stderr of a failed kubectl; never raises.

    The first message counts: kubectl reports in the order of the objects, and later messages are usually consequences.
    Missing objects count only if there is no other error. `detail` is logged (default: the repeatable part of
    `stderr`).
    """
    detail = repeatable(stderr) if detail is None else detail
    found = messages(stderr)
    missing = [match for match in map(_MISSING.match, found) if match]
    if missing and len(missing) == len(found) and not any(match["resource"] == "namespaces" for match in missing):
        names = frozenset((match["resource"], match["name"]) for match in missing)
        return ObjectsMissing("The sandbox was deleted in the meantime", detail=detail, names=names)
    found.sort(key=lambda message: bool(_MISSING.match(message)))
    for message in [*found, stderr]:
        # Before the table: its patterns may match in what kubectl quotes of the kubeconfig.
        if is_about_configuration(message):
            return ClusterRefused(KUBECONFIG_UNUSABLE, detail=detail)
        for rule in RULES:
            match = rule.pattern.search(message[:MOST_MATCHED])
            # Only the API server's messages may fill a sentence: others may quote the kubeconfig.
            if match and (not match.groupdict() or is_of_server(message)):
                return rule.make(match, detail)
    if any(map(is_kubectls_own, found)):
        return ClusterRefused(KUBECONFIG_UNUSABLE, detail=detail)
    return ClusterRefused(UNKNOWN, detail=detail)
