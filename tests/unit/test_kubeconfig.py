"""Which values of a kubeconfig are secrets, and the encodings in which they are hidden."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.kubectl.kubeconfig import read_kubeconfig, shown_address
from sandboxes.kubectl.secret_values import Secrets
from sandboxes.masking import hide
from tests import kubeconfigs
from tests.marker import MARKER, shows

PEM = f"-----BEGIN KEY-----\n{base64.b64encode(MARKER.encode()).decode()}\nline-{MARKER}\n-----END KEY-----\n"
GOOD = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "here",
    "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443"}}],
    "users": [{"name": "admin", "user": {"token": f"token-{MARKER}"}}],
    "contexts": [{"name": "here", "context": {"cluster": "c", "user": "admin", "namespace": "deer-flow"}}],
}


def hidden(text: str, config: object) -> str:
    """Return the text with the kubeconfig's secrets hidden."""
    return hide(text, secrets_of(config).forms())


def hidden_of_plugin(text: str, config: object) -> str:
    """Return the text with the kubeconfig's secrets hidden as in the output of a credential plugin."""
    secrets = secrets_of(config)
    return hide(text, secrets.forms(), secrets.forms_of_words())


def secrets_of(config: object) -> Secrets:
    found = read_kubeconfig((config if isinstance(config, str) else yaml.safe_dump(config)).encode())
    assert found.is_whole
    return found.secrets


def of_user(**user: Any) -> dict[str, Any]:
    return {**GOOD, "users": [{"name": "admin", "user": user}]}


def of_plugin(**exec_: Any) -> dict[str, Any]:
    return of_user(exec={"apiVersion": "client.authentication.k8s.io/v1", "command": "login", **exec_})


