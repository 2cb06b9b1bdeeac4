"""The accesses: URL, wholeness and objects of each, which one an existing sandbox has, and the checks of the start."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sandboxes import objects as kube
from sandboxes.access.accesses import Accesses
from sandboxes.access.gateway import subject_of
from sandboxes.access.keys import FileKeys, ProcessKey
from sandboxes.access.start import gateway_keys
from sandboxes.access.tokens import mint
from sandboxes.errors import StartupError
from sandboxes.ops.doctor import gateway_line
from sandboxes.ops.lines import Verdict
from sandboxes.ops.rights import rights_wanted
from sandboxes.service.attempt import marks_only
from sandboxes.service.reaper import due_of
from sandboxes.service.unreachable import unreachable
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build, build_pair
from sandboxes.spec.options import Sandbox
from sandboxes.spec.replaced import replaced_fields
from sandboxes.spec.templates import Template
from sandboxes.status.response import Answers, answer_for, reconciliation_for
from tests.unit.manifests import AT, revision_of

MakeSettings = Callable[..., Settings]

GATEWAY = {"SANDBOX_ACCESS": "gateway", "SANDBOX_GATEWAY_DIAL": "pod-ip"}
NO_TUNNEL = "SANDBOX_GATEWAY_DIAL={} means a tunnel{}, which this version does not have yet: set it to `pod-ip` if "
LOCAL = "http://127.0.0.1:8003"


class FixedKeys:
    """Keys that a test changes."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = keys

    def current(self) -> tuple[bytes, ...]:
        return self.keys


def stored(template: Template, settings: Settings, number: int = 30123) -> tuple[Any, Any]:
    """Return the Pod and the Service of sandbox `a` as a cluster has them."""
    pod, service = build_pair(Sandbox("a", "t", "u"), template, settings, applied_at=AT)
    for obj in (pod, service):
        obj["metadata"] |= {"uid": f"uid-of-{obj['kind']}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    pod["status"] = {"phase": "Running", "podIP": "10.0.0.7"}
    service["spec"]["ports"][0]["nodePort"] = number
    return pod, service


@pytest.mark.parametrize(
    ("base", "prefix"),
    [
        ("https://door.example/", "https://door.example/s/a/"),
        ("https://{sandbox_id}.door.example:8443", "https://a.door.example:8443/s/a/"),
        ("", f"{LOCAL}/s/a/"),
    ],
)
def test_the_url_of_the_gateway_has_the_id_and_the_token(
    make_settings: MakeSettings, template: Template, base: str, prefix: str
) -> None:
    settings, keys = make_settings(**GATEWAY, SANDBOX_GATEWAY_URL=base), ProcessKey()
    accesses = Accesses(settings, keys)
    pod, _ = stored(template, settings)
    assert accesses.of(pod, None) is accesses.new
    assert accesses.new.url(pod, None) == prefix + mint(subject_of(pod, settings), keys)
    assert not accesses.new.needs_service


def test_a_token_is_for_the_port_on_which_the_pods_server_listens(
    make_settings: MakeSettings, template: Template
) -> None:
    pod, _ = stored(template, make_settings(**GATEWAY, SANDBOX_CONTAINER_PORT="9000"))
    pod["metadata"]["annotations"][kube.URL_GENERATION_ANNOTATION] = "g"
    settings = make_settings(**GATEWAY, K8S_NAMESPACE="other")
    assert subject_of(pod, settings) == ("default", "other", "a", "uid-of-Pod", 9000, "g")


def test_the_gateway_needs_the_pod_alone_and_no_service_matters(
    make_settings: MakeSettings, template: Template
) -> None:
    settings = make_settings(**GATEWAY)
    accesses = Accesses(settings, ProcessKey())
    pod, service = stored(template, settings)
    going = copy.deepcopy(service)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    answers = [answer_for(pod, one, accesses) for one in (None, service, going)]
    assert answers[0] is not None
    assert answers[0] == answers[1] == answers[2]
    assert accesses.of(pod, None).is_whole(pod, None)
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert answer_for(pod, service, accesses) is None
    assert not accesses.of(pod, None).is_whole(pod, None)
    assert reconciliation_for("a", pod, None, accesses).sandbox_url == answers[0].sandbox_url


def test_only_the_pods_own_address_is_probed_behind_the_gateway(
    make_settings: MakeSettings, template: Template
) -> None:
    settings = make_settings(**GATEWAY)
    access = Accesses(settings, ProcessKey()).new
    pod, _ = stored(template, settings)
    assert access.probed_url(pod, None) == "http://10.0.0.7:8080"
    pod["status"]["podIP"] = "fd00::7"
    assert access.probed_url(pod, None) == "http://[fd00::7]:8080"
    assert access.probed_url({**pod, "status": {}}, None) is None
    assert access.probed_url({**pod, "spec": {**pod["spec"], "hostNetwork": True}}, None) is None


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"NODE_HOST": "n"}, "http://n:30123"),
        ({"NODE_HOST": "n", "SANDBOX_ACCESS": "node-port"}, "http://n:30123"),
        ({"SANDBOX_ACCESS": "cluster-ip"}, "http://sandbox-a-svc.deer-flow.svc.cluster.local:8080"),
        ({"SANDBOX_SERVICE_TYPE": "ClusterIP"}, "http://sandbox-a-svc.deer-flow.svc.cluster.local:8080"),
    ],
)
def test_a_sandbox_with_a_service_keeps_its_url_in_a_service_with_the_gateway(
    make_settings: MakeSettings, template: Template, variables: dict[str, str], url: str
) -> None:
    before = make_settings(**variables)
    pod, service = stored(template, before)
    assert kube.ACCESS_ANNOTATION not in pod["metadata"]["annotations"]
    now = Accesses(make_settings(NODE_HOST="n", **GATEWAY), ProcessKey())
    for accesses in (Accesses(before), now):
        access = accesses.of(pod, service)
        assert access.url(pod, service) == access.probed_url(pod, service) == url
        assert access.is_whole(pod, service)
        assert not access.is_whole(pod, None)
        assert access.needs_service


