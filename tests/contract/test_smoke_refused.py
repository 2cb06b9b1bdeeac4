"""scripts/smoke.sh with a key that the provisioner refuses."""

from __future__ import annotations

from pathlib import Path

from tests.contract.processes import smoke


async def test_smoke_sh_with_a_wrong_key_says_so_and_warns_of_no_sandbox(service_url: str, tmp_path: Path) -> None:
    returncode, stdout, stderr = await smoke(service_url, tmp_path=tmp_path, API_KEY="wr0ng")
    assert returncode == 1
    assert stdout.splitlines() == ["health            ok"]
    assert [line.partition(":")[0] for line in stderr.splitlines()] == ["smoke"]
    assert "set API_KEY to the provisioner's PROVISIONER_API_KEY" in stderr