def of_cluster(**cluster: Any) -> dict[str, Any]:
    return {**GOOD, "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **cluster}}]}


SECRET = f"se{MARKER}cret"
PLACES: dict[str, dict[str, Any]] = {
    "token": of_user(token=SECRET),
    "a field that kubectl does not know": of_user(future=SECRET),
    "password": of_user(username="u", password=SECRET),
    "username": of_user(username=SECRET, password="p"),
    "impersonation": of_user(**{"as": SECRET}),
    "impersonation's more": of_user(**{"as-user-extra": {"k": [SECRET]}}),
    "client-key-data": of_user(**{"client-key-data": SECRET}),
    "certificate-authority-data": of_cluster(**{"certificate-authority-data": SECRET}),
    "auth provider": of_user(**{"auth-provider": {"name": "oidc", "config": {"id": SECRET}}}),
    "argument": of_plugin(args=["get-token", SECRET]),
    "value of a flag": of_plugin(args=["--profile", SECRET]),
    "flag with a value": of_plugin(args=[f"--profile={SECRET}"]),
    "short flag with a value": of_plugin(args=[f"-p{SECRET}"]),
    "word of a script": of_plugin(args=["-c", f"echo '{SECRET}'; exit 1"]),
    "variable": of_plugin(env=[{"name": "A", "value": SECRET}]),
    "installation hint": of_plugin(installHint=f"take\n{SECRET}\nhome"),
    "proxy": of_cluster(**{"proxy-url": f"http://u:{SECRET}@proxy"}),
    "proxy's host": of_cluster(**{"proxy-url": f"http://{SECRET}:3128"}),
    "server": of_cluster(server=f"https://u:{SECRET}@10.0.0.1"),
    "server's user": of_cluster(server=f"https://{SECRET}@10.0.0.1"),
    "server's query": of_cluster(server=f"https://10.0.0.1/?a={SECRET}"),
    "server without a scheme": of_cluster(server=f"u:{SECRET}@10.0.0.1"),
    "extension": {**GOOD, "extensions": [{"name": "x", "extension": {"deep": [{"a": SECRET}]}}]},
    "preference": {**GOOD, "preferences": {"x": SECRET}},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_in_any_field_of_a_kubeconfig_is_hidden(place: str) -> None:
    assert not shows(hidden(f"it says {SECRET}.", PLACES[place]))
    assert not shows(hidden(f"it says {SECRET}.", json.dumps(PLACES[place], indent="\t")))


# A secret with spaces and quotes, which must be found as a whole.
QUOTED = f"{SECRET} \"\\ \u00e9/<'&>"


def go_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def lower(text: str) -> str:
    return re.sub("%..", lambda found: found[0].lower(), text)


@pytest.mark.parametrize(
    "text",
    [
        QUOTED,
        json.dumps({"a": QUOTED}),
        json.dumps({"a": QUOTED}, ensure_ascii=False),
        json.dumps(json.dumps({"a": QUOTED})),
        go_json(QUOTED),
        json.dumps(go_json(QUOTED), ensure_ascii=False),
        yaml.safe_dump([QUOTED], default_style="'", allow_unicode=True, width=1000),
        quote(QUOTED, safe=""),
        quote(QUOTED),
        lower(quote(QUOTED, safe="")),
        lower(quote(QUOTED)),
        quote_plus(QUOTED),
        lower(quote_plus(QUOTED)),
        repr([QUOTED]),
        *(
            encode(before.encode() + QUOTED.encode() + after.encode()).decode()
            for encode in (base64.b64encode, base64.urlsafe_b64encode)
            for before in ("", "a:", "bob:", "user:")
            for after in ("", "\n", "xy")
        ),
    ],
)
def test_a_secret_is_hidden_in_every_encoding(text: str) -> None:
    assert not shows(hidden(text, of_user(password=QUOTED)))


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(PEM.encode()).decode(),
        PEM,
        json.dumps(PEM),
        f"a line: line-{MARKER}",
        base64.b64encode(MARKER.encode()).decode(),
        f"[{' '.join(map(str, PEM.encode()))}]",
    ],
)
def test_base64_data_are_hidden_encoded_decoded_by_line_and_as_bytes(text: str) -> None:
    data = base64.b64encode(PEM.encode()).decode()
    assert not shows(hidden(text, of_user(**{"client-key-data": data})))
    # YAML may break long data into lines; programs print them in one piece.
    broken = "\n".join(data[start : start + 64] for start in range(0, len(data), 64))
    assert not shows(hidden(text, of_user(**{"client-key-data": broken})))


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padding", ["", "="])
@pytest.mark.parametrize("password", ["1-2", "a?b>c", "hunterpw", "hunterpass1", "~~~???>>>"])
def test_no_part_of_a_secret_in_base64_is_left(encode: Callable[[bytes], bytes], padding: str, password: str) -> None:
    config = {**GOOD, "users": [{"name": "bob", "user": {"username": "alice", "password": f"{password}!"}}]}
    for name in ("", "alice:", "bob:"):
        text = encode(f"{name}{password}!".encode()).decode().rstrip("=") + padding
        assert hidden(f"Basic {text}.", config).rstrip("=.") == "Basic (hidden)"


@pytest.mark.parametrize("line_feed", ["\n", "\r\n", "\n    ", "\\n", "\\r\\n", "\\\\n  "])
@pytest.mark.parametrize(
    "form", [SECRET, quote_plus(f"{SECRET} <{SECRET}"), base64.b64encode(SECRET.encode()).decode()]
)
def test_a_secret_broken_across_two_lines_is_hidden(form: str, line_feed: str) -> None:
    config = of_user(token=SECRET, password=f"{SECRET} <{SECRET}")
    for at in range(1, len(form)):
        assert "(hidden)" in hidden(f"says {form[:at]}{line_feed}{form[at:]} there", config)
        assert not shows(hidden(f"says {form[:at]}{line_feed}{form[at:]} there", config).replace(line_feed, ""))


def test_the_header_of_basic_authentication_is_hidden() -> None:
    text = base64.b64encode(b"name:pass-word").decode()
    assert hidden(f"Basic {text}", of_user(username="name", password="pass-word")) == "Basic (hidden)"


