"""Objects of any valid id are accepted by the API server."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable

import aiohttp
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from devcluster import Cluster
from sandboxes.models.requests import CreateRequest
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import Sandbox
from sandboxes.spec.templates import Template
from tests.contract.service import until

IDS = st.from_regex(r"\A[a-z0-9]([-a-z0-9]{0,49}[a-z0-9])?\Z")
THREADS = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
USERS = st.from_regex(r"\A[A-Za-z0-9_-]{1,200}\Z")


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sandbox_id=IDS, thread_id=THREADS, user_id=USERS)
@example(sandbox_id="0", thread_id="-", user_id="_")
@example(sandbox_id="1e3", thread_id="1", user_id="true")
@example(sandbox_id="x" * 51, thread_id="T" * 64, user_id="U" * 200)
async def test_any_accepted_id_gives_objects_that_the_cluster_accepts(
    cluster: Cluster,
    make_settings: Callable[..., Settings],
    template: Template,
    sandbox_id: str,
    thread_id: str,
    user_id: str,
) -> None:
    async def has_service_account() -> bool:
        return cluster.get("ServiceAccount", "default", "default") is not None

    await until(has_service_account)
    CreateRequest(sandbox_id=sandbox_id, thread_id=thread_id, user_id=user_id)
    paths = {"THREADS_HOST_PATH": "/threads", "SKILLS_HOST_PATH": "/skills", "K8S_NAMESPACE": "default"}
    objects = build(
        Sandbox(sandbox_id, thread_id, user_id), template, make_settings(**paths), applied_at="2026-01-01T00:00:00Z"
    )
    tls = ssl.create_default_context(cafile=cluster.ca_file)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {cluster.token}"}) as session:
        for obj, resource in zip(objects, ("pods", "services"), strict=True):
            path = f"/api/v1/namespaces/default/{resource}/{obj['metadata']['name']}"
            query = "fieldManager=provisioner&force=true&fieldValidation=Strict&dryRun=All"
            response = await session.patch(
                f"{cluster.url}{path}?{query}",
                data=json.dumps(obj),
                headers={"Content-Type": "application/apply-patch+yaml"},
                ssl=tls,
            )
            assert response.status == 201, await response.text()
