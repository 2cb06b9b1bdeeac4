"""No token is in a log line, a metric, an error or a diagnosis."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aiohttp

from devcluster import Cluster
from tests.contract.gateways import KEY, NS, PODS_ANSWER, get, reached, sandbox_server
from tests.contract.processes import PROVISIONER, environment, free_port, healthy, running
from tests.contract.service import until

pytestmark = PODS_ANSWER

TOKEN = re.compile(r"/s/[a-z0-9-]+/((?:\d*\.\d*\.)?([A-Za-z0-9_-]{32}))")


async def test_no_token_and_no_key_is_in_any_log_metric_error_or_diagnosis(
    cluster: Cluster, session: aiohttp.ClientSession, keys: Path, tmp_path: Path
) -> None:
    cluster.make_namespace(NS)
    cluster.pods_answer_by(sandbox_server)
    port, gateway = free_port(), free_port()
    environ = environment(
        tmp_path,
        KUBECONFIG_PATH=str(cluster.kubeconfig),
        LISTEN_HOST="127.0.0.1",
        LISTEN_PORT=str(port),
        LOG_LEVEL="DEBUG",
        LOG_FORMAT="json",
        SANDBOX_ACCESS="gateway",
        SANDBOX_GATEWAY_DIAL="pod-ip",
        SANDBOX_GATEWAY_PORT=str(gateway),
        SANDBOX_GATEWAY_KEYS_FILE=str(keys),
        SANDBOX_GATEWAY_WAIT="0",
    )
    api = f"http://127.0.0.1:{port}"
    answers: list[str] = []
    macs: set[str] = set()

    async def ask(method: str, path: str, *, may_have_url: bool = False, **options: object) -> dict[str, str]:
        async with session.request(method, f"{api}{path}", **options) as response:  # type: ignore[arg-type]
            text = await response.text()
        macs.update(found[2] for found in TOKEN.finditer(text))
        if not may_have_url:
            answers.append(text)
        found: dict[str, str] = json.loads(text) if text.startswith("{") else {}
        return found

    async with running(*PROVISIONER, environ=environ, log=tmp_path / "log"):
        await until(healthy(port))
        one = await ask("POST", "/api/sandboxes", json={"sandbox_id": "a"}, may_have_url=True)
        url = one["sandbox_url"]
        await get(session, url)  # not ready yet
        await reached(session, f"{url}/v1/sandbox?token=1")
        timed = await ask("POST", "/api/sandboxes/a/urls", json={"port": 3999, "ttl_seconds": 60}, may_have_url=True)
        assert (await get(session, timed["url"]))[0] == 502  # nothing listens on that port
        await get(session, url.replace("/s/a/", "/s/b/"))
        await get(session, url + "A")
        async with session.request("PUT", f"{url}/%ff\u00e9", data=b"x", headers={"Referer": url}) as response:
            await response.read()
        async with session.ws_connect(f"{url}/socket") as socket:
            await socket.send_str("x")
        await ask("DELETE", "/api/sandboxes/a/urls", may_have_url=True)
        assert (await get(session, url))[0] == 404
        for path in ("/metrics", "/readyz", "/api/clusters", "/api/capabilities"):
            await ask("GET", path)
        for path in ("/api/sandboxes/a/urls/x", "/api/sandboxes/unknown/urls"):
            await ask("POST", path)
        await ask("POST", "/api/sandboxes/a/urls", json={"port": 0})
        await ask("GET", "/api/sandboxes/a/diagnostics", may_have_url=True)
        await ask("DELETE", "/api/sandboxes/a")
    assert len(macs) == 3
    log = (tmp_path / "log").read_text()
    assert '"GET' in log or "GET" in log
    for text in (log, *answers):
        assert not [mac for mac in (*macs, KEY) if mac in text]
