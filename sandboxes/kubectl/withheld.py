"""Filters kubectl's stderr for the log: replaces messages about the kubeconfig, which may quote it, by a description.

kubectl's loader prints whole users with their tokens (record: kubeconfig-user-twice), and its parsers print invalid
values. Messages of the API server are kept. The output of credential plugins is masked; it is dropped, as are kubectl's
own messages, while the kubeconfig can't be read completely (see credentials).
"""

from __future__ import annotations

import os
import re
import shlex
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, NamedTuple

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
_OF_PLUGIN = re.compile(r'(Unable to connect|[IWEF]\d{4} |error: [a-z ]+"STDIN": ).*getting credentials: ')
# A plugin's stdout that kubectl could not parse; it contains credentials.
_PLUGINS_STDOUT = re.compile(r"(?<=decoding stdout: ).*")
# Other messages of kubectl, and lines of klog.
_OF_KUBECTL = re.compile(
    r"[Ee]rror: |[Ee]rror in |The connection to the server|Unable to connect|[IWEF]\d{4} \d\d:|Please enter "
)


class _Fault(NamedTuple):
    """A problem of a kubeconfig.

    `at_request`: kubectl notices it during a request, so that it reports it as a failed connection; for other problems
    such a message is about the server. `is_sure`: no other program can be the cause.
    """

    pattern: re.Pattern[str]
    text: str
    at_request: bool = False
    is_sure: bool = True


def _fault(pattern: str, text: str, *, at_request: bool = False, is_sure: bool = True) -> _Fault:
    return _Fault(re.compile(pattern, re.MULTILINE), text, at_request, is_sure)


# A failed request; most causes are on the way to the API server, or there. With objects on stdin, kubectl first asks
# for the API's resources or schema, and quotes that request.
_OF_CONNECTION = re.compile(
    r'The connection to the server|Unable to connect|(error: )?[a-z ]+"STDIN": ([a-z ]+: )?Get "'
)
# clientcmd.ErrConfigurationInvalid, and a file that kubectl can't load.
_SURELY_OF_CONFIGURATION = re.compile(
    r"Error in configuration|error: (error loading config file|invalid configuration)"
)
# kubectl can't use its arguments or its input (record: watch-two-kinds, kuberc-delete-raw), or the machine fails.
_OF_CALL = re.compile(
    r"error: (you (may|must)|unknown (short)?(command|flag|hand)|no objects passed|no resources found|flag needs|--"
    r"|invalid argument|required flag|resource mapping not found|unable to (decode|parse|recognize|forward|listen)"
    r"|fork/exec"
    r"|timed out waiting|lost connection)"
    r"|.*(no space left|too many open files|cannot allocate memory|temporarily unavailable|[Rr]ead-only file system)"
)

