"""LISTEN_HOST and LISTEN_PORT, their fallbacks HOST and PORT, and the errors and warnings for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandboxes.addresses import LISTEN_HOST, LISTEN_PORT, Address, check_address
from sandboxes.environment import ignored_variables, used_variable
from sandboxes.errors import StartupError
from sandboxes.settings import Settings

MakeSettings = Callable[..., Settings]

ANY = "0.0.0.0"  # noqa: S104 - nothing listens here


def test_without_a_key_only_loopback_is_listened_on(make_settings: MakeSettings) -> None:
    assert make_settings().hosts == ("127.0.0.1", "::1")


@pytest.mark.parametrize("variable", ["PROVISIONER_API_KEY", "PROVISIONER_API_KEY_FILE"])
def test_with_a_key_every_address_is_listened_on(make_settings: MakeSettings, variable: str) -> None:
    assert make_settings(**{variable: "/key"}).hosts == (ANY, "::")


@pytest.mark.parametrize("key", ["", "k3y"])
def test_listen_host_overrides_host_and_host_the_default(make_settings: MakeSettings, key: str) -> None:
    assert make_settings(PROVISIONER_API_KEY=key, HOST="192.0.2.1").hosts == ("192.0.2.1",)
    assert make_settings(LISTEN_HOST="192.0.2.2").hosts == ("192.0.2.2",)
    assert make_settings(LISTEN_HOST="").hosts == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("value", "hosts"),
    [
        ("127.0.0.1,::1", ("127.0.0.1", "::1")),
        (" [::1] , localhost,", None),
        ("[::1], localhost", ("::1", "localhost")),
        ("::", ("::", ANY)),
        ("[::]", ("::", ANY)),
        (f"::,{ANY},::", ("::", ANY)),
        (ANY, (ANY,)),
        ("[127.0.0.1]", None),
        ("[localhost]", None),
        ("[::1", None),
        ("::1]:8002", None),
        ("127.0.0.1:8002", None),
        ("http://127.0.0.1", None),
        (",", None),
        ("::1%", None),
    ],
)
def test_listen_host_is_a_list_of_hosts(make_settings: MakeSettings, value: str, hosts: tuple[str, ...] | None) -> None:
    if hosts is None:
        with pytest.raises(StartupError, match="LISTEN_HOST holds "):
            make_settings(LISTEN_HOST=value)
    else:
        assert make_settings(LISTEN_HOST=value).hosts == hosts


@given(value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
@example(value="x86_64-apple-darwin13.4.0")
def test_any_text_in_host_is_accepted_or_reported_under_its_name(value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOST", value)
        try:
            hosts = Settings.load().hosts
        except StartupError as error:
            assert "HOST holds " in str(error)  # noqa: PT017 - either is right
        else:
            assert hosts
            assert all(str(Address((host,), 8002)).endswith(":8002") for host in hosts)


def test_listen_port_overrides_port_and_port_the_default(make_settings: MakeSettings) -> None:
    assert make_settings().listen_port == 8002
    assert make_settings(PORT="9000").listen_port == 9000
    assert make_settings(LISTEN_PORT="9001").listen_port == 9001
    assert make_settings(LISTEN_PORT="").listen_port == 9000


def test_an_overridden_invalid_host_or_port_is_ignored(make_settings: MakeSettings) -> None:
    settings = make_settings(HOST="not a host", PORT="tcp://10.0.0.1:8002", LISTEN_HOST="::1", LISTEN_PORT="9000")
    assert (settings.hosts, settings.listen_port) == (("::1",), 9000)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PORT": "tcp://10.0.0.1:8002"}, "  PORT holds 'tcp://10.0.0.1:8002'. It should be a valid integer"),
        ({"PORT": "x", "LISTEN_PORT": ""}, "  PORT holds 'x'."),
        ({"PORT": "9000", "LISTEN_PORT": "x"}, "  LISTEN_PORT holds 'x'."),
        ({"LISTEN_PORT": "0"}, "  LISTEN_PORT holds '0'."),
        ({"HOST": "a b"}, "  HOST holds 'a b'. It may hold host names or IP addresses"),
        ({"HOST": "127.0.0.1", "LISTEN_HOST": "a b"}, "  LISTEN_HOST holds 'a b'."),
    ],
)
def test_an_invalid_value_is_reported_with_the_variable_that_was_read(
    make_settings: MakeSettings, variables: dict[str, str], message: str
) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(**variables)
    (line,) = str(caught.value).splitlines()[1:]
    assert line.startswith(message)


def test_used_variable_is_the_one_that_is_read() -> None:
    assert used_variable(LISTEN_PORT, {}) == "LISTEN_PORT"
    assert used_variable(LISTEN_PORT, {"PORT": "1"}) == "PORT"
    assert used_variable(LISTEN_PORT, {"PORT": "1", "LISTEN_PORT": ""}) == "PORT"
    assert used_variable(LISTEN_PORT, {"PORT": "1", "LISTEN_PORT": "2"}) == "LISTEN_PORT"
    assert used_variable(LISTEN_HOST, {"HOST": "a", "PORT": "1", "LISTEN_PORT": "2"}) == "HOST"
    assert used_variable("LOG_LEVEL", {"HOST": "a"}) == "LOG_LEVEL"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", ANY, "::", "192.0.2.1", "localhost"])
def test_an_ip_address_or_localhost_is_accepted(host: str) -> None:
    check_address(Address(("127.0.0.1", host), 8002))


@pytest.mark.parametrize("host", ["x86_64-conda-linux-gnu", "my-laptop", "localhost.example", "127.1"])
def test_a_host_name_is_rejected_with_the_variables_name(host: str) -> None:
    with pytest.raises(StartupError) as caught:
        check_address(Address(("127.0.0.1", host), 8002, host_variable="HOST"))
    assert str(caught.value).startswith(f"HOST holds '{host}', which is neither an IP address nor `localhost`.")
    assert str(caught.value).endswith("set LISTEN_HOST.")


def test_an_ignored_variable_is_reported_only_if_its_value_differs() -> None:
    environ = {"HOST": "h", "PORT": "tcp://10.0.0.1:8002", "LISTEN_HOST": ANY, "LISTEN_PORT": "8002"}
    assert list(ignored_variables(environ)) == [
        f"HOST is ignored: LISTEN_HOST wins over it, and holds '{ANY}'.",
        "PORT is ignored: LISTEN_PORT wins over it, and holds '8002'.",
    ]
    assert list(ignored_variables({**environ, "HOST": ANY, "PORT": "8002"})) == []
    assert list(ignored_variables({**environ, "LISTEN_HOST": "", "PORT": ""})) == []
    assert list(ignored_variables({})) == []


def test_variables_in_lower_case_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = Settings.load()
    for name, value in {"host": "192.0.2.1", "port": "9000", "listen_port": "9001", "k8s_namespace": "Bad"}.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == defaults