@pytest.mark.parametrize("is_configured", [True, False])
def test_a_mark_of_the_gateway_holds_while_it_is_configured(
    make_settings: MakeSettings, template: Template, is_configured: bool
) -> None:
    pod, service = stored(template, make_settings(**GATEWAY))
    variables = {"SANDBOX_GATEWAY_URL": "http://g"} if is_configured else {}
    settings = make_settings(SANDBOX_ACCESS="node-port", SANDBOX_GATEWAY_DIAL="", NODE_HOST="n", **variables)
    assert settings.has_gateway is is_configured
    accesses = Accesses(settings, ProcessKey() if is_configured else None)
    assert accesses.new.needs_service
    assert accesses.of(pod, service).needs_service is not is_configured
    answer = answer_for(pod, None, accesses)
    assert (answer is not None) is is_configured
    url = accesses.of(pod, service).url(pod, service)
    assert str(url).startswith("http://g/s/a/" if is_configured else "http://n:30123")


def test_the_gateways_mark_is_part_of_the_revision_and_of_no_other_pod(
    make_settings: MakeSettings, template: Template
) -> None:
    sandbox = Sandbox("a", "t", "u")
    plain, service = build(sandbox, template, make_settings(), applied_at=AT)
    (marked,) = build(sandbox, template, make_settings(**GATEWAY), applied_at=AT)
    assert revision_of(plain) != revision_of(marked)
    assert marked["metadata"]["annotations"].pop(kube.ACCESS_ANNOTATION) == "gateway"
    assert marked["metadata"] == plain["metadata"]
    assert service["spec"]["type"] == "NodePort"


