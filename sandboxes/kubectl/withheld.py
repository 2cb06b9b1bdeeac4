"""Filters kubectl's stderr for the log: replaces messages about the kubeconfig, which may quote it, by a description.

kubectl's loader prints whole users with their tokens (record: kubeconfig-user-twice), and its parsers print invalid
values. Messages of the API server are kept. The output of credential plugins is masked; it is dropped, as are kubectl's
own messages, while the kubeconfig can't be read completely (see credentials).
"""

from __future__ import annotations

import re
import shlex
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Literal

from sandboxes import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

_Speaker = Literal["server", "kubectl", "plugin"]

# Maximum characters of stderr to examine and repeat; errors for a hundred rejected objects are shorter.
MOST_SAID = 64_000
MOST_IN_LINE = 16_000

# Messages of the API server, which never sees the kubeconfig, and about stdin, which the service writes.
_OF_SERVER = re.compile(
    r'[Ee]rror from server|The [A-Z]\w* "[^"]*" is invalid|Warning: |(error: )?([a-z]+ )+"?STDIN|'
    r"(error: )?(Apply failed with|Operation cannot be fulfilled|resource mapping not found for name)|"
    r"error: (You must be logged in|the server |no matches for kind|error upgrading connection)"
)
# Messages that only kubectl prints, and only with the server's text; causes are on separate lines.
_SURELY_OF_SERVER = re.compile(r'[Ee]rror from server|The [A-Z]\w* "[^"]*" is invalid|\* ')
# A credential plugin failed; the plugin's output precedes this line.
_OF_PLUGIN = re.compile(r"(Unable to connect|[IWEF]\d{4} ).*getting credentials: ")
# A plugin's stdout that kubectl could not parse; it contains credentials.
_PLUGINS_STDOUT = re.compile(r"(?<=decoding stdout: ).*")
# Other messages of kubectl, and lines of klog.
_OF_KUBECTL = re.compile(
    r"[Ee]rror: |[Ee]rror in |The connection to the server|Unable to connect|[IWEF]\d{4} \d\d:|Please enter "
)

# kubectl's messages about a kubeconfig → a description (record: kubeconfig-*, plugin-*; the others are from the source
# of client-go, tools/clientcmd and rest). The first matching pattern counts. Patterns must not take quadratic time,
# since a line may repeat the beginning of a match.
_FAULTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), fault)
    for pattern, fault in (
        (r"^(?=.*duplicate name ).*NamedAuthInfo", "two of its users have one name"),
        (r"^(?=.*duplicate name ).*NamedCluster", "two of its clusters have one name"),
        (r"^(?=.*duplicate name ).*NamedContext", "two of its contexts have one name"),
        (r"duplicate name", "two of its entries have one name"),
        (r"illegal base64", "some of its data are not base64"),
        (
            r"[Cc]ontext (\".{,300}\" does not exist|was not found|.{,300} must exist)|current-context|locate context",
            "it has no such context",
        ),
        (
            r"Please enter (Username|Password)|error reading input for|^error: EOF\s*$|auth info|locate user",
            "it has no credentials for its user",
        ),
        (r"more than one authentication method", "its user has more than one kind of credentials"),
        (r"proxy-url", "its proxy-url can't be used"),
        (
            r"interactiveMode|exec plugin: |plugin has been removed|[Aa]uth [Pp]rovider|id-token|exec authentication",
            "its credential plugin is not configured as this kubectl wants it",
        ),
        (
            r"unable to read (client|certificate|token)|^error: (open|stat|read) |: (open|stat|read) /[^:\n]*: ",
            "it, or a file that it names, can't be read",
        ),
        (
            r"PEM|root certificates|client-(key|certificate)|private key|asn1: |x509: malformed|certificate-authority",
            "its certificates or keys can't be used",
        ),
        (r"invalid header field value", "its token has a character that no header may have"),
        (
            r"[Cc]luster \".{,300}\" does not exist|locate cluster|no server found|host must be a URL|default cluster",
            "it names no usable API server",
        ),
        (r"^(?=.*loading config file).*(yaml: |json: |converting|unmarshal|version|no kind)", "it can't be parsed"),
        (
            r"yaml: |json: |error converting|unmarshal|invalid character|couldn't get version|no kind ",
            "it, or what answers at the server's address, can't be parsed",
        ),
    )
)
_UNKNOWN = "kubectl can't use it"
# For kubectl's messages that match none of the above, a mention is enough.
_MENTION = re.compile(r"(?i)kubeconfig|config ?file|configuration\b(?!/)|\bconfig\b(?![./-])")
# Credential plugins may mention their own configuration; these words are kubectl's.
_MENTION_BY_OTHERS = re.compile(
    r"(?i)kubeconfig|config file|\.kube/|(in|invalid) configuration|duplicate name|Named(AuthInfo|Cluster|Context)"
)


