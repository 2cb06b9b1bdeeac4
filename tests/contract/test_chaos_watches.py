"""An API server that sends no byte on any connection, also not on open watches, while callers are at work."""

from __future__ import annotations

import pytest

from devcluster import Cluster
from tests.contract.chaos import SETTINGS, calling
from tests.contract.ledger import Ledger, callers, more
from tests.contract.service import StartProvisioner, until

pytestmark = [pytest.mark.starts_in_full, pytest.mark.slow]


# Long enough for a busy machine, and short enough for refusals.
@pytest.mark.deadlines(
    create=12.0,
    delete=8.0,
    read=6.0,
    undo=3.0,
    settle_pause=0.4,
    batch=5.0,
    batch_limit=8.0,
    batch_patience=6.0,
    watch_pauses=(0.05, 0.1),
    watch_silence=0.5,
)
async def test_nothing_is_lost_or_misreported_when_the_server_and_its_open_watches_hang(
    start_provisioner: StartProvisioner, cluster: Cluster
) -> None:
    provisioner = await start_provisioner(**SETTINGS, LIVE_VIEW_MAX_AGE="4")
    async with calling(provisioner, Ledger(cluster)) as service:
        async with callers(service.ledger, service.session, number=5):
            await until(more(lambda: service.made, 5))
            await until(lambda: cluster.open_watches() == 2)
            cluster.faults.hang(open_watches=True)
            await until(more(lambda: service.refused, 5))
            await until(lambda: not provisioner.view.is_fresh)
            cluster.faults.clear()
            await until(more(lambda: service.made, 5))
        await service.assert_nothing_lost()
        await until(lambda: provisioner.view.is_fresh)
