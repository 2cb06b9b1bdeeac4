"""The environment: valid values of each variable, and the errors for others."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.errors import StartupError
from sandboxes.kubectl.kubeconfig_files import named_kubeconfigs
from sandboxes.settings import Settings
from tests.marker import MARKER

MakeSettings = Callable[..., Settings]


def test_defaults_are_those_of_the_contract(make_settings: MakeSettings) -> None:
    settings = make_settings()
    assert settings.k8s_namespace == "deer-flow"
    assert settings.sandbox_image == (
        "enterprise-public-cn-beijing.cr.volces.com/vefaas-public/all-in-one-sandbox:latest"
    )
    assert settings.skills_host_path is None
    assert settings.threads_host_path is None
    assert named_kubeconfigs(settings) == (Path("~/.kube/config").expanduser(),)
    assert settings.node_host == "host.docker.internal"
    assert settings.k8s_api_server is None
    assert settings.provisioner_api_key is None
    assert settings.sandbox_service_type == "NodePort"
    assert settings.sandbox_container_port == 8080
    assert settings.deer_flow_host_base_dir is None
    assert settings.listen_port == 8002
    assert settings.skills_pvc_name is None
    assert settings.userdata_pvc_name is None


def test_an_empty_value_counts_as_unset(make_settings: MakeSettings) -> None:
    settings = make_settings(SANDBOX_IMAGE="", K8S_API_SERVER="", PORT="", PROVISIONER_API_KEY="")
    assert settings == make_settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("K8S_NAMESPACE", "Deer"),
        ("K8S_NAMESPACE", "a" * 64),
        ("K8S_NAMESPACE", "--all-namespaces"),
        ("SANDBOX_IMAGE", "an image"),
        ("SKILLS_HOST_PATH", "../skills"),
        ("SKILLS_HOST_PATH", "~/skills"),
        ("THREADS_HOST_PATH", "/data/../etc"),
        ("THREADS_HOST_PATH", "/data\nx"),
        ("DEER_FLOW_HOST_BASE_DIR", "relative"),
        ("NODE_HOST", "http://host"),
        ("NODE_HOST", "host:80"),
        ("NODE_HOST", "a/b"),
        ("K8S_API_SERVER", "host:6443"),
        ("K8S_API_SERVER", "ftp://host"),
        ("K8S_API_SERVER", "https://"),
        ("K8S_API_SERVER", "https://["),
        ("K8S_API_SERVER", "https://user@host"),
        ("K8S_API_SERVER", "https://:password@host"),
        ("K8S_API_SERVER", "https://host:port"),
        ("PROVISIONER_API_KEY", "schlüssel"),
        ("PROVISIONER_API_KEY", "key\n"),
        ("SANDBOX_SERVICE_TYPE", "LoadBalancer"),
        ("SANDBOX_CONTAINER_PORT", "0"),
        ("SANDBOX_CONTAINER_PORT", "65536"),
        ("SANDBOX_CONTAINER_PORT", "http"),
        ("PORT", "-1"),
        ("SKILLS_PVC_NAME", "Claim"),
        ("USERDATA_PVC_NAME", "a b"),
        ("SANDBOX_SECCOMP", "None"),
        ("SANDBOX_STARTUP_FAILURE_THRESHOLD", "0"),
        ("K8S_INSECURE_SKIP_TLS_VERIFY", "maybe"),
        ("KUBECTL_PASS_ENV", "A=B"),
        ("KUBECTL_PASS_ENV", "KUBERC"),
        ("KUBECTL_PASS_ENV", "AWS_PROFILE,KUBECTL_KUBERC"),
        ("KUBECTL_PASS_ENV", "KUBECONFIG"),
        ("KUBECTL_MAX_PROCESSES", "0"),
        ("LOG_LEVEL", "LOUD"),
        ("MAX_CPU", "two"),
        ("MAX_CPU", "0"),
        ("MAX_MEMORY", "-1Gi"),
        ("MAX_MEMORY", "4 GB"),
        ("MAX_EPHEMERAL_STORAGE", "8Ei"),
        ("ALLOW_FIELDS", "image,sandbox_id"),
        ("ALLOW_FIELDS", "image,none"),
    ],
)
def test_an_invalid_value_stops_the_start_with_the_variables_name(
    make_settings: MakeSettings, variable: str, value: str
) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(**{variable: value})
    assert variable in str(caught.value)


def test_all_invalid_variables_are_reported_together_with_their_values(make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(K8S_NAMESPACE="Deer", PORT="x", SANDBOX_SERVICE_TYPE="LoadBalancer")
    message = str(caught.value)
    assert "K8S_NAMESPACE holds 'Deer'. It may hold lower-case letters" in message
    assert "PORT holds 'x'. It should be a valid integer" in message
    assert "SANDBOX_SERVICE_TYPE holds 'LoadBalancer'. It should be 'NodePort' or 'ClusterIP'" in message


def test_the_api_key_is_shown_in_no_message_and_no_repr(make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(PROVISIONER_API_KEY=" topsecret ")
    assert "topsecret" not in str(caught.value)
    assert "topsecret" not in repr(make_settings(PROVISIONER_API_KEY="topsecret"))


@pytest.mark.parametrize("key", ["ab,cd", "key,", "a, ,b", ","])
def test_the_api_key_may_contain_commas(make_settings: MakeSettings, key: str) -> None:
    secret = make_settings(PROVISIONER_API_KEY=key).provisioner_api_key
    assert secret is not None
    assert secret.get_secret_value() == key


def test_a_password_in_an_address_is_shown_in_no_message(make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(K8S_API_SERVER="https://u:topsecret@host")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("K8S_API_SERVER", f"https://{MARKER}@host"),
        ("K8S_API_SERVER", f"https://u:{MARKER}/x@host"),
        ("K8S_API_SERVER", f"https://host?token={MARKER}"),
        ("K8S_API_SERVER", f"https://host#{MARKER}"),
        ("NODE_HOST", f"http://u:{MARKER}@host"),
        ("NODE_HOST", f"http://host/?token={MARKER}"),
        ("SANDBOX_IMAGE", f"https://u:{MARKER}@registry/image :1"),
        ("KUBECTL_PASS_ENV", f"AWS_PROFILE,AWS_SECRET_ACCESS_KEY={MARKER}"),
        ("KUBECONFIG_PATH", f"apiVersion: v1\nusers: [{{token: {MARKER}}}]"),
        ("KUBECONFIG_PATH", f'{{"apiVersion": "v1", "users": "{MARKER}"}}'),
        ("PORT", f"a line\n{MARKER}"),
        ("PORT", MARKER * 20),
    ],
)
def test_an_invalid_value_that_may_hold_a_secret_is_not_shown(
    make_settings: MakeSettings, variable: str, value: str
) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(**{variable: value})
    assert f"{variable} holds a value that is not shown. It" in str(caught.value)
    assert MARKER not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("K8S_API_SERVER", "host:6443"),
        ("K8S_API_SERVER", "ftp://host"),
        ("NODE_HOST", "http://host"),
        ("K8S_NAMESPACE", "a" * 64),
        ("SANDBOX_INGRESS_FROM", "namespace:a b"),
    ],
)
def test_an_invalid_value_that_holds_no_secret_is_shown(make_settings: MakeSettings, variable: str, value: str) -> None:
    with pytest.raises(StartupError, match=variable) as caught:
        make_settings(**{variable: value})
    assert value.split(maxsplit=1)[0] in str(caught.value)


def test_paths_on_the_node_are_normalized(make_settings: MakeSettings) -> None:
    assert make_settings(THREADS_HOST_PATH="/data//threads/").threads_host_path == "/data/threads"


def test_the_log_level_may_be_in_lower_case(make_settings: MakeSettings) -> None:
    assert make_settings(LOG_LEVEL="debug").log_level == "DEBUG"


def test_variables_for_credential_plugins_are_a_list_of_names(make_settings: MakeSettings) -> None:
    assert make_settings(KUBECTL_PASS_ENV="AWS_PROFILE, AWS_REGION").kubectl_pass_env == ("AWS_PROFILE", "AWS_REGION")


def test_kuberc_cannot_be_passed_to_kubectl_and_the_error_says_why(make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(KUBECTL_PASS_ENV="AWS_PROFILE,KUBERC")
    assert str(caught.value).partition("\n")[2] == (
        "  KUBECTL_PASS_ENV holds 'AWS_PROFILE,KUBERC'. It may hold names of environment variables, separated by "
        "commas, but not KUBECONFIG, KUBECTL_KUBERC or KUBERC: the service itself decides what kubectl reads."
    )


def test_maximum_resources_must_be_quantities(make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError) as caught:
        make_settings(MAX_CPU="two")
    assert "MAX_CPU holds 'two'. It may hold a Kubernetes quantity above 0, such as `500m`" in str(caught.value)
    settings = make_settings(MAX_CPU="1500m", MAX_MEMORY="2Gi", MAX_EPHEMERAL_STORAGE="1e10")
    assert (settings.max_cpu, settings.max_memory, settings.max_ephemeral_storage) == ("1500m", "2Gi", "1e10")


def test_allow_fields_is_a_list_of_names_or_none(make_settings: MakeSettings) -> None:
    assert make_settings(ALLOW_FIELDS="image, env").allow_fields == ("image", "env")
    assert make_settings(ALLOW_FIELDS="none").allow_fields == ()


@pytest.mark.parametrize(
    "value",
    [
        "{name}", "{}", "{user_id!r}", "{user_id:>9}", "{user_id.x}", "{user_id", "user_id}", "/users/{user_id}",
        "../{user_id}", "users/../{user_id}", "./users", "users//{user_id}", ".", "..", "users\n", "/", "{0}",
        "{{user_id}}", "a{{b", " ", " a", "a ",
    ],
)  # fmt: skip
def test_an_invalid_sub_path_of_the_skills_claim_stops_the_start(make_settings: MakeSettings, value: str) -> None:
    with pytest.raises(StartupError, match="SKILLS_PVC_SUBPATH_TEMPLATE holds"):
        make_settings(SKILLS_PVC_NAME="claim", SKILLS_PVC_SUBPATH_TEMPLATE=value)


def test_a_sub_path_without_a_skills_claim_stops_the_start(make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError, match="SKILLS_PVC_SUBPATH_TEMPLATE is set without SKILLS_PVC_NAME"):
        make_settings(SKILLS_PVC_SUBPATH_TEMPLATE="users/{user_id}", SKILLS_HOST_PATH="/skills")


def test_a_deny_list_without_a_broker_stops_the_start(make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError, match="DENY_SUBCOMMANDS is set without LARK_CLI_BROKER_IMAGE"):
        make_settings(DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS="auth")


@pytest.mark.parametrize(
    "path", ["relative", "/a/../b", "/a/{user}", "/a/{thread_id", "/a/{0}", "/a/{thread_id!r}", "/a/{{}}"]
)
def test_an_invalid_threads_path_stops_the_start(path: str, make_settings: MakeSettings) -> None:
    with pytest.raises(StartupError, match="THREADS_HOST_PATH"):
        make_settings(THREADS_HOST_PATH=path)


@pytest.mark.parametrize("variable", ["LARK_CLI_NPM_VERSION", "LARK_CLI_VERSION"])
def test_build_arguments_of_deerflows_env_file_are_ignored(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1.0.65")
    Settings.load()


@pytest.mark.parametrize("variable", ["LARK_CLI_NEXT", "DEERFLOW_LARK_NEXT"])
def test_an_unknown_variable_of_the_lark_cli_stops_the_start(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "")
    Settings.load()
    monkeypatch.setenv(variable, "secret-value")
    with pytest.raises(StartupError, match=f"{variable} is set, but this version") as raised:
        Settings.load()
    assert "secret-value" not in str(raised.value)
    monkeypatch.setenv("SANDBOX_CONTAINER_PORT", "none")
    with pytest.raises(StartupError, match=rf"SANDBOX_CONTAINER_PORT holds 'none'[^\n]*\n  {variable} is set"):
        Settings.load()


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"NODE_HOST": "n"}, []),
        ({"CLUSTER_DOMAIN": "d"}, []),
        (
            {"CLUSTER_DOMAIN": "d", "PROVISIONER_API_KEY": "k"},
            ["CLUSTER_DOMAIN (by SANDBOX_SERVICE_TYPE=NodePort)"],
        ),
        (
            {"NODE_HOST": "n", "SANDBOX_SERVICE_TYPE": "ClusterIP"},
            ["NODE_HOST (by SANDBOX_SERVICE_TYPE=ClusterIP)"],
        ),
        (
            {"SKILLS_HOST_PATH": "/s", "SKILLS_PVC_NAME": "c", "THREADS_HOST_PATH": "/t", "USERDATA_PVC_NAME": "c"},
            ["SKILLS_HOST_PATH (by SKILLS_PVC_NAME)", "THREADS_HOST_PATH (by USERDATA_PVC_NAME)"],
        ),
        ({"SANDBOX_INGRESS_FROM": "10.0.0.0/8"}, ["SANDBOX_INGRESS_FROM (by SANDBOX_NETWORK_POLICY=off)"]),
        (
            {"K8S_TLS_SERVER_NAME": "n", "K8S_INSECURE_SKIP_TLS_VERIFY": "true"},
            ["K8S_TLS_SERVER_NAME (by K8S_INSECURE_SKIP_TLS_VERIFY)"],
        ),
        ({"LIVE_VIEW": "false", "LIVE_VIEW_MAX_AGE": "5"}, ["LIVE_VIEW_MAX_AGE (by LIVE_VIEW=false)"]),
    ],
)
def test_overridden_variables_are_named(
    make_settings: MakeSettings, variables: dict[str, str], named: list[str]
) -> None:
    assert make_settings(**variables).overridden == named


@pytest.mark.parametrize(
    "template",
    [
        "{user_id}-{thread_id}",
        "{thread_id}{user_id}",
        "{user_id}{user_id}",
        "a/{user_id}.{thread_id}/b",
        "{user_id}-x-{thread_id}/",
    ],
)
def test_a_path_that_two_users_could_share_stops_the_start(make_settings: MakeSettings, template: str) -> None:
    for variables in (
        {"THREADS_HOST_PATH": f"/srv/{template}"},
        {"THREADS_HOST_PATH": "", "SKILLS_PVC_NAME": "claim", "SKILLS_PVC_SUBPATH_TEMPLATE": template},
    ):
        with pytest.raises(StartupError, match="at most one of them between two slashes"):
            make_settings(**variables)


def test_a_folder_may_have_one_placeholder_and_text_beside_it(make_settings: MakeSettings) -> None:
    settings = make_settings(
        THREADS_HOST_PATH="/srv/of-{user_id}.d/t-{thread_id}",
        SKILLS_PVC_NAME="claim",
        SKILLS_PVC_SUBPATH_TEMPLATE="of-{user_id}/{thread_id}-s",
    )
    assert settings.threads_host_path == "/srv/of-{user_id}.d/t-{thread_id}"
    assert settings.skills_pvc_subpath_template == "of-{user_id}/{thread_id}-s"
