"""kubectl's messages about its own configuration are told as faults of the kubeconfig, and never as the cluster's."""

from __future__ import annotations

import pytest

from sandboxes.errors import ClusterRefused, ClusterUnavailable
from sandboxes.kubectl.rules import KUBECONFIG_UNUSABLE
from sandboxes.kubectl.stderr import UNKNOWN_REASON, classify, tried_default_server
from sandboxes.kubectl.withheld import not_shown
from tests.record import case

# In the words of client-go's source (tools/clientcmd, rest, transport, plugin) and of Go's own packages.
FAULTS = [
    "error: specifying a root certificates file with the insecure flag is not allowed",
    'error: invalid \'proxy-url\' "p:1" for cluster "c": unsupported scheme "p", must be http, https, or socks5',
    "error: Must provide idp-issuer-url",
    'error: no Auth Provider found for name "own"',
    "error: The azure auth plugin has been removed.\nPlease use the kubelogin plugin instead.",
    "error: tls: private key does not match public key",
    "error: tls: failed to find any PEM data in key input",
    "error: asn1: structure error: tags don't match",
    "error: x509: failed to parse private key (use ParseECPrivateKey instead for this key type)",
    "error: interactiveMode must be specified for u to use exec authentication plugin",
    'error: exec plugin: invalid apiVersion "client.authentication.k8s.io/v1alpha1"',
    "error: requesting uid, groups or user-extra for u without impersonating a user",
    "error: username/password or bearer token may be set, but not both",
    "error: open /nowhere/token: no such file or directory",
    "error: something that kubectl of a later version says about its configuration",
    "Error in configuration: \n* one\n* another",
    "Error in configuration: something new",
    'Unable to connect to the server: unsupported protocol scheme "htps"',
    'Unable to connect to the server: invalid character " " in host name',
    'Unable to connect to the server: net/http: invalid header field value for "Authorization"',
    'Unable to connect to the server: net/http: invalid header field value for "Impersonate-User"',
    "Unable to connect to the server: No valid id-token, and cannot refresh without refresh-token",
    'error: unable to recognize "STDIN": Get "htps://a:1/api": unsupported protocol scheme "htps"',
    'error: error validating "STDIN": error validating data: Get "htps://a:1/": unsupported protocol scheme "htps"; if',
    # Plain http to a port that wants https, as in the record.
    "Error from server (BadRequest): the server rejected our request for an unknown reason",
    'error: unable to recognize "STDIN": the server rejected our request for an unknown reason',
    # A notice of a credential plugin comes first.
    "Your session ends in 2 days.\nerror: specifying a root certificates file with the insecure flag is not allowed",
]

OTHERS = [
    "Unable to connect to the server: dial tcp: lookup kubeconfig.example: no such host",
    "Unable to connect to the server: x509: certificate signed by unknown authority",
    "Unable to connect to the server: tls: failed to parse certificate from server: x509: malformed certificate",
    "Unable to connect to the server: proxyconnect tcp: dial tcp 127.0.0.1:1: connect: connection refused",
    "Unable to connect to the server: getting credentials: exec plugin didn't return a status field",
    'Unable to connect to the server: getting credentials: exec: fork/exec /x: permission denied: "client-key"',
    'error: unable to recognize "STDIN": Get "https://a:1/api": getting credentials: exec: net/url: no such host',
    'error: unable to recognize "STDIN": Get "https://a:1/api": dial tcp 10.0.0.1:1: connect: connection refused',
    "error: http2: client connection lost",
    "error: unexpected EOF",
    "error: local error: tls: bad record MAC",
    "error: timed out waiting for the condition on pods/a",
    'Error from server (Forbidden): configmaps "kubeconfig" is forbidden: proxy-url, PEM: no',
    'The Pod "a" is invalid: spec: Invalid value: "duplicate name": interactiveMode, tokenFile',
]


@pytest.mark.parametrize("stderr", FAULTS)
def test_a_fault_of_the_kubeconfig_is_told_as_one_and_not_tried_again(stderr: str) -> None:
    error = classify(stderr)
    assert (type(error), error.status, error.public) == (ClusterRefused, 502, KUBECONFIG_UNUSABLE)


@pytest.mark.parametrize("stderr", OTHERS)
def test_what_is_not_about_the_configuration_is_not_told_so(stderr: str) -> None:
    error = classify(stderr)
    assert error.public != KUBECONFIG_UNUSABLE
    assert isinstance(error, ClusterUnavailable) or "kubeconfig" not in error.public


@pytest.mark.parametrize(
    "stderr",
    [
        "error: unknown flag: --server-side",
        "error: no objects passed to apply",
        "error: you may only specify a single resource type",
        "error: write /tmp/x: no space left on device",
        "runtime: out of memory",
        "",
    ],
)
def test_what_stays_unknown_says_so_and_its_words_are_for_the_log(stderr: str) -> None:
    error = classify(stderr)
    assert error.public == UNKNOWN_REASON
    assert error.detail == stderr


def test_kubectls_default_server_is_a_fault_only_of_a_kubeconfig_that_does_not_name_it() -> None:
    stderr = case("kubeconfig-missing").stderr
    assert tried_default_server(stderr, "https://10.0.0.1:6443")
    assert not tried_default_server(stderr, "http://localhost:8080")
    plugins = f"login: {stderr.splitlines()[-1]}\n{case('refused').stderr}"
    assert not tried_default_server(plugins, "https://10.0.0.1:6443")
    assert not tried_default_server(case("refused").stderr, "https://10.0.0.1:6443")


def test_of_several_kubeconfigs_the_log_says_how_to_see_kubectls_own_words() -> None:
    assert "run `KUBECONFIG=/a:/b kubectl config view`" in not_shown("it is odd", "/a:/b")