_MENTIONING_LINE = "(a line about a kubeconfig is not shown)\n"
_NO_SECRETS_KNOWN = (
    "(not shown: the kubeconfig, or a file that it names, can't be read whole, so it may be quoted here)\n"
)


def fault_of(stderr: str, kubeconfig: str = "") -> str | None:
    """Describe the kubeconfig problem that kubectl reports, as a clause that quotes nothing; None if there is none.

    `kubeconfig`: its path, which counts as a mention.
    """
    suspects = "".join(f"{line[:MOST_IN_LINE]}\n" for speaker, line in _parted(stderr) if speaker == "kubectl")
    for pattern, fault in _FAULTS:
        if pattern.search(suspects):
            return fault
    return _UNKNOWN if _MENTION.search(suspects) or (kubeconfig and kubeconfig in suspects) else None


def repeatable(stderr: str, kubeconfig: str = "") -> str:
    """Return the parts of kubectl's stderr that may be logged: all, unless it is about the kubeconfig."""
    if (fault := fault_of(stderr, kubeconfig)) is not None:
        return not_shown(fault, kubeconfig)
    parts: list[str] = []
    for speaker, group in groupby(_parted(stderr), key=itemgetter(0)):
        lines = [line if len(line) <= MOST_IN_LINE else "(a long line is not shown)\n" for _, line in group]
        if not may_repeat_others():
            certain = [line for line in lines if speaker == "server" and _SURELY_OF_SERVER.match(line)]
            parts += certain if len(certain) == len(lines) else [_NO_SECRETS_KNOWN, *certain]
        elif speaker == "plugin":
            shown = (_MENTIONING_LINE if _MENTION_BY_OTHERS.search(line) else line for line in lines)
            parts.append(logs.masked_of_others("".join(shown)) or "")
        else:
            parts += lines
    return "".join(parts)


def may_repeat_others() -> bool:
    """Whether all secrets that kubectl and its plugins may print are known, so that their output can be masked."""
    return logs.masked_of_others("") is not None


def is_of_server(message: str) -> bool:
    """Whether the message comes from the API server."""
    return bool(_OF_SERVER.match(message))


def not_shown(fault: str, kubeconfig: str = "") -> str:
    """Return the text that replaces kubectl's message, with the commands that show the original."""
    kubectl = f"kubectl --kubeconfig {shlex.quote(kubeconfig or 'PATH')}"
    return (
        f"not shown, since it is about the kubeconfig and may quote it: {fault}. "
        f"To see kubectl's own words, run `{kubectl} config view` and `{kubectl} version`."
    )


def _parted(stderr: str) -> Iterator[tuple[_Speaker, str]]:
    """Yield (speaker, line), without the stdout of plugins.

    A message extends to the beginning of the next. Lines before the first message are a credential plugin's.
    """
    speaker: _Speaker = "plugin"
    is_stdout = False
    left = MOST_SAID
    for line in stderr.splitlines(keepends=True):
        left -= min(len(line), MOST_IN_LINE)
        if left < 0:
            break
        if _OF_SERVER.match(line):
            speaker = "server"
        elif _OF_PLUGIN.match(line):
            speaker = "plugin"
        elif _OF_KUBECTL.match(line):
            speaker = "kubectl"
        elif is_stdout:
            continue
        is_stdout = _PLUGINS_STDOUT.search(line) is not None
        yield speaker, _PLUGINS_STDOUT.sub("(not shown, since it may be credentials)", line)