def test_a_template_cannot_set_how_its_sandboxes_are_reached(make_settings: MakeSettings, template: Template) -> None:
    template.pod["metadata"].setdefault("annotations", {})[kube.ACCESS_ANNOTATION] = "gateway"
    assert [obj["kind"] for obj in build(Sandbox("a", "t", "u"), template, make_settings(), applied_at=AT)] == [
        "Pod", "Service",
    ]  # fmt: skip


def test_the_marks_of_an_adoption_do_not_say_how_a_pod_is_reached(
    make_settings: MakeSettings, template: Template
) -> None:
    pod, _ = stored(template, make_settings(**GATEWAY))
    assert kube.ACCESS_ANNOTATION not in marks_only(pod, pod)["metadata"]["annotations"]


def test_a_template_without_its_service_has_no_replaced_fields(make_settings: MakeSettings, template: Template) -> None:
    assert replaced_fields("default", template, make_settings(**GATEWAY)) == []


def test_cached_responses_are_renewed_when_another_key_signs(make_settings: MakeSettings, template: Template) -> None:
    settings, keys = make_settings(**GATEWAY), FixedKeys(b"1" * 44)
    answers = Answers(Accesses(settings, keys))
    rotated: list[None] = []
    answers.rotated.connect(lambda: rotated.append(None))
    pod, _ = stored(template, settings)
    first = answers.of(pod, None)
    keys.keys = (b"1" * 44, b"2" * 44)
    assert answers.of(pod, None) is first
    keys.keys = (b"2" * 44, b"1" * 44)
    assert answers.of_all([(pod, None)]) != [first]
    assert rotated == [None]


def test_a_marked_pod_is_never_half_and_what_has_no_url_is_counted(
    make_settings: MakeSettings, template: Template
) -> None:
    settings = make_settings()
    marked, service = stored(template, make_settings(**GATEWAY))
    plain, _ = stored(template, settings)
    late = datetime(2026, 6, 1, tzinfo=UTC)
    assert due_of([marked], settings, late) == due_of([marked, service], settings, late) == []
    service["metadata"]["annotations"][kube.REFUSED_ANNOTATION] = AT
    assert due_of([marked, service], settings, late) == []
    assert len(due_of([plain], settings, late)) == len(due_of([service], settings, late)) == 1
    assert (unreachable([marked]), unreachable([marked, service]), unreachable([plain])) == (1, 0, 0)
    marked["metadata"]["annotations"][kube.REFUSED_ANNOTATION] = AT
    assert [one.kind for one in due_of([marked], settings, late)] == ["half"]


def test_the_gateway_needs_no_right_to_make_services(make_settings: MakeSettings, template: Template) -> None:
    templates = {"default": template}
    assert "create" in rights_wanted(templates, make_settings())["services"].needed
    services = rights_wanted(templates, make_settings(**GATEWAY, SANDBOX_IDLE_TIMEOUT="60"))["services"]
    assert set(services.needed) == {"get", "list", "watch"}
    assert set(services.optional) == {"create", "delete", "patch"}


def started(settings: Settings, *, in_pod: bool = False, is_own_process: bool = False) -> object:
    return gateway_keys(settings, [settings], in_pod=in_pod, is_own_process=is_own_process)


def test_without_a_gateway_nothing_is_checked(make_settings: MakeSettings) -> None:
    assert started(make_settings(), in_pod=True) is None
    assert gateway_line(make_settings(), in_pod=True) is None


def test_a_cluster_of_the_file_with_the_gateway_needs_its_settings(make_settings: MakeSettings) -> None:
    service = make_settings()
    east = service.model_copy(update={"sandbox_access": "gateway"})
    with pytest.raises(StartupError, match="SANDBOX_GATEWAY_DIAL=auto"):
        gateway_keys(service, [service, east], in_pod=False)


