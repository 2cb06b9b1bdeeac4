"""Callers accepted without an API key: by address, forwarding headers, and headers of browsers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from sandboxes.api.callers import Callers, is_in_pod, is_nearby
from sandboxes.errors import BrowserRefused, StartupError, Unauthenticated
from sandboxes.grammar import parse_authority
from sandboxes.settings import Settings

MakeSettings = Callable[..., Settings]

API = "/api/sandboxes"


@pytest.fixture
def callers(make_settings: MakeSettings) -> Callers:
    return Callers(make_settings(), in_pod=False)


def is_answered(callers: Callers, *headers: tuple[str, str], path: str = API, peer: str | None = "127.0.0.1") -> bool:
    """Whether the request is accepted; False for BrowserRefused. Raises the rejection of the peer."""
    try:
        callers.check(path, peer, headers)
    except BrowserRefused:
        return False
    return True


LOCAL_PEERS = [
    *("127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1"),
    *("10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255"),
    *("::ffff:10.0.0.1", "::ffff:c0a8:0001", "fc00::1", "fdff::1", "fd00::1%eth0"),
]
OTHER_PEERS = [
    *("8.8.8.8", "9.255.255.255", "11.0.0.0", "126.0.0.1", "128.0.0.1", "172.15.255.255", "172.32.0.0", "192.167.1.1"),
    *("::ffff:8.8.8.8", "2001:db8::1", "fbff::1", "fe00::1", "::2"),
    # Not private here, unlike in other definitions: link-local, shared, benchmark, documentation, unspecified, 6to4,
    # NAT64, IPv4-compatible.
    *("169.254.169.254", "fe80::1", "fe80::1%eth0", "100.64.0.1", "198.18.0.1", "192.0.2.1", "0.0.0.0", "::"),  # noqa: S104
    *("2002:a00:1::", "64:ff9b::a00:1", "::10.0.0.1"),
    # Not an address.
    *("localhost", "unix:", "127.0.0.1:80", "@", "\x00", " 127.0.0.1"),
]


@pytest.mark.parametrize("peer", LOCAL_PEERS)
def test_loopback_and_private_addresses_are_answered(callers: Callers, peer: str) -> None:
    assert is_nearby(peer)
    callers.check(API, peer, [("Host", "provisioner")])


@pytest.mark.parametrize("peer", [*OTHER_PEERS, "", None])
def test_other_addresses_are_rejected_and_the_error_names_the_settings(callers: Callers, peer: str | None) -> None:
    with pytest.raises(Unauthenticated) as caught:
        callers.check(API, peer, [("Host", "provisioner")])
    message = caught.value.public
    assert message.startswith("Without an API key only loopback and private addresses are answered, and ")
    assert message.endswith(": set PROVISIONER_API_KEY, or ALLOW_UNAUTHENTICATED=true to answer every address")
    assert peer is None or peer in message


@pytest.mark.parametrize(
    "name",
    ["Forwarded", "forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "x-forwarded-", "X-FORWARDED-ANYTHING",
     "X-Real-IP", "x-real-ip"],
)  # fmt: skip
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_forwarded_requests_are_rejected(callers: Callers, name: str, value: str) -> None:
    with pytest.raises(Unauthenticated, match=f"forwarded.* header {name.lower()}: set PROVISIONER_API_KEY"):
        callers.check(API, "127.0.0.1", [("Host", "localhost"), (name, value)])


@pytest.mark.parametrize("name", ["X-Forward", "Via", "X-Real-IP-2", "Not-Forwarded", "X-Request-ID"])
def test_headers_that_resemble_forwarding_headers_are_ignored(callers: Callers, name: str) -> None:
    callers.check(API, "127.0.0.1", [("Host", "localhost"), (name, "127.0.0.1")])


def test_no_header_overrides_a_public_peer_address(callers: Callers) -> None:
    for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Client-IP", "CF-Connecting-IP", "Host", "Origin"):
        with pytest.raises(Unauthenticated):
            callers.check(API, "203.0.113.9", [("Host", "localhost"), (name, "127.0.0.1")])


@pytest.mark.parametrize("peer", [*LOCAL_PEERS, *OTHER_PEERS])
def test_in_a_pod_every_address_needs_a_key(make_settings: MakeSettings, peer: str) -> None:
    with pytest.raises(Unauthenticated, match="Without an API key a provisioner in a Pod answers nothing under /api/"):
        Callers(make_settings(), in_pod=True).check(API, peer, [("Host", "localhost")])


@pytest.mark.parametrize("in_pod", [True, False])
@pytest.mark.parametrize("peer", [*LOCAL_PEERS, *OTHER_PEERS, None])
def test_allow_unauthenticated_answers_every_address(
    make_settings: MakeSettings, peer: str | None, *, in_pod: bool
) -> None:
    callers = Callers(make_settings(ALLOW_UNAUTHENTICATED="true"), in_pod=in_pod)
    callers.check(API, peer, [("Host", "localhost"), ("X-Forwarded-For", "203.0.113.9")])
    assert not is_answered(callers, ("Host", "evil.example"), peer=peer)


def test_a_pod_is_detected_by_environment_or_service_account(tmp_path: Path) -> None:
    missing = tmp_path / "serviceaccount"
    assert not is_in_pod({"PATH": "/bin"}, missing)
    assert is_in_pod({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, missing)
    missing.mkdir()
    assert is_in_pod({}, missing)


LOCAL_HOSTS = [
    *("127.0.0.1", "127.0.0.1:8002", "192.0.2.7:80", "[::1]", "[::1]:8002", "[FD00::1]:8002", "[::ffff:127.0.0.1]"),
    *("localhost", "LOCALHOST:8002", "localhost.", "localhost.:8002", "provisioner:8002", "my_service", "a"),
    *("host.docker.internal:8002", "Host.Docker.Internal.", "127.0.0.1.:8002", "localhost:65535", "localhost:1"),
    *("sandbox-provisioner.deer-flow.svc:8002", "p.ns.svc.cluster.local.", "P.NS.SVC.Cluster.Local:80", "a.svc"),
]
FOREIGN_HOSTS = [
    *("evil.example", "evil.example:8002", "localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io"),
    *("svc.evil.example", "evilsvc.x", "a.svc.cluster.example", "a.cluster.local", "docker.internal", "a.localhost"),
    *("x.host.docker.internal", "127.1", "0177.0.0.1", "1.2.3.4.5", "a.svc.x", "evil.example."),
]
INVALID_HOSTS = [
    *("", " ", ".", "..", ":", ":8002", "localhost:", "localhost:0", "localhost:65536", "localhost:99999"),
    *(
        "localhost:-1",
        "localhost:+1",
        "localhost:8002:8002",
        "localhost:http",
        "localhost: 80",
        "localhost:\uff18\uff10",
    ),
    *("user@localhost", "user:password@localhost", "@localhost", "localhost@", "localhost, localhost"),
    *(
        "localhost..",
        ".localhost",
        "a..svc",
        ".svc",
        "-a",
        "a-",
        "local host",
        "localhost/",
        "localhost?",
        "localhost#",
    ),
    *(
        "http://localhost",
        "[::1",
        "::1",
        "::1]",
        "[::1]x",
        "[]",
        "[localhost]",
        "[127.0.0.1]",
        "[::1%25eth0]",
        "[::1%lo]",
    ),
    *(
        "[::1].",
        "localhost\x00",
        "localhost\t",
        "*",
        "%6c",
        "l\u043ecalhost",
        "\u212a",
        "\udcff",
        "a" * 64,
        "a." * 127 + "svc",
    ),
    *("localhost\r\nX: y", "localhost\n", "localhost:8002\n"),
]


@pytest.mark.parametrize("path", [API, "/api/none", "/metrics"])
@pytest.mark.parametrize("host", LOCAL_HOSTS)
def test_local_host_names_are_accepted(callers: Callers, host: str, path: str) -> None:
    assert is_answered(callers, ("Host", host), path=path)


@pytest.mark.parametrize("path", [API, "/api/none", "/metrics"])
@pytest.mark.parametrize("host", [*FOREIGN_HOSTS, *INVALID_HOSTS])
def test_foreign_and_invalid_hosts_are_rejected(callers: Callers, host: str, path: str) -> None:
    assert not is_answered(callers, ("Host", host), path=path)


@pytest.mark.parametrize("host", INVALID_HOSTS)
def test_an_invalid_authority_is_not_parsed(host: str) -> None:
    assert parse_authority(host) is None


def test_a_request_without_a_host_header_is_rejected(callers: Callers) -> None:
    assert not is_answered(callers)
    assert not is_answered(callers, ("Origin", "http://localhost"))


def test_a_rejection_names_the_host_and_the_setting(callers: Callers) -> None:
    with pytest.raises(BrowserRefused) as caught:
        callers.check(API, "127.0.0.1", [("Host", "Sandboxes.Example.:8002")])
    assert caught.value.public == (
        "Without an API key the name sandboxes.example in the header Host is not allowed: "
        "use an IP address, or add it to ALLOWED_HOSTS"
    )
    assert caught.value.detail == "peer: 127.0.0.1, host: 'Sandboxes.Example.:8002'"


def test_only_the_exact_names_in_allowed_hosts_are_accepted(make_settings: MakeSettings) -> None:
    callers = Callers(make_settings(ALLOWED_HOSTS="Sandboxes.Example., p.deer-flow"), in_pod=False)
    for host in ("sandboxes.example", "SANDBOXES.example.:8002", "p.deer-flow:80", "localhost", "host.docker.internal"):
        assert is_answered(callers, ("Host", host))
    for host in ("a.sandboxes.example", "sandboxes.example.evil", "evil-sandboxes.example", "deer-flow.p"):
        assert not is_answered(callers, ("Host", host))


@pytest.mark.parametrize(
    "value", ["a:80", "http://a", "*.a.example", "a/b", "-a", "b\u00fccher.example", "\u212a.example", "[::1]"]
)
def test_an_invalid_name_in_allowed_hosts_stops_the_start(make_settings: MakeSettings, value: str) -> None:
    with pytest.raises(StartupError, match=r"ALLOWED_HOSTS holds .* It may hold host names, separated by commas or"):
        make_settings(ALLOWED_HOSTS=value)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("localhost:8002", "http://localhost:8002"),
        ("LOCALHOST:8002", "HTTP://localhost.:8002"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost", "http://localhost:80"),
        ("localhost:443", "https://localhost"),
        ("[::1]:8002", "http://[0::1]:8002"),
        ("127.0.0.1:8002", "http://127.0.0.1:8002"),
    ],
)
def test_a_same_origin_request_is_accepted(callers: Callers, host: str, origin: str) -> None:
    assert is_answered(callers, ("Host", host), ("Origin", origin))


@pytest.mark.parametrize("host", ["localhost:8002", "localhost", "127.0.0.1:8002"])
@pytest.mark.parametrize(
    "origin",
    [
        *("null", "NULL", "", "http://evil.example", "http://localhost:8003", "https://localhost", "http://[::1]:8002"),
        *("http://localhost:8002/", "http://localhost:8002/api", "http://a@localhost:8002", "localhost:8002"),
        *("http://localhost:8002 http://evil.example", "http://localhost:8002, http://localhost:8002", "http://"),
        *("file://", "chrome-extension://localhost:8002", "http:localhost:8002", " http://localhost:8002"),
        *("http://localhost:0", "http://localhost:x", "http://localhost:8002\n", "http://localhost:8002\udcff"),
    ],
)
def test_a_cross_origin_request_is_rejected(callers: Callers, host: str, origin: str) -> None:
    assert not is_answered(callers, ("Host", host), ("Origin", origin))


@pytest.mark.parametrize("site", ["same-origin", "none", "Same-Origin", "NONE"])
def test_same_origin_fetch_metadata_is_accepted(callers: Callers, site: str) -> None:
    assert is_answered(callers, ("Host", "localhost"), ("Sec-Fetch-Site", site))


@pytest.mark.parametrize("site", ["cross-site", "same-site", "", "null", "none, none", "none ", "n\u043ene", "\udcff"])
def test_cross_site_fetch_metadata_is_rejected(callers: Callers, site: str) -> None:
    assert not is_answered(callers, ("Host", "localhost"), ("Sec-Fetch-Site", site))


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("Host", "localhost", "evil.example"),
        ("Host", "localhost", ""),
        ("Origin", "http://localhost", "http://evil.example"),
        ("Origin", "http://localhost", "null"),
        ("Sec-Fetch-Site", "none", "cross-site"),
    ],
)
def test_every_value_of_a_repeated_header_must_pass(callers: Callers, name: str, good: str, bad: str) -> None:
    host = [] if name == "Host" else [("Host", "localhost")]
    assert is_answered(callers, *host, (name, good), (name.upper(), good))
    assert not is_answered(callers, *host, (name, good), (name.upper(), bad))
    assert not is_answered(callers, *host, (name, bad), (name.upper(), good))


def test_an_origin_must_match_every_host_header(callers: Callers) -> None:
    hosts = (("Host", "localhost"), ("Host", "127.0.0.1"))
    assert is_answered(callers, *hosts)
    assert not is_answered(callers, *hosts, ("Origin", "http://localhost"))


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/docs", "/openapi.json", "/", "/api", "/metricsx"])
def test_health_and_documentation_are_open_to_every_caller(make_settings: MakeSettings, path: str) -> None:
    headers = [("Host", "evil.example"), ("Sec-Fetch-Site", "cross-site"), ("X-Forwarded-For", "203.0.113.9")]
    Callers(make_settings(), in_pod=True).check(path, "203.0.113.9", headers)


def test_metrics_are_open_to_every_address(make_settings: MakeSettings) -> None:
    Callers(make_settings(), in_pod=True).check("/metrics", "203.0.113.9", [("Host", "10.0.0.1:8002")])


@pytest.mark.parametrize(
    ("variables", "in_pod", "message"),
    [
        ({}, False, "Callers that reach 127.0.0.1:8002 from a loopback or private address, without a proxy's "),
        ({}, True, "This is a Pod, so every request under /api/ gets 401: set PROVISIONER_API_KEY, or ALLOW_"),
        (
            {"ALLOW_UNAUTHENTICATED": "true"},
            False,
            "ALLOW_UNAUTHENTICATED is true: every caller that reaches 127.0.0.1:8002",
        ),
        (
            {"ALLOW_UNAUTHENTICATED": "true"},
            True,
            "ALLOW_UNAUTHENTICATED is true: every caller that reaches 127.0.0.1:8002",
        ),
    ],
)
def test_who_is_answered_describes_the_accepted_callers(
    make_settings: MakeSettings,
    variables: dict[str, str],
    in_pod: bool,
    message: str,
) -> None:
    assert Callers(make_settings(**variables), in_pod=in_pod).who_is_answered("127.0.0.1:8002").startswith(message)


# As aiohttp decodes a header: UTF-8, and other bytes as surrogates.
ANY = st.binary(max_size=40).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
HOST = st.sampled_from([*LOCAL_HOSTS, *FOREIGN_HOSTS, *INVALID_HOSTS]) | ANY
ORIGIN = st.sampled_from(["null", "http://localhost:8002"]) | HOST.map("http://{}".format) | ANY
SITE = st.sampled_from(["same-origin", "none", "cross-site"]) | ANY


@given(hosts=st.lists(HOST, max_size=2), origins=st.lists(ORIGIN, max_size=2), sites=st.lists(SITE, max_size=2))
def test_any_headers_are_accepted_or_rejected_with_a_serializable_message(
    hosts: list[str], origins: list[str], sites: list[str]
) -> None:
    callers = Callers(Settings(), in_pod=False)
    named = (("Host", hosts), ("Origin", origins), ("Sec-Fetch-Site", sites))
    headers = [(name, value) for name, values in named for value in values]
    refused: BrowserRefused | None = None
    try:
        callers.check(API, "127.0.0.1", headers)
    except BrowserRefused as error:
        refused = error
    if refused is not None:
        assert to_json({"detail": refused.public})
        assert refused.detail.isascii()
        assert refused.detail.isprintable()
        return
    assert hosts
    assert not set(hosts) & {*FOREIGN_HOSTS, *INVALID_HOSTS}
    assert "null" not in origins
    assert {site.lower() for site in sites} <= {"same-origin", "none"}


def test_names_of_services_are_ours_in_the_clusters_own_domain_alone(make_settings: MakeSettings) -> None:
    callers = Callers(make_settings(CLUSTER_DOMAIN="k8s.example.com"), in_pod=False)
    assert is_answered(callers, ("Host", "p.ns.svc.k8s.example.com:8002"))
    assert is_answered(callers, ("Host", "p.ns.svc"))
    for foreign in ("p.ns.svc.cluster.local", "k8s.example.com", "p.k8s.example.com", "svc.k8s.example.com"):
        assert not is_answered(callers, ("Host", foreign))
