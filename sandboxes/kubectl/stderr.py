"""Parses kubectl's stderr into messages and maps them to exceptions of `errors.py`, by the table in `rules.py`.

kubectl's exit code is 1 for every failure, so only its text tells them apart (kubectl.md 1). Credential plugins write
to the same stderr, at any time and as often as kubectl starts them (record: plugin-notice-*). So a message is only what
kubectl's own source can print (k8s.io/kubectl, pkg/cmd/util/helpers.go, checkErr and StandardErrorMessage):

- A line that begins as one of kubectl's messages is one: `_HEAD`.
- It has further lines only if it ends in a colon: these are indented or begin with `* `, and come before the next
  message. Everything else after a message, such as advice or a diff, has no meaning for the service.
- kubectl prints either one message that begins with `error: `, or messages of which none does. Where both are found,
  those with `error: ` are another program's.

All other lines are kept for the log only.
"""

from __future__ import annotations

import re

from sandboxes import logs
from sandboxes import objects as kube
from sandboxes.errors import ClusterRefused, ObjectsMissing, ProvisionerError
from sandboxes.kubectl.rules import KUBECONFIG_UNUSABLE, RULES, UNAUTHORIZED, UNKNOWN
from sandboxes.kubectl.withheld import is_about_configuration, is_kubectls_own, is_of_server, repeatable

# Lines of klog: severity and date, then time, pid, file. kubectl's last line has the same information.
_LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ ")
_LINE_END = re.compile(r"\r\n|\n|\r")
_HEAD = re.compile(
    r"[Ee]rror from server(?: \(\w*\))?: |error: |Error in configuration: "
    r'|The [A-Z]\w* "(?:[^"\\]|\\.)*" is invalid|The request is invalid'
    r"|The connection to the server \S+ was refused|Unable to connect to the server: "
    r"|Server returned an unexpected response: |the server doesn't have a resource type "
    # One of several errors that are not the API server's words as they are: kubectl prints them without `error: `
    # (record: apply-annotation-only-list-both-gone).
    r'|Operation cannot be fulfilled on \S+ "|Apply failed with \d+ conflict'
    r'|error (?:when \w+|validating|parsing) "?STDIN|unable to (?:recognize|decode) "STDIN"'
    r"|resource mapping not found for name: "
)
# The causes of `is invalid: ` and of `Error in configuration: `, and the problems of `errors:`.
_FURTHER = re.compile(r"\* |  ")
# The message is the only one, unless it is about the credentials.
_ALONE = re.compile(r"error: (?!You must be logged in to the server)")

UNKNOWN_REASON = "The cluster refused the request for an unknown reason"

# Maximum characters of a message to match: the rest only quotes objects, and some patterns take quadratic time.
MOST_MATCHED = 8_000
# Maximum messages to match: kubectl reports one for each object of a List.
MOST_MESSAGES = 500
# Maximum characters of the API server's words that are repeated to an operator.
MOST_WORDS = 1_000

_VALUE = re.compile(r'("[Vv]alue":\s*)"(?:[^"\\]|\\.)*(?:"|\Z)', re.DOTALL)
# A value of the wrong type (sigs.k8s.io/structured-merge-diff, value), to the end of its line: it may have braces.
_WRONG_VALUE = re.compile(r"(valueUnstructured\{Value:)[^\n]*")
# Rules of messages that answer any request: also the next one is refused, whatever it asks.
OF_ACCESS = frozenset({"credential-plugin", "unauthorized", "no-status"})
_EXPIRED = re.compile(r"Error from server \((?:Expired|Gone)\)")
_FORBIDDEN = re.compile(r"Error from server \(Forbidden\): ")

# What kubectl connects to if it finds no kubeconfig, or no usable context in it (record: kubeconfig-empty-file).
DEFAULT_SERVER = "localhost:8080"
_DEFAULT_TRIED = re.compile(rf'The connection to the server {DEFAULT_SERVER} |Get \\?"http://{DEFAULT_SERVER}/')

# A named object does not exist. Any other 404 is not about an object.
_MISSING = re.compile(
    r'Error from server \(NotFound\): (?:error when (?:deleting|replacing) "STDIN": )?'
    r'(?P<resource>[\w.]+) "(?P<name>[^"]+)" not found\s*\Z'
)


def is_expired(stderr: str) -> bool:
    """Whether the API server has discarded the requested resourceVersion or continue token (410)."""
    return any(_EXPIRED.match(message) for message in messages(stderr))