def test_a_process_outside_a_pod_makes_a_key_and_warns(
    make_settings: MakeSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(started(make_settings(**GATEWAY)), ProcessKey)
    assert "all URLs end with this process" in caplog.text


def test_keys_of_a_file_are_used_wherever_the_process_runs(make_settings: MakeSettings, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("k" * 44)
    settings = make_settings(**GATEWAY, SANDBOX_GATEWAY_KEYS_FILE=str(path))
    for in_pod in (True, False):
        assert isinstance(started(settings, in_pod=in_pod, is_own_process=in_pod), FileKeys)


@pytest.mark.parametrize(
    ("variables", "where", "sentence"),
    [
        ({"SANDBOX_GATEWAY_DIAL": "auto"}, {}, NO_TUNNEL.format("auto", " outside a Pod")),
        ({"SANDBOX_GATEWAY_DIAL": "tunnel"}, {}, NO_TUNNEL.format("tunnel", "")),
        ({"SANDBOX_GATEWAY_DIAL": "tunnel"}, {"in_pod": True}, NO_TUNNEL.format("tunnel", "")),
        ({"LISTEN_HOST": "10.0.0.1"}, {}, "SANDBOX_GATEWAY_URL is unset: where the gateway listens on other addresses"),
        ({"SANDBOX_GATEWAY_HOST": "127.0.0.1,10.0.0.1"}, {}, "SANDBOX_GATEWAY_URL is unset"),
        ({}, {"in_pod": True}, "SANDBOX_GATEWAY_KEYS_FILE is unset: in a Pod, the keys"),
        ({}, {"is_own_process": True}, "SANDBOX_GATEWAY_KEYS_FILE is unset: where the gateway is a process of its own"),
        ({"SANDBOX_GATEWAY_SERVE": "false"}, {}, "where the gateway is a process of its own, the keys"),
        ({"LIVE_VIEW": "false"}, {}, "LIVE_VIEW=false leaves the gateway without a view"),
        ({"SANDBOX_GATEWAY_PORT": "8002"}, {}, "SANDBOX_GATEWAY_PORT and LISTEN_PORT are both 8002"),
        ({"LISTEN_PORT": "8003"}, {"is_own_process": True}, "SANDBOX_GATEWAY_PORT and LISTEN_PORT are both 8003"),
        ({"SANDBOX_GATEWAY_KEYS_FILE": "/missing"}, {}, "The file that SANDBOX_GATEWAY_KEYS_FILE names can't be read"),
    ],
)  # fmt: skip
def test_settings_of_the_gateway_that_cannot_work_stop_the_start(
    make_settings: MakeSettings, variables: dict[str, str], where: dict[str, bool], sentence: str
) -> None:
    settings = make_settings(**(GATEWAY | variables))
    with pytest.raises(StartupError) as error:
        started(settings, **where)
    assert sentence in str(error.value)
    if not where.get("is_own_process"):
        line = gateway_line(settings, in_pod=where.get("in_pod", False))
        assert line is not None
        assert line.verdict is Verdict.FAIL
        assert sentence in line.text


def test_the_gateway_may_have_the_services_port_on_another_host(make_settings: MakeSettings) -> None:
    apart = {"LISTEN_HOST": "127.0.0.1", "SANDBOX_GATEWAY_HOST": "127.0.0.2", "SANDBOX_GATEWAY_PORT": "8002"}
    assert isinstance(started(make_settings(**GATEWAY, **apart)), ProcessKey)


def test_a_refused_start_names_the_variable_that_makes_a_gateway_where_no_sandbox_needs_it(
    make_settings: MakeSettings,
) -> None:
    why = "There is a gateway because SANDBOX_GATEWAY_PORT is set."
    with pytest.raises(StartupError, match=why):
        started(make_settings(SANDBOX_GATEWAY_PORT="9000"))
    with pytest.raises(StartupError) as error:
        started(make_settings(SANDBOX_GATEWAY_PORT="9000", SANDBOX_ACCESS="gateway"))
    assert why not in str(error.value)


@pytest.mark.parametrize("variables", [{"LIVE_VIEW": "false"}, {"LISTEN_PORT": "8003"}])
def test_a_service_whose_gateway_runs_elsewhere_needs_neither_a_view_nor_another_port(
    make_settings: MakeSettings, tmp_path: Path, variables: dict[str, str]
) -> None:
    path = tmp_path / "keys"
    path.write_text("k" * 44)
    elsewhere = {"SANDBOX_GATEWAY_SERVE": "false", "SANDBOX_GATEWAY_KEYS_FILE": str(path)}
    assert isinstance(started(make_settings(**GATEWAY, **elsewhere, **variables)), FileKeys)


def test_check_names_the_begin_of_the_urls(make_settings: MakeSettings) -> None:
    line = gateway_line(make_settings(**GATEWAY), in_pod=False)
    assert line is not None
    assert (line.verdict, line.text) == (Verdict.OK, f"gateway: URLs begin with {LOCAL}")


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, LOCAL),
        ({"SANDBOX_GATEWAY_PORT": "9"}, "http://127.0.0.1:9"),
        ({"LISTEN_HOST": "10.0.0.1", "SANDBOX_GATEWAY_HOST": "localhost"}, LOCAL),
        ({"SANDBOX_GATEWAY_HOST": "::1"}, "http://[::1]:8003"),
        ({"SANDBOX_GATEWAY_HOST": "::1,127.0.0.1"}, LOCAL),
        ({"PROVISIONER_API_KEY": "k"}, None),
    ],
)
def test_the_default_url_of_the_gateway_is_that_of_loopback(
    make_settings: MakeSettings, variables: dict[str, str], url: str | None
) -> None:
    assert make_settings(**GATEWAY, **variables).gateway_url == url