def test_both_values_of_a_duplicate_key_are_hidden() -> None:
    text = yaml.safe_dump(GOOD).replace("token: ", "token: first-of-two\n    token: ")
    assert hidden(f"first-of-two token-{MARKER}", text) == "(hidden) (hidden)"


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["login", "hunterpass"], "hunterpass"),
        (["login", "hunter"], "'hunter'"),
        (["-c", "login --password=hunterpass"], "hunterpass"),
        (["-c", "login -phunterpass"], "hunterpass"),
        (["-c", "A=hunt; export A; login"], "hunt"),
        (["-u", "bob:hunterpw"], "hunterpw"),
        (["-c", "curl -u bob:hunterpw https://x"], "hunterpw"),
        (["-c", 'printf \'{"token":"hunterpass"}\''], "hunterpass"),
        (["default"], "default"),
    ],
)
def test_plugin_arguments_are_hidden_in_plugin_output(arguments: list[str], output: str) -> None:
    text = hidden_of_plugin(f"can't use {output} for --password", of_plugin(args=arguments))
    assert text in ("can't use (hidden) for --password", "can't use '(hidden)' for --password")


@pytest.mark.parametrize("at", range(1, 10))
def test_a_plugin_argument_broken_across_two_lines_is_hidden(at: int) -> None:
    output = f"no hunterpass: {'hunterpass'[:at]}\n  {'hunterpass'[at:]}, hunterpasses"
    assert hidden_of_plugin(output, of_plugin(args=["login", "hunterpass"])) == "no (hidden): (hidden), hunterpasses"


def test_comments_and_keys_that_look_like_secrets_are_hidden_in_plugin_output() -> None:
    text = yaml.safe_dump(of_user(**{f"{SECRET}-key": "x"})) + "# token: hunterpass\n"
    assert hidden_of_plugin(f"{SECRET}-key, # token: hunterpass", text) == "(hidden), # (hidden): (hidden)"


@pytest.mark.parametrize("value", ["true", "default", "kubernetes", "12345", "v1.2", "admin", "none"])
def test_a_common_word_is_hidden_if_its_field_holds_a_secret(value: str) -> None:
    output, shown = f"it says {value}, not x{value}x", f"it says (hidden), not x{value}x"
    assert hidden(output, of_user(username="u", password=value)) == shown
    assert hidden(output, of_plugin(env=[{"name": "API_TOKEN", "value": value}])) == shown
    assert hidden(output, of_plugin(args=[f"--password={value}"])) == shown
    assert hidden(output, of_plugin(env=[{"name": "MODE", "value": value}])) == output


OWN_LINE = (
    '{"level": "info"} kubectl apply: the cluster accepts the template default; true, v1, IfAvailable, 8080, 1.37.1; '
    "kubeconfig /home, context here, user admin, API server https://10.0.0.1:6443, namespace deer-flow; "
    "login get-token failed: client.authentication.k8s.io/v1, error, eu"
)


@pytest.mark.parametrize(
    "value",
    [
        *(
            "true",
            "v1",
            "IfAvailable",
            "8080",
            "1.37.1",
            "info",
            "default",
            "eu",
            "/home",
            "admin",
            "here",
            "deer-flow",
        ),
        *("kubectl", "client.authentication.k8s.io/v1", "https://10.0.0.1:6443", "10.0.0.1", "t", ""),
    ],
)
def test_values_that_are_no_secrets_do_not_mask_own_log_lines(value: str) -> None:
    variables = [{"name": "AWS_PROFILE", "value": value}, {"name": "AWS_TOKEN_FILE", "value": value}]
    config = of_plugin(args=["get-token", value, "--mode", value], env=variables, interactiveMode="IfAvailable")
    assert hidden(OWN_LINE, config) == OWN_LINE


def test_a_short_secret_is_hidden_only_as_a_whole_word() -> None:
    config = of_user(username="u", password="prod")
    assert hidden("products of prod: prod, 'prod', \"\\nprod\"", config) == (
        "products of (hidden): (hidden), '(hidden)', \"\\n(hidden)\""
    )
    assert hidden("x$ec!y", of_user(username="u", password="$ec!")) == "x(hidden)y"


def test_a_password_equal_to_a_name_is_hidden() -> None:
    assert hidden("the user admin", of_user(username="admin", password="admin")) == "the user (hidden)"


NOT_WHOLE = {
    "cut short": "{",
    "no YAML": "a: b: c",
    "tabs": "\t- x: [",
    "an alias of nothing": "*nothing",
    "a list that holds itself": "&a [*a]",
    "a NUL": "\x00",
    "deep lists": "- " * 100_000,
    "deep JSON": "[" * 100_000,
    "deep mappings": "{a: " * 100_000,
    "JSON that is followed by text": json.dumps(GOOD) + "]",
    "many values": f"[{'x,' * 100_001}]",
}


