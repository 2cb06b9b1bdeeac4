"""Several API keys, and a key file that changes, over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxes.errors import StartupError
from tests.api.conftest import URL, Client, MakeClient
from tests.fakes import FakeCluster


async def statuses(client: Client, *keys: str) -> list[int]:
    return [(await client.get(URL, headers={"X-API-Key": key})).status for key in keys]


async def test_a_key_with_a_comma_is_not_split(make_client: MakeClient) -> None:
    client = await make_client(PROVISIONER_API_KEY="ab,cd")
    assert await statuses(client, "ab,cd") == [200]
    assert await statuses(client, "ab", "cd", "ab,", ",cd", ",", "", "cd,ab") == [401] * 7


async def test_all_keys_of_the_key_file_are_accepted(make_client: MakeClient, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("old\nnew,with comma\n")
    client = await make_client(PROVISIONER_API_KEY_FILE=file)
    assert await statuses(client, "old", "new,with comma") == [200, 200]
    assert await statuses(client, "new", "with comma", "", "other") == [401] * 4


async def test_a_key_removed_from_the_file_is_rejected_on_the_next_request(
    make_client: MakeClient, cluster: FakeCluster, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text("a\nb\n")
    client = await make_client(PROVISIONER_API_KEY="fixed", PROVISIONER_API_KEY_FILE=file)
    assert await statuses(client, "a", "b", "fixed") == [200, 200, 200]
    file.write_text("b\n")
    calls = len(cluster.calls)
    assert await statuses(client, "a") == [401]
    assert len(cluster.calls) == calls
    assert await statuses(client, "b", "fixed") == [200, 200]
    file.unlink()
    assert await statuses(client, "a", "b", "fixed") == [401, 200, 200]
    assert (await client.get(URL)).status == 401
    assert (await client.get("/health")).status == 200


async def test_a_missing_key_file_stops_the_start(make_client: MakeClient, tmp_path: Path) -> None:
    with pytest.raises(StartupError):
        await make_client(PROVISIONER_API_KEY_FILE=tmp_path / "none")