@pytest.mark.parametrize(("access", "kind"), [("node-port", "ClusterIP"), ("cluster-ip", "NodePort")])
def test_an_access_against_the_service_type_stops_the_start(
    make_settings: MakeSettings, access: str, kind: str
) -> None:
    with pytest.raises(StartupError, match=f"SANDBOX_ACCESS is {access}, but SANDBOX_SERVICE_TYPE is {kind}"):
        make_settings(SANDBOX_ACCESS=access, SANDBOX_SERVICE_TYPE=kind)
    assert make_settings(SANDBOX_ACCESS=access, SANDBOX_SERVICE_TYPE="").access == access
    assert make_settings(SANDBOX_ACCESS="gateway", SANDBOX_SERVICE_TYPE=kind).service_type == kind


@pytest.mark.parametrize(
    "url",
    [
        "gateway.example", "http://", "ftp://gateway.example", "http://gateway.example/a", "http://gateway.example?q",
        "http://user@gateway.example", "http://gateway.example:0", "http://gateway.example:65536", "http://[::1",
        "http://-", "http://...", "http://a..b", "http://a-.example", "http://{sandbox_id}.{sandbox_id}.example",
        "http://gateway.example:{sandbox_id}", f"http://{'a' * 64}.example", "http://" + "a." * 127 + "example",
        "http://{sandbox_id}" + "a" * 63 + ".example",
    ],
)  # fmt: skip
def test_a_url_of_the_gateway_that_no_caller_can_use_stops_the_start(make_settings: MakeSettings, url: str) -> None:
    with pytest.raises(StartupError, match=r"SANDBOX_GATEWAY_URL holds .* It may hold `http://HOST`"):
        make_settings(SANDBOX_GATEWAY_URL=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://gateway",
        "https://a-b.example:8443",
        "http://10.0.0.1",
        "http://[::1]:80",
        "https://{sandbox_id}.s.example",
    ],
)
def test_a_url_of_the_gateway_has_no_final_slash(make_settings: MakeSettings, url: str) -> None:
    assert make_settings(SANDBOX_GATEWAY_URL=f"{url}/").gateway_url == url
