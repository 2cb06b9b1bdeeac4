"""kubectl's stderr → the service's error, for messages without a recorded case."""

from __future__ import annotations

import json

import pytest

from sandboxes import errors
from sandboxes.kubectl.rules import RULES
from sandboxes.kubectl.stderr import classify
from tests.record import RECORDED, case
from tests.unit.failures import FAILED

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
    "Error from server: etcdserver: leader changed": (errors.ServerFailed, "The cluster can't do this just now"),
    "Error from server: etcdserver: request is too large": (
        errors.TemplateRefused,
        "The cluster refuses the sandbox: its description is too large",
    ),
    # Validation reads the schema first, which fails like any other call.
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
    'Error from server (Forbidden): pods "a" is forbidden: no PriorityClass with name x was found': (
        errors.ClusterRefused,
        "The cluster forbids this for an unknown reason",
    ),
    'Error from server (AlreadyExists): pods "sandbox-a" already exists': (
        errors.AlreadyThere,
        "Another client is creating the sandbox",
    ),
    'Error from server (Conflict): Operation cannot be fulfilled on configmaps "x": uid mismatch: the provided '
    "object specified uid 1-2, and no existing object was found": (
        errors.PreconditionFailed,
        "The sandbox was deleted in the meantime",
    ),
    'Error from server (Forbidden): pods "a" is forbidden: pod rejected: RuntimeClass "gvisor" not found': (
        errors.ClusterRefused,
        "The cluster has no RuntimeClass gvisor, which the sandbox's template asks for",
    ),
    'Error from server (Conflict): Operation cannot be fulfilled on resourcequotas "q": the object has been modified; '
    "please apply your changes to the latest version and try again": (
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
    "error: unable to read client-cert /x/y.pem for u due to open /x/y.pem: no such file or directory": (
        errors.ClusterRefused,
        "The provisioner's kubeconfig can't be used",
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
    # Several causes: kubectl prints each on its own line, the server puts them in brackets.
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
        "The cluster's LimitRange refuses the resources of the sandbox",
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
