"""Describes why the API server refuses an object: what is invalid, or what the cluster's admission demands.

The functions make the errors of rules of `rules.py` from their matches. A sentence may name fields, the keys of list
entries, and objects of the cluster, but no values, since those may be secret.
"""

from __future__ import annotations

import re

from sandboxes import objects as kube
from sandboxes.errors import ClusterRefused, TemplateRefused

# Object field → fields of a create request that may have set it. The first that the caller set is blamed; if the caller
# set none, the operator's template or settings are. The first matching pattern counts. Server-side apply names the
# entries of a list by their keys, everything else by their index.
_CONTAINER = rf'spec\.containers\[(?:\d+|name="{kube.CONTAINER}")\]'
REQUEST_FIELDS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"metadata\.name"), ("sandbox_id",)),
    (re.compile(r"metadata\.labels"), ("labels", "sandbox_id")),
    (re.compile(r"metadata\.annotations"), ("annotations", "user_id")),
    (re.compile(r"spec\.volumes|volumeMounts"), ("extra_mounts",)),
    (re.compile(r"resources"), ("resources",)),
    (re.compile(rf"{_CONTAINER}\.image$"), ("image",)),
    (re.compile(rf"{_CONTAINER}\.env\b"), ("env",)),
)

# Maximum characters of a field's path in a sentence.
_MOST_OF_PATH = 200

# The causes of Invalid, in the words of k8s.io/apimachinery (pkg/util/validation/field, ErrorType.String). kubectl puts
# several causes on separate lines, the API server in brackets.
_CAUSE = re.compile(
    r"(?:^|\* |\[|, )(?P<field>\w[\w.[\]/-]*): (?P<problem>Required value|Duplicate value|Invalid value|Not found"
    r"|Unsupported value|Forbidden|Too long|Too many|Internal error)(?P<rest>[^\n]*)",
    re.MULTILINE,
)
# Those of a webhook, in other words.
_ANY_CAUSE = re.compile(r"(?:\* |\[)?(?P<field>\w[\w.[\]/-]*): (?P<problem>)(?P<rest>[^\n]*)")
# The value of a duplicate that is the key of its entry.
_KEY_FIELD = re.compile(r"\.(?:name|mountPath|devicePath|containerPort|hostPort|port|nodePort|key|path)$")
_KEY = re.compile(r': ("[\w./-]{1,253}"|\d+)')

# Problems with the type or the structure of an object: by server-side apply (sigs.k8s.io/structured-merge-diff, typed),
# by decoding in a create, and by kubectl's own validation (k8s.io/kube-openapi). The first matching pattern counts.
_AT = r"(?:: |\n +)\.(?P<path>[^\n]{1,300}?): "
_IN = r"ValidationError\(\w+(?:\.(?P<parent>[^)\n]*))?\): "
_UNKNOWN_FIELD = "The cluster does not know the field {path} of the sandbox"
_WRONG_TYPE = "The sandbox has the wrong type at {path}: {type} is expected"
_PROBLEMS = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (rf"{_AT}duplicate entries for key \[(?P<key>[^\n]{{1,300}})\]", "The sandbox has {key} twice in {path}"),
        (rf"{_AT}field not declared in schema", _UNKNOWN_FIELD),
        (rf"{_AT}expected (?P<type>string|list|map|boolean|numeric)\b", _WRONG_TYPE),
        (rf'{_AT}element \d+: .* omits key field "(?P<key>\w+)"', "The sandbox lacks {key} in an entry of {path}"),
        (r"cannot unmarshal \w+ into Go struct field \w+\.(?P<path>[\w.]+) of type (?P<type>[\w.]+)", _WRONG_TYPE),
        (r'strict decoding error: .*?unknown field "(?P<path>[^"]+)"', _UNKNOWN_FIELD),
        (rf'{_IN}unknown field "(?P<path>[^"]+)"', _UNKNOWN_FIELD),
        (rf'{_IN}missing required field "(?P<path>[^"]+)"', "The sandbox lacks the field {path}"),
        (
            r'ValidationError\(\w+\.(?P<path>[^)\n]*)\): invalid type for [\w.]+: got "\w+", expected "(?P<type>\w+)"',
            _WRONG_TYPE,
        ),
    )
)

# One demand of a quota: resources, and from Kubernetes 1.23 on the containers that lack them
# (in Kubernetes, pkg/quota/v1/evaluator/core/pods.go).
_DEMAND = re.compile(
    r"(?P<resources>[a-z][\w./-]*(?:,[a-z][\w./-]*)*)(?: for: (?P<containers>[a-z\d-]+(?:,[a-z\d-]+)*))?"
)

