"""What the cluster's admission refuses: who is told what, what is retried, and where the API server's words are."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tests.api.conftest import URL, Client, MakeClient
from tests.fakes import FakeCluster

WORDS = 'Error from server (Forbidden): pods "sandbox-a" is forbidden: on Sundays no Pod may start'
UNKNOWN = (
    "The cluster's admission forbids the sandbox for a reason that the provisioner does not know; the log has its words"
)
QUOTA = (
    "The cluster's quota demands limits.cpu and limits.memory for the container sandbox, which the template does not "
    "set"
)


async def post(client: Client, **fields: Any) -> tuple[int, Any]:
    response = await client.post(URL, json={"sandbox_id": "a", **fields})
    return response.status, (await response.json()).get("detail")


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("apply-service-account-missing", "There is no service account no-such-account, which the template asks for"),
        ("apply-priority-class-missing", "There is no PriorityClass no-such-class, which the template asks for"),
        (
            "apply-quota-must-specify",
            QUOTA,
        ),
        ("apply-env-twice", 'The sandbox has name="A" twice in spec.containers[name="sandbox"].env'),
    ],
)
async def test_a_lasting_refusal_of_the_template_is_502_after_one_attempt(
    client: Client, cluster: FakeCluster, name: str, public: str
) -> None:
    cluster.answer_next("apply", name)
    assert await post(client) == (502, public)
    assert cluster.verbs()["apply"] == 1
    assert cluster.objects == {}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("apply-quota-must-specify", {"resources": {"requests": {"cpu": "1"}}}),
        ("apply-env-twice", {"env": {"A": "s3cret"}}),
        ("apply-mount-path-twice", {"extra_mounts": [{"host_path": "/srv/a", "container_path": "/mnt/acp-workspace"}]}),
    ],
)
async def test_a_refusal_of_a_callers_field_is_422(
    make_client: MakeClient, cluster: FakeCluster, name: str, fields: dict[str, Any]
) -> None:
    client = await make_client(ALLOW_FIELDS="resources,env", DEER_FLOW_HOST_BASE_DIR="/srv")
    cluster.answer_next("apply", name)
    status, detail = await post(client, **fields)
    assert status == 422, detail
    assert detail[0]["loc"] == ["body", *fields]
    assert "s3cret" not in detail[0]["msg"]


async def test_a_service_account_that_comes_soon_is_waited_for(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("apply", "apply-right-after-namespace")
    assert (await post(client))[0] == 200


async def test_a_conflict_with_another_write_is_tried_again(client: Client, cluster: FakeCluster) -> None:
    cluster.answer_next("apply", "apply-annotation-only-stale-version")
    assert (await post(client))[0] == 200


async def test_the_log_has_the_words_of_an_unknown_refusal_and_the_caller_has_not(
    client: Client, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sandboxes")
    cluster.say_next("apply", f"{WORDS}\n")
    assert await post(client) == (502, UNKNOWN)
    assert any(WORDS in record.getMessage() for record in caplog.records)
    assert (await client.get(f"{URL}/a/diagnostics")).status == 404


async def test_the_diagnosis_of_a_sandbox_has_the_words_of_its_last_refused_create(
    client: Client, cluster: FakeCluster
) -> None:
    async def summary() -> str:
        return str((await (await client.get(f"{URL}/a/diagnostics")).json())["summary"])

    assert (await post(client))[0] == 200
    cluster.objects = {key: obj for key, obj in cluster.objects.items() if key[0] == "Pod"}
    cluster.say_next("apply", f"{WORDS}\n")
    assert await post(client) == (502, UNKNOWN)
    assert (await summary()).endswith(f"The cluster refused the last create of this sandbox, in its own words: {WORDS}")
    assert (await post(client))[0] == 200
    assert "own words" not in await summary()
