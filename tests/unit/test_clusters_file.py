"""CLUSTERS_FILE: what an entry may hold, the settings of a cluster, and what a change of the file may do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxes.cluster_settings import ClusterSettings
from sandboxes.clusters_file import ClusterEntry, changes, in_question, parse
from sandboxes.settings import Settings
from tests.marker import MARKER

MakeSettings = Callable[..., Settings]

FULL = b"""
- name: east
  kubeconfig: /etc/kube/east
  context: prod-east
  namespace: sandboxes
  api_server: https://east:6443/
  tls_server_name: kubernetes
  node_host: 10.0.0.1
  access: cluster-ip
  templates_dir: /templates
  network_policy: isolated
  ingress_from: [10.0.0.0/8]
  max_sandboxes: 5
  weight: 3
  labels: {region: eu, example.com/tier: ""}
- name: west-2
  weight: 0
  lost: true
"""


def parsed(text: str | bytes) -> tuple[ClusterEntry, ...]:
    found = parse(text if isinstance(text, bytes) else text.encode())
    assert found.problems == ()
    return found.entries


def problems(text: str | bytes) -> tuple[str, ...]:
    found = parse(text if isinstance(text, bytes) else text.encode())
    assert found.entries == ()
    return found.problems


def test_an_entry_replaces_the_settings_of_its_cluster_only(make_settings: MakeSettings) -> None:
    service = make_settings(K8S_NAMESPACE="own", MAX_SANDBOXES="9", SANDBOX_IMAGE="sandbox:1")
    east, west = parsed(FULL)
    settings = east.for_service(service)
    assert settings.kubeconfig_path == Path("/etc/kube/east")
    assert settings.k8s_namespace == "sandboxes"
    assert settings.k8s_api_server == "https://east:6443"
    assert settings.k8s_tls_server_name == "kubernetes"
    assert settings.node_host == "10.0.0.1"
    assert (settings.access, settings.service_type) == ("cluster-ip", "ClusterIP")
    assert settings.sandbox_templates_dir == Path("/templates")
    assert settings.sandbox_network_policy == "isolated"
    assert settings.sandbox_ingress_from == ("10.0.0.0/8",)
    assert settings.max_sandboxes == 5
    assert settings.sandbox_image == "sandbox:1"
    assert west.for_service(service) == service


def test_weight_labels_context_and_lost_have_defaults() -> None:
    east, west = parsed(FULL)
    assert (east.context, east.weight, east.labels, east.lost) == (
        "prod-east", 3, {"region": "eu", "example.com/tier": ""}, False,
    )  # fmt: skip
    assert (west.context, west.weight, west.labels, west.lost) == (None, 0, {}, True)
    assert parsed("- name: a")[0].weight == 1


def test_every_setting_of_a_cluster_has_a_key() -> None:
    (problem,) = problems("- {name: a, nothing: 1}")
    assert problem.startswith("Entry 1 (line 1): 'nothing' is not a field. Fields are: name, context, weight, ")
    assert (
        len(problem.partition("Fields are: ")[2].split(", ")) == 5 + len(ClusterSettings.model_fields) - 2
    )  # KUBECONFIG, the list, and SANDBOX_SERVICE_TYPE


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ("name: East", "name holds 'East'. It may hold 1 to 40 lower-case letters, digits and `-`."),
        (f"name: {'a' * 41}", f"name holds '{'a' * 41}'. It may hold 1 to 40 lower-case letters, digits and `-`."),
        ("name: 5", "name holds 5. It should be a valid string."),
        ("weight: 1", "it has no name."),
        ("name: a, access: NodePort", "access holds 'NodePort'. It should be 'node-port', 'cluster-ip' or 'gateway'."),
        ("name: a, weight: -1", "weight holds -1. It should be greater than or equal to 0."),
        ("name: a, weight: 1.5", "weight holds 1.5. It should be a valid integer."),
        ("name: a, weight: true", "weight holds True. It should be a valid integer."),
        ("name: a, max_sandboxes: '3'", "max_sandboxes holds '3'. It should be a valid integer."),
        ("name: a, lost: 1", "lost holds 1. It should be a valid boolean."),
        ("name: a, lost: 'true'", "lost holds 'true'. It should be a valid boolean."),
        ("name: a, context: ''", "context holds ''. It may hold the name of a context of the kubeconfig."),
        ("name: a, kubeconfig: [x]", "kubeconfig holds ['x']. "),
        ("name: a, node_host: a/b", "node_host holds 'a/b'. It may hold a host name or an IP address, without"),
        ("name: a, labels: {a b: c}", "labels holds "),
        ("name: a, labels: {a: c d}", "labels holds "),
        ("name: a, labels: {a: 1}", "labels holds "),
        ("name: a, labels: [a]", "labels holds ['a']. "),
        ("name: a, K8S_NAMESPACE: b", "'K8S_NAMESPACE' is not a field. "),
    ],
)
def test_a_bad_field_is_a_problem_with_its_rule(fields: str, problem: str) -> None:
    (found,) = problems(f"- {{{fields}}}")
    assert found.startswith(f"Entry 1 (line 1): {problem}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "It must be a list of at least one cluster."),
        (b"[]", "It must be a list of at least one cluster."),
        (b"name: a", "It must be a list of at least one cluster."),
        (b"- {name: a}\n---\n- {name: b}", "It must be a list of at least one cluster."),
        (b"- {name: a", "It can't be read: it is not valid YAML"),
        (b"- name: \xff", "It can't be read: it is not UTF-8"),
        (b"- east", "Entry 1 (line 1) must be a mapping with the cluster's name and settings."),
    ],
)
def test_a_file_that_is_no_list_of_clusters_has_one_problem(content: bytes, problem: str) -> None:
    (found,) = problems(content)
    assert found.startswith(problem)


def test_all_problems_of_a_file_are_listed_with_their_lines() -> None:
    found = problems("- {name: a, wait: 1}\n- name: b\n  weight: x\n  lost: 3\n- name: b\n- 5\n")
    assert [one.partition(":")[0] for one in found] == [
        "Entry 1 (line 1)", "Entry 2 (line 2)", "Entry 2 (line 2)", "Entry 3 (line 5)",
        "Entry 4 (line 6) must be a mapping with the cluster's name and settings.",
    ]  # fmt: skip
    assert found[3] == "Entry 3 (line 5): the name b is used twice."


@pytest.mark.parametrize(
    "field",
    [
        f"api_server: 'https://u:{MARKER}@host'",
        f"kubeconfig: 'apiVersion: v1, token: {MARKER}'",
        f"'apiVersion {MARKER}': 1",
    ],
)
def test_a_value_that_may_be_a_secret_is_not_shown(field: str) -> None:
    assert MARKER not in "".join(problems(f"- {{name: a, {field}}}"))


@given(st.binary(max_size=60) | st.text(alphabet="- {}[]:,nameb01\n'\"&*", max_size=60).map(str.encode))
def test_any_content_gives_entries_or_problems(content: bytes) -> None:
    found = parse(content)
    assert bool(found.entries) != bool(found.problems)


EAST, WEST = parsed("- {name: east, namespace: one}\n- {name: west, context: w}")
LOST = ClusterEntry(EAST.name, EAST.settings, lost=True)


def test_an_unchanged_file_changes_nothing() -> None:
    assert changes((EAST, WEST), (EAST, WEST), {}) == ((), (), (), (), ())


def test_a_new_cluster_joins() -> None:
    assert changes((EAST,), (WEST, EAST), {}) == ((WEST,), (), (), (), ())


def test_an_empty_cluster_may_be_taken_out() -> None:
    assert changes((EAST, WEST), (WEST,), {"east": False}) == ((), ("east",), (), (), ())


def test_a_cluster_with_sandboxes_may_not_be_taken_out() -> None:
    assert changes((EAST, WEST), (WEST,), {"east": True}).problems == (
        "Cluster east has sandboxes: to take it out, first set `lost: true` in its entry.",
    )


def test_a_cluster_that_cannot_be_asked_may_not_be_taken_out() -> None:
    assert changes((EAST, WEST), (WEST,), {"east": None}).problems == (
        "Cluster east can't be asked whether it has sandboxes: to take it out, first set `lost: true` in its entry.",
    )


@pytest.mark.parametrize("sandboxes", [True, None, False])
def test_a_cluster_that_was_lost_may_be_taken_out(*, sandboxes: bool | None) -> None:
    assert changes((LOST, WEST), (WEST,), {"east": sandboxes}) == ((), ("east",), (), (), ())


def test_a_refused_removal_refuses_the_whole_change() -> None:
    found = changes((EAST,), (WEST,), {"east": True})
    assert found[:4] == ((), (), (), ())
    assert len(found.problems) == 1


def test_weight_labels_and_lost_change_without_a_restart() -> None:
    new = ClusterEntry("east", EAST.settings, weight=0, labels={"a": "b"}, lost=True)
    assert changes((EAST, WEST), (new, WEST), {"east": True}) == ((), (), (), (new,), ())


def test_other_settings_of_a_cluster_with_sandboxes_change_by_a_restart() -> None:
    new = ClusterEntry("east", {**EAST.settings, "max_sandboxes": 3})
    assert changes((EAST,), (new,), {"east": True}) == ((), (), (new,), (), ())


@pytest.mark.parametrize(
    ("text", "moved"),
    [
        ("{name: east, namespace: two}", "namespace"),
        ("{name: east, namespace: one, context: c, kubeconfig: /k}", "kubeconfig, context"),
        ("{name: east, namespace: one, api_server: 'https://h'}", "api_server"),
    ],
)
def test_a_cluster_with_sandboxes_may_not_become_another(text: str, moved: str) -> None:
    new = parsed(f"- {text}")
    assert changes((EAST,), new, {"east": True}).problems == (f"Cluster east has sandboxes: {moved} can't change.",)
    assert changes((EAST,), new, {"east": False}) == ((), (), new, (), ())
    assert changes((LOST,), new, {"east": None}) == ((), (), new, (), ())


def test_only_clusters_that_leave_or_move_are_asked_for_sandboxes() -> None:
    heavier = ClusterEntry("west", WEST.settings, WEST.context, weight=9)
    moved = ClusterEntry("east", {"k8s_namespace": "two"})
    assert in_question((EAST, WEST), (EAST, heavier)) == ()
    assert in_question((EAST, WEST), (moved, heavier)) == ("east",)
    assert in_question((EAST, WEST), (EAST,)) == ("west",)
    assert in_question((LOST, WEST), (WEST,)) == ()


def test_a_key_that_stands_twice_is_a_problem_with_its_line() -> None:
    found = problems("- name: a\n  weight: 0\n  labels: {x: y, x: z}\n  weight: 3\n- {name: b, name: c, weight: x}\n")
    assert found[:3] == (
        "Entry 1 (line 1): 'labels.x' stands twice, again in line 3.",
        "Entry 1 (line 1): 'weight' stands twice, again in line 4.",
        "Entry 2 (line 5): 'name' stands twice, again in line 5.",
    )
    assert found[3].startswith("Entry 2 (line 5): weight holds 'x'.")


def test_a_key_that_replaces_one_of_a_merge_does_not_stand_twice() -> None:
    found = parsed("- &one {name: a, namespace: here, weight: 3}\n- {<<: *one, name: b, weight: 1}\n")
    assert [(entry.name, entry.weight, entry.settings) for entry in found] == [
        ("a", 3, {"k8s_namespace": "here"}),
        ("b", 1, {"k8s_namespace": "here"}),
    ]


def test_a_repeated_key_that_may_be_a_secret_is_not_shown() -> None:
    assert MARKER not in "".join(problems(f"- {{name: a, 'apiVersion {MARKER}': 1, 'apiVersion {MARKER}': 2}}"))
