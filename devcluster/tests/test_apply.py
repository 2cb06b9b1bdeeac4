"""Server-side apply in devcluster, beyond the record: field owners, removal of fields, rejected objects."""

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


async def test_apply_removes_omitted_fields_and_keeps_those_of_other_managers(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    await kubectl.apply(annotated(a="1", b="2"))
    await kubectl("annotate", "pod/x", "c=3")
    again = await kubectl.apply(annotated(b="2"))
    assert again.rc == 0, again.stderr
    assert annotations_of(cluster) == {"b": "2", "c": "3"}
    await kubectl.apply(pod(**PARKED))
    assert annotations_of(cluster) == {"c": "3"}


async def test_a_shared_field_is_removed_when_its_last_manager_drops_it(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(annotated(a="1"))
    assert (await kubectl.apply(annotated(a="1"), manager="other", force=False)).rc == 0
    await kubectl.apply(pod(**PARKED))
    assert annotations_of(cluster) == {"a": "1"}
    await kubectl.apply(pod(**PARKED), manager="other")
    assert annotations_of(cluster) == {}


async def test_force_moves_field_ownership_to_the_new_manager(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(annotated(a="1"))
    refused = await kubectl.apply(annotated(a="2"), manager="other", force=False)
    assert 'conflict with "provisioner": .metadata.annotations.a' in refused.stderr
    assert (await kubectl.apply(annotated(a="2"), manager="other")).rc == 0
    found = cluster.get("Pod", "default", "x")
    assert found is not None
    owners = {entry["manager"]: json.dumps(entry["fieldsV1"]) for entry in found["metadata"]["managedFields"]}
    assert "f:a" in owners["other"]
    assert "f:a" not in owners["provisioner"]


async def test_all_conflicts_are_reported_together(kubectl: Kubectl) -> None:
    await kubectl.apply(annotated(a="1", b="1"))
    refused = await kubectl.apply(annotated(a="2", b="2"), manager="other", force=False)
    assert refused.stderr.startswith(
        'error: Apply failed with 2 conflicts: conflicts with "provisioner":\n'
        "- .metadata.annotations.a\n- .metadata.annotations.b\n"
    )


async def test_an_unchanged_apply_does_not_modify_the_object(cluster: Cluster, kubectl: Kubectl) -> None:
    limits = {"limits": {"cpu": "1000m", "memory": "1024Mi"}}
    made = (await kubectl.apply(pod(resources=limits, **PARKED))).json
    assert made["spec"]["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
    before = cluster.get("Pod", "default", "x")
    assert (await kubectl.apply(pod(resources=limits, **PARKED))).rc == 0
    assert cluster.get("Pod", "default", "x") == before


async def test_apply_removes_omitted_list_elements(cluster: Cluster, kubectl: Kubectl) -> None:
    port = {"port": 8080, "targetPort": 8080, "protocol": "TCP"}
    both = [{**port, "name": "http"}, {**port, "name": "more", "port": 9090}]
    first = (await kubectl.apply(service(ports=both))).json
    kept = first["spec"]["ports"][0]["nodePort"]
    await kubectl.apply(service(ports=both[:1]))
    found = cluster.get("Service", "default", "x-svc")
    assert found is not None
    assert [(entry["name"], entry["nodePort"]) for entry in found["spec"]["ports"]] == [("http", kept)]


async def test_a_pods_image_is_mutable_and_its_env_is_not(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl.apply(pod(env=[{"name": "REVISION", "value": "1"}], **PARKED))
    changed = await kubectl.apply(pod(image="sandbox:2", env=[{"name": "REVISION", "value": "1"}], **PARKED))
    assert changed.rc == 0, changed.stderr
    found = cluster.get("Pod", "default", "x")
    assert found is not None
    assert found["metadata"]["generation"] == 2
    refused = await kubectl.apply(pod(image="sandbox:2", env=[{"name": "REVISION", "value": "2"}], **PARKED))
    assert refused.stderr.startswith('The Pod "x" is invalid: spec: Forbidden: pod updates may not change fields')


async def test_a_dry_run_returns_a_node_port_and_stores_nothing(cluster: Cluster, kubectl: Kubectl) -> None:
    answer = await kubectl("apply", "--server-side", "--dry-run=server", "-o", "json", "-f", "-", stdin=service())
    assert answer.json["spec"]["ports"][0]["nodePort"]
    assert cluster.get("Service", "default", "x-svc") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": ""}, "spec.containers[0].image: Required value"),
        ({"imagePullPolicy": "Perhaps"}, 'Unsupported value: "Perhaps"'),
        ({"ports": [{"containerPort": 70000}]}, "must be between 1 and 65535, inclusive"),
        ({"volumeMounts": [{"name": "v", "mountPath": "/x"}]}, 'volumeMounts[0].name: Not found: "v"'),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/x", "type": "Door"}}]}, 'Unsupported value: "Door"'),
        ({"command": "sh"}, '.spec.containers[name="sandbox"].command: expected list, got'),
    ],
)
async def test_an_invalid_pod_is_rejected(changes: dict[str, Any], message: str, kubectl: Kubectl) -> None:
    refused = await kubectl.apply(pod(**changes))
    assert refused.rc == 1
    assert message in refused.stderr


async def test_oversized_annotations_are_rejected(kubectl: Kubectl) -> None:
    refused = await kubectl.apply(annotated(a="x" * 262144))
    assert "metadata.annotations: Too long: may not be more than 262144 bytes" in refused.stderr


async def test_kubectl_create_works_once_and_a_merge_patch_adds_labels(cluster: Cluster, kubectl: Kubectl) -> None:
    assert (await kubectl("create", "-f", "-", stdin=pod(**PARKED))).rc == 0
    refused = await kubectl("create", "-f", "-", stdin=pod(**PARKED))
    assert refused.stderr == 'Error from server (AlreadyExists): error when creating "STDIN": pods "x" already exists\n'
    assert cluster.get("Pod", "default", "x")
    labelled = await kubectl("patch", "pod/x", "--type=merge", "-p", '{"metadata":{"labels":{"more":"yes"}}}')
    assert labelled.rc == 0, labelled.stderr
    found = cluster.get("Pod", "default", "x")
    assert found is not None
    assert found["metadata"]["labels"] == {"sandbox-id": "x", "more": "yes"}


async def test_create_rejects_an_unknown_field_unless_validation_only_warns(kubectl: Kubectl) -> None:
    refused = await kubectl("create", "-f", "-", stdin=pod(imagePulPolicy="Always"))
    assert 'strict decoding error: unknown field "spec.containers[0].imagePulPolicy"' in refused.stderr
    warned = await kubectl("create", "--validate=warn", "-f", "-", stdin=pod(imagePulPolicy="Always"))
    assert (warned.rc, warned.stderr) == (0, 'Warning: unknown field "spec.containers[0].imagePulPolicy"\n')