# A bound of a LimitRange (in Kubernetes, plugin/pkg/admission/limitranger).
_BOUND = re.compile(
    r"(?:minimum|maximum) [\w./-]+ usage per \w+ is [\w.]+|[\w./-]+ max limit to request ratio per \w+ is [\w.]+"
)

# The checks of Pod security, without the fields that they name (k8s.io/pod-security-admission/policy).
_IN_BRACKETS = re.compile(r" ?\([^()]*\)")
_PLAIN = re.compile(r"[\w ./!=<>-]{1,80}")


def request_fields_of(field: str) -> tuple[str, ...]:
    """Return the fields of a create request that may have set this field of an object."""
    return next((names for pattern, names in REQUEST_FIELDS if pattern.search(field)), ())


def invalid(match: re.Match[str], detail: str) -> ClusterRefused:
    """Return the error for `The KIND "NAME" is invalid`, by its first cause."""
    kind = match["kind"]
    causes = match["causes"].lstrip(": \n")
    cause = _CAUSE.search(causes) or _ANY_CAUSE.match(causes)
    if cause is None:
        return TemplateRefused(f"The cluster refuses the sandbox's {kind}", detail=detail)
    field = cause["field"]
    public = f"The cluster refuses the sandbox's {kind} at {field}"
    if cause["problem"] == "Duplicate value" or cause["rest"].endswith(": must be unique"):
        key = _KEY.match(cause["rest"]) if _KEY_FIELD.search(field) else None
        public += f": {key[1]} is there twice" if key else ": it is there twice"
    return TemplateRefused(public, detail=detail, request_fields=request_fields_of(field))


def malformed(match: re.Match[str], detail: str) -> ClusterRefused:
    """Return the error for an object with an unknown field, a wrong type or an entry twice."""
    for pattern, sentence in _PROBLEMS:
        if found := pattern.search(match.string):
            parts = found.groupdict(default="")
            parent, path = parts.pop("parent", ""), parts.pop("path")
            path = f"{parent}.{path}" if parent else path
            public = sentence.format(path=path[:_MOST_OF_PATH], **parts)
            return TemplateRefused(public, detail=detail, request_fields=request_fields_of(path))
    return TemplateRefused("The cluster does not know a field of the sandbox's template", detail=detail)


def quantity(_match: re.Match[str], detail: str) -> ClusterRefused:
    """Return the error for a malformed resource quantity."""
    public = "The cluster refuses a resource quantity of the sandbox"
    return TemplateRefused(public, detail=detail, request_fields=("resources",))


def quota_demands(match: re.Match[str], detail: str) -> ClusterRefused:
    """Return the error for a quota that demands resources that the Pod does not set."""
    demanded: dict[tuple[str, ...], list[str]] = {}
    for one in filter(None, map(_DEMAND.fullmatch, match["demands"].strip().split("; "))):
        containers = tuple((one["containers"] or "").split(",")) if one["containers"] else ()
        demanded.setdefault(containers, []).extend(one["resources"].split(","))
    what = "; ".join(_and(names) + _of(containers) for containers, names in demanded.items())
    public = f"The cluster's quota demands {what or 'resources'}, which the template does not set"
    is_ours = not demanded or any(not containers or kube.CONTAINER in containers for containers in demanded)
    return ClusterRefused(public, detail=detail, request_fields=("resources",) if is_ours else ())


def limit_range(match: re.Match[str], detail: str) -> ClusterRefused:
    """Return the error for a LimitRange: minimum, maximum or ratio per Container or Pod."""
    bounds = ", ".join(dict.fromkeys(_BOUND.findall(match.string)))
    public = "The cluster's LimitRange refuses the resources of the sandbox"
    return ClusterRefused(f"{public}: {bounds}" if bounds else public, detail=detail, request_fields=("resources",))


def pod_security(match: re.Match[str], detail: str) -> ClusterRefused:
    """Return the error for the namespace's Pod security level."""
    checks = [one for one in _IN_BRACKETS.sub("", match["checks"]).split(", ") if _PLAIN.fullmatch(one.strip())]
    public = f"The cluster's Pod security refuses the sandbox: level {match['level']} forbids"
    return ClusterRefused(f"{public} {_and([one.strip() for one in checks[:10]]) or 'it'}", detail=detail)


def _and(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    return " and ".join(filter(None, (", ".join(unique[:-1]), *unique[-1:])))


def _of(containers: tuple[str, ...]) -> str:
    if not containers:
        return ""
    return f" for the container{'s' if len(containers) > 1 else ''} {_and(list(containers))}"