# kubectl's messages about a kubeconfig → a description (record: kubeconfig-*, plugin-*; the others are from the source
# of client-go, tools/clientcmd and rest). The first matching pattern counts. Patterns must not take quadratic time,
# since a line may repeat the beginning of a match.
_FAULTS: tuple[_Fault, ...] = (
    _fault(r"^(?=.*duplicate name ).*NamedAuthInfo", "two of its users have one name"),
    _fault(r"^(?=.*duplicate name ).*NamedCluster", "two of its clusters have one name"),
    _fault(r"^(?=.*duplicate name ).*NamedContext", "two of its contexts have one name"),
    _fault(r"duplicate name", "two of its entries have one name"),
    _fault(r"illegal base64", "some of its data are not base64"),
    _fault(
        r"[Cc]ontext (\".{,300}\" does not exist|was not found|.{,300} must exist)|current-context|locate context",
        "it has no such context",
    ),
    _fault(
        r"Please enter (Username|Password)|error reading input for|^error: EOF\s*$|auth info|locate user",
        "it has no credentials for its user",
    ),
    _fault(
        r"more than one authentication method|username/password or bearer token may be set",
        "its user has more than one kind of credentials",
    ),
    _fault(r"proxy-url", "its proxy-url can't be used"),
    _fault(
        r"interactiveMode|exec plugin: |plugin has been removed|[Aa]uth [Pp]rovider|exec authentication",
        "its credential plugin is not configured as this kubectl wants it",
    ),
    _fault(
        r"id-token|Must provide (idp-|client-)",
        "its credential plugin is not configured as this kubectl wants it",
        at_request=True,
    ),
    _fault(r"without impersonating a user", "its user has groups to impersonate, but no user"),
    _fault(
        r"unable to read (client|certificate|token)|^error: (open|stat|read) |: (open|stat|read) /[^:\n]*: ",
        "it, or a file that it names, can't be read",
    ),
    _fault(
        r"PEM|root certificates|client-(key|certificate)|private key|asn1: |x509: malformed|certificate-authority"
        r"|^error: (tls|x509|asn1|pem|crypto/[a-z]+): ",
        "its certificates or keys can't be used",
    ),
    _fault(r"invalid header field value", "its token has a character that no header may have", at_request=True),
    _fault(
        r"unsupported protocol scheme|no Host in request URL|in host name|invalid (port \"|userinfo)|net/url: ",
        "it names no usable API server",
        at_request=True,
    ),
    _fault(
        r"[Cc]luster \".{,300}\" does not exist|locate cluster|no server found|host must be a URL|default cluster",
        "it names no usable API server",
    ),
    _fault(r"^(?=.*loading config file).*(yaml: |json: |converting|unmarshal|version|no kind)", "it can't be parsed"),
    _fault(
        r"yaml: |json: |error converting|unmarshal|invalid character|couldn't get version|no kind ",
        "it, or what answers at the server's address, can't be parsed",
        is_sure=False,
    ),
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

    `kubeconfig`: its path, or several as in KUBECONFIG; each counts as a mention.
    """
    suspects = "".join(f"{line[:MOST_IN_LINE]}\n" for speaker, line in _parted(stderr) if speaker == "kubectl")
    if fault := _fault_in(suspects):
        return fault.text
    is_mentioned = any(path in suspects for path in kubeconfig.split(os.pathsep) if path)
    return _UNKNOWN if is_mentioned or _MENTION.search(suspects) else None


def is_about_configuration(message: str) -> bool:
    """Whether kubectl reports by this message that it can't use its kubeconfig, and the cause is known.

    False for messages of the API server and of credential plugins, and for failed connections.
    """
    speaker = _speaker_of(message)
    said = message[:MOST_IN_LINE]
    fault = _fault_in(said)
    if _OF_CONNECTION.match(said):
        return speaker != "plugin" and fault is not None and fault.at_request
    if speaker != "kubectl":
        return False
    return _SURELY_OF_CONFIGURATION.match(said) is not None or (fault is not None and fault.is_sure)


def is_kubectls_own(message: str) -> bool:
    """Whether kubectl stopped by itself, without the API server, for another cause than its arguments or this machine.

    Such a message is about the configuration, unless it is about a connection.
    """
    speaker = _speaker_of(message)
    return speaker == "kubectl" and message.startswith("error: ") and not _OF_CALL.match(message)


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


def ends_in_plugin(stderr: str) -> bool:
    """Whether the last of it is the output of a credential plugin."""
    speakers = [speaker for speaker, _ in _parted(stderr)]
    return bool(speakers) and speakers[-1] == "plugin"


def not_shown(fault: str, kubeconfig: str = "") -> str:
    """Return the text that replaces kubectl's message, with the commands that show the original."""
    is_list = os.pathsep in kubeconfig
    named = shlex.quote(kubeconfig or "PATH")
    kubectl = f"KUBECONFIG={named} kubectl" if is_list else f"kubectl --kubeconfig {named}"
    return (
        f"not shown, since it is about the kubeconfig and may quote it: {fault}. "
        f"To see kubectl's own words, run `{kubectl} config view` and `{kubectl} version`."
    )


def _fault_in(text: str) -> _Fault | None:
    return next((fault for fault in _FAULTS if fault.pattern.search(text)), None)


def _speaker_of(message: str) -> _Speaker | None:
    return next((speaker for speaker, _ in _parted(message)), None)


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
        if _OF_PLUGIN.match(line):
            speaker = "plugin"
        elif _OF_SERVER.match(line):
            speaker = "server"
        elif _OF_KUBECTL.match(line):
            speaker = "kubectl"
        elif is_stdout:
            continue
        is_stdout = _PLUGINS_STDOUT.search(line) is not None
        yield speaker, _PLUGINS_STDOUT.sub("(not shown, since it may be credentials)", line)
