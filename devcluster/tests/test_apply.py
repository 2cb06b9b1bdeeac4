"""Server-side apply in devcluster, beyond the record: who owns what, what is removed, what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from devcluster import Cluster
from tests.kubectl import Kubectl, pod, service

PARKED: dict[str, Any] = {"nodeSelector": {"park": "here"}}


def annotated(**annotations: str) -> dict[str, Any]:
    made = pod(**PARKED)
    made["metadata"]["annotations"] = annotations
    return made


def annotations_of(cluster: Cluster) -> dict[str, str]:
    found = cluster.get("Pod", "default", "x")
    assert found is not None
    annotations: dict[str, str] = found["metadata"].get("annotations", {})
    return annotations


async def test_a_field_left_out_of_the_next_apply_is_removed_but_not_what_others_own(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    await kubectl.apply(annotated(a="1", b="2"))
    await kubectl("annotate", "pod/x", "c=3")
    again = await kubectl.apply(annotated(b="2"))
    assert again.rc == 0, again.stderr
    assert annotations_of(cluster) == {"b": "2", "c": "3"}
    await kubectl.apply(pod(**PARKED))
    assert annotations_of(cluster) == {"c": "3"}


async def test_what_two_managers_own_stays_until_both_have_let_go(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(annotated(a="1"))
    assert (await kubectl.apply(annotated(a="1"), manager="other", force=False)).rc == 0
    await kubectl.apply(pod(**PARKED))
    assert annotations_of(cluster) == {"a": "1"}
    await kubectl.apply(pod(**PARKED), manager="other")
    assert annotations_of(cluster) == {}


async def test_force_takes_a_field_over(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(annotated(a="1"))
    refused = await kubectl.apply(annotated(a="2"), manager="other", force=False)
    assert 'conflict with "provisioner": .metadata.annotations.a' in refused.stderr
    assert (await kubectl.apply(annotated(a="2"), manager="other")).rc == 0
    found = cluster.get("Pod", "default", "x")
    assert found is not None
    owners = {entry["manager"]: json.dumps(entry["fieldsV1"]) for entry in found["metadata"]["managedFields"]}
    assert "f:a" in owners["other"]
    assert "f:a" not in owners["provisioner"]


async def test_several_conflicts_are_named_together(kubectl: Kubectl) -> None:
    await kubectl.apply(annotated(a="1", b="1"))
    refused = await kubectl.apply(annotated(a="2", b="2"), manager="other", force=False)
    assert refused.stderr.startswith(
        'error: Apply failed with 2 conflicts: conflicts with "provisioner":\n'
        "- .metadata.annotations.a\n- .metadata.annotations.b\n"
    )


async def test_an_apply_that_changes_nothing_is_no_change(cluster: Cluster, kubectl: Kubectl) -> None:
    limits = {"limits": {"cpu": "1000m", "memory": "1024Mi"}}
    made = (await kubectl.apply(pod(resources=limits, **PARKED))).json
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    before = cluster.get("Pod", "default", "x")
    assert (await kubectl.apply(pod(resources=limits, **PARKED))).rc == 0
    assert cluster.get("Pod", "default", "x") == before


async def test_a_list_element_left_out_is_removed(cluster: Cluster, kubectl: Kubectl) -> None:
    port = {"port": 8080, "targetPort": 8080, "protocol": "TCP"}
    both = [{**port, "name": "http"}, {**port, "name": "more", "port": 9090}]
    first = (await kubectl.apply(service(ports=both))).json
    kept = first["spec"]["ports"][0]["nodePort"]
    await kubectl.apply(service(ports=both[:1]))
    found = cluster.get("Service", "default", "x-svc")
    assert found is not None
    assert [(entry["name"], entry["nodePort"]) for entry in found["spec"]["ports"]] == [("http", kept)]


async def test_an_image_may_change_and_an_environment_may_not(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(env=[{"name": "REVISION", "value": "1"}], **PARKED))
    changed = await kubectl.apply(pod(image="sandbox:2", env=[{"name": "REVISION", "value": "1"}], **PARKED))
    assert changed.rc == 0, changed.stderr
    found = cluster.get("Pod", "default", "x")
    assert found is not None
    assert found["metadata"]["generation"] == 2
    refused = await kubectl.apply(pod(image="sandbox:2", env=[{"name": "REVISION", "value": "2"}], **PARKED))
    assert refused.stderr.startswith('The Pod "x" is invalid: spec: Forbidden: pod updates may not change fields')


async def test_a_dry_run_stores_nothing_and_takes_no_port(cluster: Cluster, kubectl: Kubectl) -> None:
    answer = await kubectl("apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-", stdin=service())
    assert answer.json["spec"]["ports"][0]["nodePort"]
    assert cluster.get("Service", "default", "x-svc") is None


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"image": ""}, "spec.containers[0].image: Required value"),
        ({"imagePullPolicy": "Perhaps"}, 'Unsupported value: "Perhaps"'),
        ({"ports": [{"containerPort": 70000}]}, "must be between 1 and 65535, inclusive"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}, 'volumeMounts[0].name: Not found: "v"'),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/x", "type": "Door"}}]}, 'Unsupported value: "Door"'),
        ({"command": "sh"}, '.spec.containers[name="sandbox"].command: expected list, got'),
    ],
)
async def test_a_pod_that_breaks_a_rule_is_refused(changes: dict[str, Any], complaint: str, kubectl: Kubectl) -> None:
    refused = await kubectl.apply(pod(**changes))
    assert refused.rc == 1
    assert complaint in refused.stderr


async def test_annotations_have_a_size(kubectl: Kubectl) -> None:
    refused = await kubectl.apply(annotated(a="x" * 262144))
    assert "metadata.annotations: Too long: may not be more than 262144 bytes" in refused.stderr


async def test_a_create_by_another_way_is_there_too_and_only_once(cluster: Cluster, kubectl: Kubectl) -> None:
    assert (await kubectl("create", "-f", "-", stdin=pod(**PARKED))).rc == 0
    refused = await kubectl("create", "-f", "-", stdin=pod(**PARKED))
    assert refused.stderr == 'Error from server (AlreadyExists): error when creating "STDIN": pods "x" already exists\n'
    assert cluster.get("Pod", "default", "x")
    labelled = await kubectl("patch", "pod/x", "--type=merge", "-p", '{"metadata":{"labels":{"more":"yes"}}}')
    assert labelled.rc == 0, labelled.stderr
    found = cluster.get("Pod", "default", "x")
    assert found is not None
    assert found["metadata"]["labels"] == {"sandbox-id": "x", "more": "yes"}


async def test_a_misspelt_field_is_refused_strictly_on_create(kubectl: Kubectl) -> None:
    refused = await kubectl("create", "-f", "-", stdin=pod(imagePulPolicy="Always"))
    assert 'strict decoding error: unknown field "spec.containers[0].imagePulPolicy"' in refused.stderr
    warned = await kubectl("create", "--validate=warn", "-f", "-", stdin=pod(imagePulPolicy="Always"))
    assert (warned.rc, warned.stderr) == (0, 'Warning: unknown field "spec.containers[0].imagePulPolicy"\n')
