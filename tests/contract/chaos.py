"""A service under load with a ledger of its responses, and the check that nothing is lost at the end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
import pytest

from devcluster import Cluster
from sandboxes.api.app_keys import SANDBOX_SERVICE
from tests.contract.ledger import NO_LOSSES, Ledger
from tests.contract.service import Provisioner, StartProvisioner, until

SETTINGS = {"REAPER_INTERVAL": "0", "REAPER_GRACE": "1"}


@dataclass
class Service:
    """A service, the session of its callers, and the ledger of their responses."""

    provisioner: Provisioner
    session: aiohttp.ClientSession
    ledger: Ledger

    @property
    def made(self) -> int:
        """Number of creates with status 200."""
        return self.ledger.answered("create")

    @property
    def refused(self) -> int:
        """Number of creates with an error of the cluster."""
        return self.ledger.refused()

    async def works_again(self) -> None:
        """Wait until a create, a get and a delete succeed."""

        async def all_succeed() -> bool:
            made = await self.ledger.create(self.session, "afterwards")
            read = await self.ledger.get(self.session, "afterwards")
            deleted = await self.ledger.delete(self.session, "afterwards")
            return (made, read, deleted) == (200, 200, 200)

        await until(all_succeed)

    async def assert_nothing_lost(self) -> None:
        """Assert at the end of a test that the service works, and that nothing was lost or orphaned."""
        await self.works_again()
        losses = await self.ledger.losses(self.provisioner.client.app[SANDBOX_SERVICE].reaper)
        assert losses == NO_LOSSES, self.ledger.statuses


@asynccontextmanager
async def calling(provisioner: Provisioner, ledger: Ledger) -> AsyncIterator[Service]:
    base = str(provisioner.client.make_url("/"))
    async with aiohttp.ClientSession(base, connector=aiohttp.TCPConnector(limit=0)) as session:
        yield Service(provisioner, session, ledger)


@pytest.fixture
async def service(start_provisioner: StartProvisioner, cluster: Cluster) -> AsyncIterator[Service]:
    async with calling(await start_provisioner(**SETTINGS), Ledger(cluster)) as running:
        yield running


# A fifth of the service's default deadlines.
impatient = pytest.mark.deadlines(
    create=4.2, delete=2.4, read=1.6, undo=1.0, settle_pause=0.4, batch=1.6, batch_limit=2.4, batch_patience=1.6
)
