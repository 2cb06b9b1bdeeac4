"""Never repeats what kubectl says about its kubeconfig, which may quote it; says instead which fault it is. Pure.

kubectl's loader prints whole users, tokens included (record: kubeconfig-user-twice), and its parsers the values that
they don't like. What the API server says is not touched.
"""

from __future__ import annotations

import re
import shlex

# What the API server said, which has never seen the kubeconfig; and about stdin, which is of our own making.
_OF_SERVER = re.compile(
    r'[Ee]rror from server|The [A-Z]\w* "[^"]*" is invalid|Warning: |error: ([a-z]+ )*"?STDIN|'
    r"error: (Apply failed with|Operation cannot be fulfilled|You must be logged in|the server |no matches for kind)"
)
# A credential plugin failed, and what it said stands before.
_OF_PLUGIN = re.compile(r"(Unable to connect|[IWEF]\d{4} ).*getting credentials: ")
# kubectl's other messages, and klog's lines.
_OF_KUBECTL = re.compile(
    r"[Ee]rror: |[Ee]rror in |The connection to the server|Unable to connect|[IWEF]\d{4} \d\d:|Please enter "
)

# Faults of a kubeconfig, by the words in which kubectl reports them (record: kubeconfig-*, plugin-*; the others are
# from the source of client-go, tools/clientcmd and rest). The first that fits counts.
_FAULTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.MULTILINE), fault)
    for pattern, fault in (
        (r"duplicate name .*NamedAuthInfo|NamedAuthInfo.*duplicate name", "two of its users have one name"),
        (r"duplicate name .*NamedCluster|NamedCluster.*duplicate name", "two of its clusters have one name"),
        (r"duplicate name .*NamedContext|NamedContext.*duplicate name", "two of its contexts have one name"),
        (r"duplicate name", "two of its entries have one name"),
        (r"illegal base64", "some of its data are not base64"),
        (
            r"[Cc]ontext (\".*\" does not exist|was not found|.* must exist)|current-context|locate context",
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
            r"unable to read (client|certificate|token)|^error: (open|stat|read) |: (open|stat|read) /.*: ",
            "it, or a file that it names, can't be read",
        ),
        (
            r"PEM|root certificates|client-(key|certificate)|private key|asn1: |x509: malformed|certificate-authority",
            "its certificates or keys can't be used",
        ),
        (r"invalid header field value", "its token has a character that no header may have"),
        (
            r"[Cc]luster \".*\" does not exist|locate cluster|no server found|host must be a URL|default cluster",
            "it names no usable API server",
        ),
        (r"loading config file.*(yaml: |json: |converting|unmarshal|version|no kind)", "it can't be parsed"),
        (
            r"yaml: |json: |error converting|unmarshal|invalid character|couldn't get version|no kind ",
            "it, or what answers at the server's address, can't be parsed",
        ),
    )
)
_UNKNOWN = "kubectl can't use it"
# In what kubectl says and is none of the above a mention is enough.
_MENTION = re.compile(r"(?i)kubeconfig|config ?file|configuration\b(?!/)|\bconfig\b(?![./-])")
# Others, such as credential plugins, have configurations of their own; but these are kubectl's own words.
_MENTION_BY_OTHERS = re.compile(
    r"(?i)kubeconfig|config file|\.kube/|(in|invalid) configuration|duplicate name|Named(AuthInfo|Cluster|Context)"
)


def fault_of(said: str, kubeconfig: str = "") -> str | None:
    """Return which fault of the kubeconfig kubectl reports, as a clause without its words; None if it reports none.

    `kubeconfig`: its path, which is a mention, too.
    """
    suspects, _ = _parted(said)
    for pattern, fault in _FAULTS:
        if pattern.search(suspects):
            return fault
    return _UNKNOWN if _MENTION.search(suspects) or (kubeconfig and kubeconfig in suspects) else None


def repeatable(said: str, kubeconfig: str = "") -> str:
    """Return what may be repeated of what kubectl said; all of it, unless it speaks of its kubeconfig."""
    if (fault := fault_of(said, kubeconfig)) is not None:
        return not_shown(fault, kubeconfig)
    _, others = _parted(said)
    for line in others:
        if _MENTION_BY_OTHERS.search(line):
            said = said.replace(line, "(a line about a kubeconfig is not shown)")
    return said


def not_shown(fault: str, kubeconfig: str = "") -> str:
    """Return what stands in the place of kubectl's words, and how to see these."""
    kubectl = f"kubectl --kubeconfig {shlex.quote(kubeconfig or 'PATH')}"
    return (
        f"not shown, since it is about the kubeconfig and may quote it: {fault}. "
        f"To see kubectl's own words, run `{kubectl} config view` and `{kubectl} version`."
    )


def _parted(said: str) -> tuple[str, list[str]]:
    """Return the lines that kubectl says by itself, and those of other programs; the API server's are neither.

    Each message goes on until the next one begins; what comes before the first is a credential plugin's.
    """
    of_kubectl: list[str] = []
    of_others: list[str] = []
    current: list[str] | None = of_others
    for line in said.splitlines():
        if _OF_SERVER.match(line):
            current = None
        elif _OF_PLUGIN.match(line):
            current = of_others
        elif _OF_KUBECTL.match(line):
            current = of_kubectl
        if current is not None:
            current.append(line)
    return "\n".join(of_kubectl), of_others