def is_unauthorized(stderr: str) -> bool:
    """Whether the cluster rejected the credentials."""
    return any(UNAUTHORIZED.search(message) for message in messages(stderr))


def is_forbidden(stderr: str) -> bool:
    """Whether the API server forbids the request (403)."""
    return any(_FORBIDDEN.match(message) for message in messages(stderr))


def tried_default_server(stderr: str, server: str) -> bool:
    """Whether kubectl tried to reach its default API server, which is not `server`, the kubeconfig's."""
    return DEFAULT_SERVER not in server and any(_DEFAULT_TRIED.search(message) for message in messages(stderr))


def messages(stderr: str) -> list[str]:
    """Split stderr into kubectl's messages, which may have several lines; drop log lines, warnings and others' lines.

    Another program may have printed text without a line end before kubectl's first message: then that message is what
    names a missing object before the next message, or, if no line begins as a message, the last that begins in a line.
    """
    lines = _LINE_END.split(stderr)
    heads = {line for line in lines if _HEAD.match(line)}
    heads = {line for line in heads if not _ALONE.match(line)} or heads
    found: list[list[str]] = []
    for before, line in zip(["", *lines], lines, strict=False):
        if line in heads:
            if not found and (first := _MISSING.search(before)) and first["resource"] in kube.RESOURCES.values():
                found.append([first[0]])
            found.append([line])
        elif found and _FURTHER.match(line) and found[-1][0].rstrip().endswith(":"):
            found[-1].append(line)
    if not found:
        found = [[line[head.start() :]] for line in lines if not _is_noise(line) and (head := _HEAD.search(line))][-1:]
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
    (record: apply-immutable-change), where they may belong to another caller. A number that should be a text is in
    neither (record: apply-wrong-type-env-number).
    """
    return _WRONG_VALUE.sub(r"\1(hidden)}", _VALUE.sub(r'\1"(hidden)"', text))


def classify(stderr: str, *, detail: str | None = None) -> ProvisionerError:
    """Return the error for the stderr of a failed kubectl; never raises.

    The first message that a rule knows counts: kubectl reports in the order of the objects, and later messages are
    usually consequences. Missing objects count only if there is no other error. `detail` is logged (default: the
    repeatable part of `stderr`).
    """
    detail = repeatable(stderr) if detail is None else detail
    found = messages(stderr)[:MOST_MESSAGES]
    missing = [match for match in map(_MISSING.match, found) if match]
    if missing and len(missing) == len(found) and not any(match["resource"] == "namespaces" for match in missing):
        names = frozenset((match["resource"], match["name"]) for match in missing)
        return ObjectsMissing("The sandbox was deleted in the meantime", detail=detail, names=names)
    found.sort(key=lambda message: bool(_MISSING.match(message)))
    for message in found:
        if error := _known(message[:MOST_MATCHED], detail):
            return error
    if any(map(is_kubectls_own, found)):
        return kubeconfig_unusable(detail)
    return ClusterRefused(UNKNOWN_REASON, detail=detail, words=_words(found[0]) if found else "")


def _known(message: str, detail: str) -> ProvisionerError | None:
    """Return the error of the first rule that knows the message; None if no rule does."""
    # Before the table: its patterns may match in what kubectl quotes of the kubeconfig.
    if is_about_configuration(message):
        return kubeconfig_unusable(detail)
    is_servers = is_of_server(message)
    for rule in RULES:
        match = rule.pattern.search(message) if is_servers or not rule.repeats else None
        if match:
            error = rule.make(match, detail)
            if isinstance(error, ClusterRefused):
                error.words = _words(message) if rule.name in UNKNOWN else error.words
                error.refuses_all = rule.name in OF_ACCESS
            return error
    return None


def kubeconfig_unusable(detail: str) -> ClusterRefused:
    """Return the error of a call whose kubeconfig can't be used."""
    error = ClusterRefused(KUBECONFIG_UNUSABLE, detail=detail)
    error.refuses_all = True
    return error


def _words(message: str) -> str:
    """Return the API server's own words, masked; empty for a message of kubectl, which may quote the kubeconfig."""
    return without_values(logs.masked(message)[:MOST_WORDS]) if is_of_server(message) else ""


def _is_noise(line: str) -> bool:
    return bool(_LOG_LINE.match(line)) or line.startswith("Warning: ")
