"""A devcluster whose user has only the rights of a Role: `python -m tests.e2e.restricted NAMESPACE RULES`.

RULES are a Role's, as JSON. It prints the path of its kubeconfig, and serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys

from devcluster import Cluster


async def main(namespace: str, rules: str) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Cluster() as cluster:
        cluster.make_namespace(namespace)
        cluster.authorization.restrict(namespace, json.loads(rules))
        sys.stdout.write(f"{cluster.kubeconfig}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
