"""What kubectl says about its kubeconfig is told in our words; what others say stays as it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.kubectl.stderr import classify
from sandboxes.kubectl.withheld import fault_of, not_shown, repeatable
from tests.marker import MARKER
from tests.record import case, case_names

# Each recorded case in which kubectl speaks of its kubeconfig.
FAULTS = {
    "context-missing": "it has no such context",
    "kubeconfig-auth-provider-gcp": "its credential plugin is not configured as this kubectl wants it",
    "kubeconfig-auth-provider-oidc-no-token": "its credential plugin is not configured as this kubectl wants it",
    "kubeconfig-basic-and-token": "its user has more than one kind of credentials",
    "kubeconfig-ca-and-insecure": "its certificates or keys can't be used",
    "kubeconfig-ca-missing": "it, or a file that it names, can't be read",
    "kubeconfig-ca-no-pem": "its certificates or keys can't be used",
    "kubeconfig-client-certificate-missing": "it, or a file that it names, can't be read",
    "kubeconfig-client-certificate-no-base64": "some of its data are not base64",
    "kubeconfig-client-certificate-no-key": "its certificates or keys can't be used",
    "kubeconfig-client-certificate-no-pem": "its certificates or keys can't be used",
    "kubeconfig-context-without-user-entry-apply-two-lines": "it has no credentials for its user",
    "kubeconfig-current-context-missing": "it has no such context",
    "kubeconfig-flag-missing": "it, or a file that it names, can't be read",
    "kubeconfig-garbage": "it can't be parsed",
    "kubeconfig-is-directory": "it, or a file that it names, can't be read",
    "kubeconfig-no-user": "it has no credentials for its user",
    "kubeconfig-proxy-no-scheme": "its proxy-url can't be used",
    "kubeconfig-proxy-no-scheme-name": "its proxy-url can't be used",
    "kubeconfig-proxy-scheme-unknown": "its proxy-url can't be used",
    "kubeconfig-server-garbage": "it names no usable API server",
    "kubeconfig-token-file-missing": "it, or a file that it names, can't be read",
    "kubeconfig-token-line-feed": "its token has a character that no header may have",
    "kubeconfig-user-twice": "two of its users have one name",
    "kubeconfig-user-twice-other-order": "two of its users have one name",
    "plugin-no-interactive-mode": "its credential plugin is not configured as this kubectl wants it",
    "plugin-v1alpha1": "its credential plugin is not configured as this kubectl wants it",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_recorded_fault_of_a_kubeconfig_is_told_without_kubectls_words(name: str) -> None:
    said = repeatable(case(name).stderr, "/kube/config")
    assert said == not_shown(FAULTS[name], "/kube/config")
    assert "run `kubectl --kubeconfig /kube/config config view`" in said
    assert not any(secret in said for secret in ("SECRET", "TOKEN", "127.0.0.1", "proxy.example.org", "/nowhere"))


@pytest.mark.parametrize("name", [name for name in case_names() if name not in FAULTS and case(name).stderr])
def test_what_is_not_about_the_kubeconfig_is_repeated(name: str) -> None:
    assert fault_of(case(name).stderr) is None
    assert repeatable(case(name).stderr) == case(name).stderr


# In the words of kubectl's source, or of other programs.
@pytest.mark.parametrize(
    "said",
    [
        f'error: error loading config file "/x": duplicate name "{MARKER}" in list: [{MARKER}]',
        f"error: open /{MARKER}: permission denied",
        f"Error in configuration: \n* first\n* {MARKER}",
        f"W1126 03:40:09.794475   21734 loader.go:222] Config not found: /{MARKER}",
        f"error: the config file says {MARKER}",
        f"error: invalid configuration: [{MARKER}]",
        f"Unable to connect to the server: /kube/config: {MARKER}",
        f"error: yaml: unknown anchor '{MARKER}' referenced",
        f'error: illegal base64 data in "{MARKER}"',
        f"error: json: invalid character in {MARKER}",
        f"a plugin's notice\nerror: error loading config file: {MARKER}\n{MARKER}",
        f'Error from server (NotFound): pods "a" not found\nerror: error loading config file: {MARKER}',
        f"login: reading {MARKER} in kubeconfig",
        f"something: NamedAuthInfo {MARKER}",
    ],
)
def test_whatever_mentions_the_kubeconfig_is_not_repeated(said: str) -> None:
    assert MARKER not in repeatable(said, "/kube/config")
    assert "not shown" in repeatable(said, "/kube/config")


@pytest.mark.parametrize(
    "said",
    [
        'Error from server (NotFound): configmaps "config" not found\n',
        'Error from server (Forbidden): configmaps is forbidden: User "u" cannot list resource "configmaps"\n',
        'The ConfigMap "config" is invalid: \n* data: the configuration has: yaml: line 1\n',
        'error: error validating "STDIN": error validating data: json: cannot unmarshal; open /x: no\n',
        'error: Apply failed with 1 conflict: conflict with "config": .data.config\n',
        "login: error: The config profile (prod) could not be found\n",
        "login: json: invalid character 'x'\nUnable to connect to the server: getting credentials: exec: failed\n",
        "Unable to connect to the server: x509: certificate signed by unknown authority\n",
        "error: unexpected EOF\n",
    ],
)
def test_words_of_the_server_and_of_plugins_are_repeated(said: str) -> None:
    assert repeatable(said, "/kube/config") == said


def test_of_a_plugins_lines_only_those_about_a_kubeconfig_are_left_out() -> None:
    said = f'sign in at https://login\nread kubeconfig: {MARKER}\nError from server (NotFound): pods "a" not found\n'
    assert repeatable(said) == said.replace(f"read kubeconfig: {MARKER}", "(a line about a kubeconfig is not shown)")


FRAMES = st.sampled_from(
    [
        'error: error loading config file "/x": {} {}',
        "Error in configuration: {}\n* {}",
        "error: invalid configuration: [{}, {}]",
        'a notice\nerror: context "{}" does not exist {}',
        "error: kubeconfig {}: {}",
    ]
)
# What rules of the table look for, and their sentences repeat.
QUOTED = st.sampled_from(
    [
        f'admission webhook "{MARKER}" denied',
        f'failed calling webhook "{MARKER}"',
        f"ValidatingAdmissionPolicy '{MARKER}'",
        f'RuntimeClass "{MARKER}" not found',
        f'cannot get resource "{MARKER}"',
        f'Pod "x" is invalid: {MARKER}: no',
        f'pods "{MARKER}" not found',
        MARKER,
    ]
)


@given(frame=FRAMES, first=QUOTED, second=QUOTED)
def test_no_sentence_for_a_caller_quotes_a_kubeconfig(frame: str, first: str, second: str) -> None:
    error = classify(frame.format(first, second))
    assert MARKER not in error.public
    assert MARKER not in error.detail
