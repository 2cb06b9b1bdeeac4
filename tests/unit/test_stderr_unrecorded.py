"""kubectl's stderr → the service's error, for messages without a recorded case."""

from __future__ import annotations

import json

import pytest

from sandboxes import errors
from sandboxes.kubectl.rules import RULES
from sandboxes.kubectl.stderr import classify
from tests.record import RECORDED, case
from tests.unit.failures import FAILED

UNKNOWN = (
    "The cluster's admission forbids the sandbox for a reason that the provisioner does not know; the log has its words"
)

# Messages without a recorded case, from the Kubernetes source.
OTHER = {
    'Error from server: admission webhook "validate.kyverno.svc" denied the request: no latest tag': (
        errors.ClusterRefused,
        "The cluster's admission webhook validate.kyverno.svc refuses the sandbox",
    ),
    'Error from server (InternalError): Internal error occurred: failed calling webhook "mutate.svc": timeout': (
        errors.ServerFailed,
        "The cluster's admission webhook mutate.svc does not answer",
    ),
    "Error from server (Forbidden): pods \"sandbox-a\" is forbidden: ValidatingAdmissionPolicy 'demo.example' with "
    "binding 'demo' denied request: no": (
        errors.ClusterRefused,
        "The cluster's admission policy demo.example refuses the sandbox",
    ),
    "Error from server (ServiceUnavailable): the server is currently unable to handle the request": (
        errors.ServerFailed,
        "The cluster can't do this just now",
    ),
    "Error from server (TooManyRequests): the server has received too many requests": (
        errors.ServerFailed,
        "The cluster can't do this just now",
    ),
    'Error from server (NotFound): error when replacing "STDIN": configmaps "sandbox-a-elsewhere" not found': (
        errors.ObjectsMissing,
        "The sandbox was deleted in the meantime",
    ),
    'Error from server (Conflict): error when replacing "STDIN": Operation cannot be fulfilled on configmaps '
    '"sandbox-a-elsewhere": the object has been modified; please apply your changes to the latest version and try '
    "again": (errors.PreconditionFailed, "The object was changed in the meantime"),
    "Error from server: etcdserver: leader changed": (errors.ServerFailed, "The cluster can't do this just now"),
    "Error from server: etcdserver: request is too large": (
        errors.TemplateRefused,
        "The cluster refuses the sandbox: its description is too large",
    ),
    # validation reads the schema first, which fails like any other call
    'error: error validating "STDIN": error validating data: Get "https://127.0.0.1:1/openapi/v2?timeout=32s": '
    "dial tcp 127.0.0.1:1: connect: connection refused; if you choose to ignore these errors, turn validation off": (
        errors.ConnectionFailed,
        "The cluster can't be reached",
    ),
    "Error from server (Timeout): the server was unable to return a response in the time allotted": (
        errors.ClusterTimeout,
        "The cluster did not answer in time",
    ),
    "Unable to connect to the server: getting credentials: exec: executable aws not found": (
        errors.ClusterRefused,
        "The provisioner's credential plugin failed",
    ),
    "Unable to connect to the server: net/http: TLS handshake timeout": (
        errors.ClusterTimeout,
        "The cluster did not answer in time",
    ),
    'Error from server (AlreadyExists): pods "sandbox-a" already exists': (
        errors.AlreadyThere,
        "Another client is creating the sandbox",
    ),
    'Error from server (Forbidden): pods "a" is forbidden: pod rejected: RuntimeClass "gvisor" not found': (
        errors.ClusterRefused,
        "The cluster has no RuntimeClass gvisor, which the sandbox's template asks for",
    ),
    'Error from server (Conflict): error when creating "STDIN": Operation cannot be fulfilled on resourcequotas "q": '
    "the object has been modified; please apply your changes to the latest version and try again": (
        errors.ServerFailed,
        "The cluster is busy with the same objects",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: status unknown for quota: q, resources: pods': (
        errors.ServerFailed,
        "The cluster's quota is not known yet",
    ),
    "Error from server: rpc error: code = Unavailable desc = transport is closing": (
        errors.ServerFailed,
        "The cluster can't do this just now",
    ),
    "error: stream error: stream ID 5; INTERNAL_ERROR; received from peer": (
        errors.ConnectionFailed,
        "The cluster can't be reached",
    ),
    'error: the server doesn\'t have a resource type "pods"': (
        errors.ConnectionFailed,
        "The cluster can't be reached",
    ),
    "Unable to connect to the server: remote error: tls: expired certificate": (
        errors.ClusterRefused,
        "The cluster refuses the provisioner's credentials",
    ),
    'Error from server (Forbidden): admission webhook "q.example" denied the request: exceeded quota of the team': (
        errors.ClusterRefused,
        "The cluster's admission webhook q.example refuses the sandbox",
    ),
    "Error from server (InternalError): Internal error occurred: failed to allocate a serviceIP: range is full": (
        errors.LimitReached,
        "The cluster has no free Service address left",
    ),
    "Error from server (NotFound): the server could not find the requested resource": (
        errors.ServerFailed,
        "The cluster does not answer as an API server does",
    ),
    # several causes: kubectl gives each a line of its own, the server puts them into brackets
    'The Pod "sandbox-a" is invalid: \n* spec.containers[0].image: Required value\n* spec.volumes[0].name: Required': (
        errors.TemplateRefused,
        "The cluster refuses the sandbox's Pod at spec.containers[0].image",
    ),
    'Error from server (Invalid): Pod "sandbox-a" is invalid: [metadata.labels: Invalid value: "x", spec: Required]': (
        errors.TemplateRefused,
        "The cluster refuses the sandbox's Pod at metadata.labels",
    ),
    'The Pod "sandbox-a" is invalid: spec.containers[0].resources.limits[ephemeral-storage]: Invalid value: "0.1"': (
        errors.TemplateRefused,
        "The cluster refuses the sandbox's Pod at spec.containers[0].resources.limits[ephemeral-storage]",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: '
    "maximum cpu usage per Container is 1, but limit is 2": (
        errors.ClusterRefused,
        "The cluster's LimitRange refuses the resources of the sandbox: maximum cpu usage per Container is 1",
    ),
    json.loads((RECORDED / "http" / "logs-missing.json").read_text())["stderr"]: (
        errors.LogMissing,
        "The sandbox's Pod was deleted in the meantime",
    ),
    'Error from server (BadRequest): previous terminated container "sandbox" in pod "sandbox-a" not found': (
        errors.LogMissing,
        "The log of the container before its restart is gone",
    ),
    'Error from server: Get "https://10.0.0.1:10250/containerLogs/deer-flow/sandbox-a/sandbox?tailLines=100": '
    "dial tcp 10.0.0.1:10250: connect: connection refused": (
        errors.LogMissing,
        "The sandbox's node does not hand out its logs",
    ),
    'error: Operation cannot be fulfilled on pods "sandbox-ub": uid mismatch: the provided object specified uid '
    "10885b85-47e1-4877-a4ba-cbf721dcd53d, and no existing object was found\n"
    "Please review the fields above--they currently have other managers.\n": (
        errors.PreconditionFailed,
        "The sandbox was deleted in the meantime",
    ),
    # The same in an apply of one object, with another program's write
    'error: Operation cannot be fulfilled on resourcequotas "q": the object has been modified; please apply your '
    "changes to the latest version and try again\nPlease review the fields above--they have other managers.\n": (
        errors.ServerFailed,
        "The cluster is busy with the same objects",
    ),
    # plugin/pkg/admission of Kubernetes
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: error looking up service account deer-flow/robot: '
    "context canceled": (
        errors.ServerFailed,
        "The cluster can't look up the sandbox's service account just now",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: the integer value of priority (5) must not be '
    "provided in pod spec; priority admission controller computed 0 from the given PriorityClass name": (
        errors.ClusterRefused,
        "The cluster's admission refuses the template's priority: it wants a PriorityClass instead",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: pod node label selector conflicts with its '
    "namespace node label selector": (
        errors.ClusterRefused,
        "The template's nodeSelector contradicts the one that the namespace of the sandboxes prescribes",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: pod tolerations (possibly merged with namespace '
    "default tolerations) conflict with its namespace whitelist": (
        errors.ClusterRefused,
        "The namespace of the sandboxes does not permit the template's tolerations",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: image policy webhook backend denied one or more '
    "images: no": (
        errors.ClusterRefused,
        "The cluster's image policy refuses an image of the sandbox",
    ),
    # OpenShift
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: unable to validate against any security context '
    'constraint: [provider "anyuid": Forbidden: not usable by user or serviceaccount, '
    'spec.volumes[0]: Invalid value: "hostPath": hostPath volumes are not allowed to be used]': (
        errors.ClusterRefused,
        "None of the cluster's security context constraints that the sandbox's service account may use admits it",
    ),
    'Error from server (Forbidden): pods "sandbox-a" is forbidden: on Sundays no Pod may start': (
        errors.ClusterRefused,
        UNKNOWN,
    ),
    'Error from server (Forbidden): forbidden: User "u" cannot get path "/readyz"': (
        errors.ClusterRefused,
        "The cluster forbids this for an unknown reason",
    ),
    'error: resource mapping not found for name: "a" namespace: "deer-flow" from "STDIN": no matches for kind "Widget" '
    'in version "example.com/v1"\nensure CRDs are installed first': (
        errors.TemplateRefused,
        "The cluster has no kind Widget in version example.com/v1, which the template asks for",
    ),
    "": (errors.ClusterRefused, "The cluster refused the request for an unknown reason"),
    "panic: runtime error": (errors.ClusterRefused, "The cluster refused the request for an unknown reason"),
}


@pytest.mark.parametrize("stderr", OTHER)
def test_an_unrecorded_failure_is_classified(stderr: str) -> None:
    error = classify(stderr)
    assert (type(error), error.public) == OTHER[stderr]


def test_every_rule_is_used() -> None:
    texts = [case(name).stderr for name in FAILED] + list(OTHER)
    unused = [rule.name for rule in RULES if not any(rule.pattern.search(text) for text in texts)]
    assert unused == []
