"""kubectl's messages about its kubeconfig are replaced; other messages are shown unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes import logs
from sandboxes.kubectl.stderr import classify
from sandboxes.kubectl.withheld import MOST_SAID, fault_of, not_shown, repeatable
from sandboxes.masking import forms_of
from tests.marker import MARKER
from tests.record import case, case_names

# Each recorded case whose stderr is about the kubeconfig.
FAULTS = {
    "context-apply-unknown": "it has no such context",
    "context-current-unset": "it has no such context",
    "context-missing": "it has no such context",
    "context-unknown-of-two": "it has no such context",
    "context-view-unknown": "it has no such context",
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
    "kubeconfig-context-without-user-entry": "it has no credentials for its user",
    "kubeconfig-context-without-user-entry-anonymous": "it has no credentials for its user",
    "kubeconfig-context-without-user-entry-apply": "it has no credentials for its user",
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
    "kubeconfig-token-file-empty": "it has no credentials for its user",
    "kubeconfig-token-file-missing": "it, or a file that it names, can't be read",
    "kubeconfig-token-line-feed": "its token has a character that no header may have",
    "kubeconfig-token-line-feed-inside": "its token has a character that no header may have",
    "kubeconfig-user-twice": "two of its users have one name",
    "kubeconfig-user-twice-apply": "two of its users have one name",
    "kubeconfig-user-twice-other-order": "two of its users have one name",
    "plugin-no-interactive-mode": "its credential plugin is not configured as this kubectl wants it",
    "plugin-v1alpha1": "its credential plugin is not configured as this kubectl wants it",
}

# The output of a plugin, and a line with the path of the user's kuberc.
NOT_REPEATED = ("plugin-not-json", "kuberc-garbage", "kuberc-unknown-version")


@pytest.mark.parametrize("name", FAULTS)
def test_a_recorded_kubeconfig_error_is_reported_without_kubectls_text(name: str) -> None:
    output = repeatable(case(name).stderr, "/kube/config")
    assert output == not_shown(FAULTS[name], "/kube/config")
    assert "run `kubectl --kubeconfig /kube/config config view`" in output
    assert not any(secret in output for secret in ("SECRET", "TOKEN", "127.0.0.1", "proxy.example.org", "/nowhere"))


@pytest.mark.parametrize(
    "name", [name for name in case_names() if name not in {*FAULTS, *NOT_REPEATED} and case(name).stderr]
)
def test_messages_that_are_not_about_the_kubeconfig_are_shown(name: str) -> None:
    assert fault_of(case(name).stderr) is None
    assert repeatable(case(name).stderr) == case(name).stderr


# Messages from kubectl's source, or of other programs.
@pytest.mark.parametrize(
    "output",
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
def test_messages_that_mention_the_kubeconfig_are_not_shown(output: str) -> None:
    assert MARKER not in repeatable(output, "/kube/config")
    assert "not shown" in repeatable(output, "/kube/config")


@pytest.mark.parametrize(
    "output",
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
def test_messages_of_the_server_and_of_plugins_are_shown(output: str) -> None:
    assert repeatable(output, "/kube/config") == output


def test_only_lines_about_a_kubeconfig_are_removed_from_plugin_output() -> None:
    output = f'sign in at https://login\nread kubeconfig: {MARKER}\nError from server (NotFound): pods "a" not found\n'
    assert repeatable(output) == output.replace(
        f"read kubeconfig: {MARKER}", "(a line about a kubeconfig is not shown)"
    )


@pytest.mark.parametrize(
    "stdout",
    [f'no kind "{MARKER}" is registered', f'parsing time "{MARKER}" as "2006"', f"json: bad\n{MARKER}\n* {MARKER}"],
)
@pytest.mark.parametrize(
    "start", ["Unable to connect to the server", 'E1126 03:40:09.663110   21720 memcache.go:381] "']
)
def test_a_plugins_stdout_is_not_shown(stdout: str, start: str) -> None:
    output = f"a notice\n{start}: getting credentials: decoding stdout: {stdout}\nerror: unexpected EOF\n"
    shown = output.replace(stdout, "(not shown, since it may be credentials)")
    assert repeatable(output, "/kube/config") == shown


def test_kubectls_quote_of_a_plugins_invalid_stdout_is_not_shown() -> None:
    output = repeatable(case("plugin-not-json").stderr)
    assert output.endswith("getting credentials: decoding stdout: (not shown, since it may be credentials)\n")


SERVERS = (
    'Error from server (NotFound): pods "a" not found\n',
    'Error from server (Forbidden): error when creating "STDIN": admission webhook "w" denied\n',
    'The Pod "a" is invalid: \n',
    "* spec.x: no\n",
)


@pytest.mark.parametrize(
    "output",
    [
        f"{MARKER}\n",
        f"error: unexpected {MARKER}\n",
        f"Unable to connect to the server: dial tcp: lookup {MARKER}\n",
        f"Unable to connect to the server: getting credentials: exec: executable {MARKER} not found\n",
        f"Warning: {MARKER}\n",
        f"{SERVERS[0]}{MARKER}\n",
        f"E1126 03:40:09.663110   21720 memcache.go:381] {MARKER}\n",
    ],
)
def test_while_secrets_are_unknown_only_messages_of_the_api_server_are_shown(output: str) -> None:
    logs.hide_from("x", lambda: (), of_others=lambda: None)
    text = repeatable(f"{output}{''.join(SERVERS)}")
    assert MARKER not in text
    assert text.endswith("".join(SERVERS))
    assert "can't be read whole" in text
    assert MARKER not in classify(output).detail


def test_plugin_secrets_are_hidden_in_plugin_lines_only() -> None:
    logs.hide_from("x", lambda: forms_of(["hunter-two"]), of_others=lambda: forms_of(["hunter"], alone=True))
    output = 'a notice: hunter, hunter-two\nError from server (NotFound): pods "hunter" not found\n'
    assert repeatable(output) == output.replace("notice: hunter, hunter-two", "notice: (hidden), (hidden)")


@pytest.mark.parametrize(
    "start",
    ["error: ", *(pytest.param(one, marks=pytest.mark.slow) for one in ("", "Error from server (BadRequest): "))],
)
@pytest.mark.parametrize(
    "unit", ['context "', "Context ", "duplicate name ", 'cluster "', "loading config file ", ": open /", "kubeconfig "]
)
def test_a_megabyte_of_repeated_error_prefixes_is_searched_quickly(start: str, unit: str) -> None:
    """Patterns that restart at each word would take minutes."""
    output = start + unit * (1_000_000 // len(unit))
    assert len(repeatable(output)) < 1000
    assert len(repeatable(f"{output}\n" * 3)) < 1000
    assert MARKER not in classify(f"{output}\n{MARKER}", detail="").public


def test_a_long_list_of_rejected_objects_is_truncated() -> None:
    line = 'Error from server (NotFound): pods "a" not found\n'
    assert 0 < MOST_SAID - len(repeatable(line * 100_000)) < len(line)


def test_a_public_message_quotes_no_plugin() -> None:
    assert MARKER not in classify(f'admission webhook "{MARKER}" denied').public
    assert "w.x" in classify('Error from server: admission webhook "w.x" denied').public


FRAMES = st.sampled_from(
    [
        'error: error loading config file "/x": {} {}',
        "Error in configuration: {}\n* {}",
        "error: invalid configuration: [{}, {}]",
        'a notice\nerror: context "{}" does not exist {}',
        "error: kubeconfig {}: {}",
    ]
)
# Texts that the table's rules match and their messages quote.
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
def test_no_message_quotes_a_kubeconfig(frame: str, first: str, second: str) -> None:
    error = classify(frame.format(first, second))
    assert MARKER not in error.public
    assert MARKER not in error.detail
