"""Places sandboxes: decides which cluster makes one, so that of any number of replicas one cluster is agreed upon.

Whoever makes a sandbox writes first and reads then: at home the Pod before the marker, elsewhere the marker before the
home. So of two replicas at least one sees the other. Nothing is returned before the home was read after the Pod was
made, and nothing is deleted that another create may have returned (`withdraw`): each writes that onto the Pod first.
It does so after the home has agreed. So a Pod on which that is written is where the directory says.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sandboxes.errors import LimitReached, ObjectsChanged, ProvisionerError
from sandboxes.fleet.directory import MAX_ROUNDS, Directory, Located
from sandboxes.fleet.markers import UNKNOWN, Marker
from sandboxes.fleet.protocol import (
    KeepsMoving,
    Look,
    Made,
    Make,
    NoClusterFits,
    Rehoming,
    Unschedulable,
    Wanted,
)
from sandboxes.fleet.rendezvous import order
from sandboxes.fleet.twins import OneCluster
from sandboxes.logs import in_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandboxes.errors import ClusterUnavailable

logger = logging.getLogger(__name__)


@dataclass
class _Placing:
    """One create. `full`: clusters that refused it for want of room, with the error. `replaces`: see Marker.

    `stays`: no cluster is left to try, so it stays on one that has no node for it.
    """

    sandbox_id: str
    wanted: Wanted
    make: Make
    home: str
    full: dict[str, LimitReached] = field(default_factory=dict)
    replaces: str = ""
    stays: bool = False


class Placement:
    """Creates sandboxes through a directory.

    `new_token` returns a unique text. `known_uid` returns the uid of the Pod that an unreachable cluster had, as far as
    this process knows, else an empty text.
    """

    def __init__(
        self, directory: Directory, new_token: Callable[[], str], known_uid: Callable[[str, str], str]
    ) -> None:
        self._directory = directory
        self._homes = directory.homes
        self._new_token = new_token
        self._known_uid = known_uid

    async def create(self, sandbox_id: str, wanted: Wanted, make: Make) -> Located:
        """Return where the sandbox is, after `make` has made or found it on that cluster. An existing one stays there.

        Raises ClusterAway if the home, or the cluster on which the sandbox is, can't be reached; Rehoming while the
        id's home changes; NoClusterFits, or the LimitReached of the last cluster; OneCluster; KeepsMoving; and what
        `make` raises.
        """
        placing = _Placing(sandbox_id, wanted, make, self._homes.home(sandbox_id))
        # Each cluster may refuse it once, which is no change by another replica.
        for _ in range(MAX_ROUNDS + len(self._homes.members)):
            look = await self._look(placing)
            reason = self._refuses_new(placing)
            target = await (self._existing(placing, look, reason) if reason else self._agree(placing, look))
            if target is not None:
                made = await self._make(placing, target)
                if made is not None and await self._may_answer(placing, target, made):
                    return Located("there" if target == placing.home else "elsewhere", target, made.uid)
            await self._directory.pause()
        raise KeepsMoving

    async def _look(self, placing: _Placing) -> Look:
        """Read the home; raises Rehoming if it does not decide alone."""
        look = await self._directory.look(placing.home, placing.sandbox_id)
        if not self._homes.permits(placing.sandbox_id, placing.home, look.record):
            raise self._one_cluster() or Rehoming
        return look

    async def _agree(self, placing: _Placing, look: Look) -> str | None:
        """Return the cluster on which to make the sandbox, once the home says so; None to read it again."""
        marker = look.marker
        placing.replaces = ""
        if marker is not None and marker.state == "placed":
            placing.replaces = marker.replaces
            self._directory.check_listed(placing.home, marker)
            if not self._homes.is_lost(marker.cluster) and marker.cluster not in placing.full:
                return marker.cluster if await self._may_follow(placing, marker) else None
            if self._homes.is_lost(marker.cluster):
                self._replace(placing, marker.cluster, marker.uid)
            else:
                there = await self._directory.look_there(placing.home, marker)
                if there.pod is not None:
                    placing.full.pop(marker.cluster)
                    return marker.cluster
            return await self._move(placing, marker)
        if look.pod is not None:
            placing.full.pop(placing.home, None)
            return placing.home
        lost = self._homes.lost_home(placing.sandbox_id)
        if lost is not None:
            if (unasked := self._homes.unasked()) is not None:
                raise self._homes.away(unasked)
            self._replace(placing, lost, self._known_uid(lost, placing.sandbox_id))
        target = self._next(placing)
        if target == placing.home:
            return target
        return target if await self._mark(placing, target, marker) else None

    def _refuses_new(self, placing: _Placing) -> ClusterUnavailable | None:
        """Return why the sandbox may not be made now, if it does not exist; None if it may.

        Another replica may still use an unlisted home. Nor is one made whose home is a cluster of two names: the notes
        about it would be about either name, and one of both has to go.
        """
        unlisted = self._homes.unlisted_home(placing.sandbox_id)
        if unlisted is not None:
            return self._homes.away(unlisted)
        return self._one_cluster() if placing.home in self._homes.twins() else None

    def _one_cluster(self) -> OneCluster | None:
        twins = self._homes.twins()
        return OneCluster(twins) if twins else None

    async def _existing(self, placing: _Placing, look: Look, reason: ClusterUnavailable) -> str:
        """Return the cluster that has the sandbox; raises `reason` if none has."""
        if look.marker is not None and look.marker.state == "placed":
            if (await self._directory.look_there(placing.home, look.marker)).pod is not None:
                return look.marker.cluster
        elif look.pod is not None:
            return placing.home
        raise reason

    async def _may_follow(self, placing: _Placing, marker: Marker) -> bool:
        """Whether the create may go where the marker says; it may not replace another sandbox without `recreate`."""
        if placing.wanted.recreate or marker.is_made or not marker.replaces:
            return True
        there = await self._directory.look_there(placing.home, marker)
        return there.pod is not None or not await self._directory.restore(placing.home, marker)

    def _replace(self, placing: _Placing, cluster: str, uid: str) -> None:
        """Note that the sandbox replaces one on a lost cluster; raises ClusterAway unless the create allows that."""
        if not placing.wanted.recreate or not self._homes.may_be_replaced(cluster):
            raise self._homes.away(cluster)
        placing.replaces = f"{cluster}/{uid or UNKNOWN}"

    def _next(self, placing: _Placing) -> str:
        """Return the next cluster in the placement order that has not refused yet.

        When all have refused, the first that only has no node for it: there the caller learns that, as with one
        cluster.
        """
        names = self._in_order(placing)
        for name in names:
            if name not in placing.full:
                return name
        for name, error in placing.full.items():
            if isinstance(error, Unschedulable) and name in names:
                del placing.full[name]
                placing.stays = True
                return name
        if placing.full:
            raise list(placing.full.values())[-1]
        members = self._homes.members
        is_twin = any(placing.wanted.fits(members[name]) for name in self._homes.twins())
        raise (is_twin and self._one_cluster()) or NoClusterFits

    def _in_order(self, placing: _Placing) -> list[str]:
        """Return the clusters on which the sandbox may be placed now, in the order in which to try them."""
        twins = self._homes.twins()
        weights = {
            name: one.weight
            for name, one in self._homes.members.items()
            if one.ready and not one.lost and name not in twins and placing.wanted.fits(one)
        }
        return order(placing.sandbox_id, weights)

    async def _move(self, placing: _Placing, marker: Marker) -> str | None:
        """Point a `placed` marker whose cluster is full or lost to the next cluster; None if it was changed."""
        target = self._next(placing)
        if target == placing.home and not placing.replaces:
            return target if await self._directory.remove(placing.home, marker) else None
        # A marker may name the home itself: what the sandbox replaces must not be forgotten if its create fails.
        moved = replace(
            marker, cluster=target, token=self._new_token(), uid="", replaces=placing.replaces, is_made=False
        )
        return target if await self._update(placing.home, moved) is not None else None

    async def _mark(self, placing: _Placing, target: str, marker: Marker | None) -> bool:
        """Make the marker `pending`, read the home, and make it `placed`; False to read the home again.

        Another replica's `pending` marker is continued: whoever makes it `placed` first decides the cluster.
        """
        if marker is None:
            pending = Marker(placing.sandbox_id, target, "pending", self._new_token())
            try:
                marker = await self._directory.asked(placing.home).create_marker(pending)
            except ObjectsChanged:
                return False
        look = await self._look(placing)
        if look.marker != marker:
            return False
        if look.pod is not None:
            await self._directory.remove(placing.home, marker)
            return False
        token = self._new_token()
        placed = replace(
            marker, cluster=target, state="placed", token=token, uid="", replaces=placing.replaces, is_made=False
        )
        return await self._update(placing.home, placed) is not None

    async def _update(self, home: str, marker: Marker) -> Marker | None:
        try:
            return await self._directory.asked(home).update_marker(marker)
        except ObjectsChanged:
            return None

    async def _make(self, placing: _Placing, target: str) -> Made | None:
        """Make the sandbox; None if the cluster is full. It is proven then that it has none of this create."""
        if target not in self._directory.clusters or self._homes.is_lost(target):
            raise self._homes.away(target)
        others = [name for name in self._in_order(placing) if name != target and name not in placing.full]
        try:
            return await placing.make(target, placing.replaces, may_move=bool(others) and not placing.stays)
        except Unschedulable as error:
            if not await self._is_withdrawn(placing, target, error.uid):
                return Made(error.uid, is_new=False)
            with in_cluster(target):
                logger.info("sandbox %s: no node of cluster %s has room for it", placing.sandbox_id, target)
            placing.full[target] = error
        except LimitReached as error:
            placing.full[target] = error
        return None

    async def _is_withdrawn(self, placing: _Placing, target: str, uid: str) -> bool:
        """Delete the Pod that finds no node, and prove it gone; False if another create has returned it: it stays.

        After an error it may be deleted later, so this create must not return it.
        """
        return await self._directory.asked(target).withdraw(placing.sandbox_id, uid, until_gone=True)

    async def _may_answer(self, placing: _Placing, target: str, made: Made) -> bool:
        """Whether the home says, after the Pod was made, that the sandbox is on `target`; else it is withdrawn.

        The Pod is confirmed before it is returned: its maker may withdraw it, and so may another create that has
        applied it in the same instant and holds it for its own. Not before the home agrees: no create deletes it then.
        """
        try:
            if made.is_new and (unlisted := self._homes.unlisted_home(placing.sandbox_id)) is not None:
                raise self._homes.away(unlisted)
            for _ in range(MAX_ROUNDS):
                settled = await self._settle(placing, target, made)
                if settled is not None:
                    break
            if settled and not made.is_confirmed:
                settled = await self._directory.asked(target).confirm_pod(
                    placing.sandbox_id, made.uid, is_new=made.is_new
                )
        except ProvisionerError:
            await self._withdraw(placing, target, made)
            raise
        if settled is not True:
            await self._withdraw(placing, target, made)
        return settled is True

    async def _settle(self, placing: _Placing, target: str, made: Made) -> bool | None:
        """Return whether the home agrees to `target`; None if it was changed meanwhile."""
        look = await self._look(placing)
        marker, home = look.marker, placing.home
        if target != home or (marker is not None and marker.state == "placed" and marker.cluster == home):
            if marker is None or marker.state == "pending" or marker.cluster != target:
                return False
            return True if await self._directory.confirm(home, marker, made.uid, is_made=True) else None
        if marker is not None and marker.state == "placed":
            return False
        if look.pod is None or look.pod.uid != made.uid:
            return False
        if marker is not None and not await self._directory.remove(home, marker):
            return None
        return True

    async def _withdraw(self, placing: _Placing, target: str, made: Made) -> None:
        """Delete the Pod if this create made it; failures are logged: it was never returned."""
        if not made.is_new:
            return
        try:
            await self._directory.asked(target).withdraw(placing.sandbox_id, made.uid)
        except ProvisionerError as error:
            with in_cluster(target):
                logger.warning(
                    "sandbox %s: a Pod on cluster %s that was not returned can't be deleted: %s",
                    placing.sandbox_id, target, error,
                )  # fmt: skip