@pytest.mark.parametrize("case", NOT_WHOLE)
def test_an_unparsable_file_is_marked_incomplete(case: str) -> None:
    assert not read_kubeconfig(NOT_WHOLE[case].encode()).is_whole


@pytest.mark.parametrize("more", ["\n---\n{", "\n---\n- [a\n", "\n...\n: [x"])
def test_a_broken_second_document_does_not_reveal_secrets_of_the_first(more: str) -> None:
    found = read_kubeconfig((yaml.safe_dump(of_user(token=SECRET)) + more).encode())
    assert not shows(hide(SECRET, found.secrets.forms()))
    assert not found.is_whole


def test_a_redefined_anchor_is_read_as_by_kubectl() -> None:
    text = f"users:\n- name: &a first-secret\n  user: {{token: *a, x: &a {SECRET}, password: *a}}\n"
    assert hidden(f"first-secret {SECRET}", text) == "(hidden) (hidden)"


def test_exponential_aliases_are_not_expanded() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    assert not read_kubeconfig("\n".join(lines).encode()).is_whole


@given(st.binary() | st.text().map(str.encode) | st.builds(lambda value: yaml.safe_dump(value).encode(), st.text()))
def test_reading_any_file_raises_nothing(text: bytes) -> None:
    read_kubeconfig(text)


@pytest.mark.parametrize(
    ("config", "doubled"),
    [
        (GOOD, None),
        ({**GOOD, "users": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}, ("users", "a")),
        ({**GOOD, "contexts": [{"name": "a"}, {"name": "a"}]}, ("contexts", "a")),
        ({**GOOD, "clusters": [{"name": "a"}, {"name": "a"}], "users": [{}, {}]}, ("clusters", "a")),
        ({"users": "text"}, None),
        ([1], None),
    ],
)
def test_duplicate_names_are_found(config: object, doubled: tuple[str, str] | None) -> None:
    found = read_kubeconfig(yaml.safe_dump(config).encode())
    assert found.doubled == doubled


@pytest.mark.parametrize(
    ("server", "shown"),
    [
        ("https://10.0.0.1:6443", "https://10.0.0.1:6443"),
        ("10.0.0.1:6443", "10.0.0.1:6443"),
        ("https://[::1]:6443/", "https://[::1]:6443/"),
        ("https://rancher/k8s/clusters/c-1", "https://rancher/k8s/clusters/c-1"),
        (f"https://u:{MARKER}@host:1/p?token={MARKER}#{MARKER}", "https://host:1/p"),
        (f"{MARKER}@host", "host"),
        (f"https://u:{MARKER}/x@host", None),
        (f"https://u:{MARKER}@bad host", None),
        (f"https://u:{MARKER}", None),
        (f"https://[{MARKER}", None),
        (f"https://host/{MARKER}\n", None),
    ],
)
def test_an_address_is_shown_without_user_info_and_query(server: str, shown: str | None) -> None:
    assert shown_address(server) == (shown or "(not shown: it is no usable address)")


# A kind is no secret, and a token file is a separate file.
@pytest.mark.parametrize("name", sorted(kubeconfigs.CHANGES.keys() - {"another kind", "a token file with a line feed"}))
def test_all_values_of_the_test_kubeconfigs_are_hidden(name: str, tmp_path: Path) -> None:
    """As a program would print them, line by line."""
    kubeconfigs.write(name, yaml.safe_dump(GOOD), tmp_path / "config")
    text = (tmp_path / "config").read_text()
    assert shows(text)
    assert not shows(hidden(text, text))


def test_the_secret_in_the_recorded_message_is_hidden() -> None:
    users = [{"name": "admin", "user": {"token": secret}} for secret in ("SECRET-ONE", "TOKEN-TWO")]
    output = 'duplicate name "admin" in list: [{admin { []  [] SECRET-ONE    [] map[]   <nil> <nil> []}}'
    assert hidden(output, {**GOOD, "users": users}) == output.replace("SECRET-ONE", "(hidden)")
