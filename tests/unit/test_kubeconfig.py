"""Which values of a kubeconfig are secrets, and in which forms they are found in a text."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.kubectl.kubeconfig import read_kubeconfig, shown_address
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
    """Return the text as a line would show it that knows the kubeconfig's secrets."""
    found = read_kubeconfig((config if isinstance(config, str) else yaml.safe_dump(config)).encode())
    assert found is not None
    return hide(text, found.secrets.forms())


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
def test_a_secret_is_hidden_wherever_in_a_kubeconfig_it_stands(place: str) -> None:
    assert not shows(hidden(f"it says {SECRET}.", PLACES[place]))
    assert not shows(hidden(f"it says {SECRET}.", json.dumps(PLACES[place], indent="\t")))


# It has to be found as a whole: without its own lines and words.
QUOTED = f'{SECRET} "\\ \u00e9/'


@pytest.mark.parametrize(
    "text",
    [
        QUOTED,
        json.dumps({"a": QUOTED}),
        json.dumps({"a": QUOTED}, ensure_ascii=False),
        json.dumps(json.dumps({"a": QUOTED})),
        quote(QUOTED, safe=""),
        repr([QUOTED]),
    ],
)
def test_a_secret_is_hidden_in_each_form_that_programs_write(text: str) -> None:
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
def test_data_in_base64_are_hidden_as_text_line_by_line_and_as_bytes(text: str) -> None:
    data = base64.b64encode(PEM.encode()).decode()
    assert not shows(hidden(text, of_user(**{"client-key-data": data})))
    # YAML may break the lines of long data; programs print them in one piece
    broken = "\n".join(data[start : start + 64] for start in range(0, len(data), 64))
    assert not shows(hidden(text, of_user(**{"client-key-data": broken})))


def test_the_header_of_basic_authentication_is_hidden() -> None:
    text = base64.b64encode(b"name:pass-word").decode()
    assert hidden(f"Basic {text}", of_user(username="name", password="pass-word")) == "Basic (hidden)"


def test_both_values_of_a_doubled_key_are_hidden() -> None:
    text = yaml.safe_dump(GOOD).replace("token: ", "token: first-of-two\n    token: ")
    assert hidden(f"first-of-two token-{MARKER}", text) == "(hidden) (hidden)"


OURS = (
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
def test_what_is_no_secret_does_not_mask_our_own_lines(value: str) -> None:
    variables = [{"name": "AWS_PROFILE", "value": value}, {"name": "AWS_TOKEN_FILE", "value": value}]
    config = of_plugin(args=["get-token", value, "--mode", value], env=variables, interactiveMode="IfAvailable")
    assert hidden(OURS, config) == OURS


def test_a_short_secret_is_hidden_as_a_word_and_not_within_words() -> None:
    config = of_user(username="u", password="prod")
    assert hidden("products of prod: prod, 'prod', \"\\nprod\"", config) == (
        "products of (hidden): (hidden), '(hidden)', \"\\n(hidden)\""
    )
    assert hidden("x$ec!y", of_user(username="u", password="$ec!")) == "x(hidden)y"


def test_a_password_is_hidden_even_if_it_is_a_name() -> None:
    assert hidden("the user admin", of_user(username="admin", password="admin")) == "the user (hidden)"


@pytest.mark.parametrize("text", ["{", "a: b: c", "\t- x: [", "*nothing", "&a [*a]", "\x00", "- " * 2000, "[" * 5000])
def test_what_can_not_be_parsed_adds_nothing(text: str) -> None:
    assert read_kubeconfig(text.encode()) is None


def test_a_few_lines_that_mean_a_billion_are_given_up() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)]
    assert read_kubeconfig("\n".join(lines).encode()) is None


@given(st.binary() | st.text().map(str.encode) | st.builds(lambda value: yaml.safe_dump(value).encode(), st.text()))
def test_any_file_is_read_without_an_error(text: bytes) -> None:
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
def test_names_that_stand_twice_are_found(config: object, doubled: tuple[str, str] | None) -> None:
    found = read_kubeconfig(yaml.safe_dump(config).encode())
    assert found is not None
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


# A kind is no secret, and a token file is another file.
@pytest.mark.parametrize("name", sorted(kubeconfigs.CHANGES.keys() - {"another kind", "a token file with a line feed"}))
def test_all_values_of_the_tests_kubeconfigs_are_hidden(name: str, tmp_path: Path) -> None:
    """Line by line, as a program would print them."""
    kubeconfigs.write(name, yaml.safe_dump(GOOD), tmp_path / "config")
    text = (tmp_path / "config").read_text()
    assert shows(text)
    assert not shows(hidden(text, text))


def test_what_stands_in_the_record_is_hidden() -> None:
    users = [{"name": "admin", "user": {"token": secret}} for secret in ("SECRET-ONE", "TOKEN-TWO")]
    said = 'duplicate name "admin" in list: [{admin { []  [] SECRET-ONE    [] map[]   <nil> <nil> []}}'
    assert hidden(said, {**GOOD, "users": users}) == said.replace("SECRET-ONE", "(hidden)")
