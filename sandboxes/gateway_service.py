"""Builds the gateway from its views, metrics and listener; and the health application of one in its own process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from sandboxes.access.gateway import subject_of
from sandboxes.api.listener import GatewayListener
from sandboxes.api.middlewares import phrase_response
from sandboxes.api.probes import alive, metrics_response, readiness_response
from sandboxes.gateway.interface import Ground
from sandboxes.gateway.server import Gateway
from sandboxes.gateway.views import LivePods, View
from sandboxes.ops.gateway_metrics import GatewayCounts
from sandboxes.ops.health import ENDING, OK, Readiness
from sandboxes.variables import LISTEN_HOST, Address, used_variable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiohttp.typedefs import Handler

    from sandboxes.access.tokens import Keys
    from sandboxes.cluster_unit import ClusterUnit
    from sandboxes.cluster_units import ClusterUnits
    from sandboxes.deadlines import Deadlines
    from sandboxes.ops.metrics import Metrics
    from sandboxes.settings import Settings


class GatewayService:
    """The gateway of a process.

    `settings`: of the service; `environ`: names the variables in errors; `in_pod`: whether it runs in a Pod, where no
    other Pod is on the loopback, even if a proxy to the API server is.
    """

    def __init__(  # noqa: PLR0913 - each is one of the process's own
        self,
        settings: Settings,
        keys: Keys,
        metrics: Metrics,
        deadlines: Deadlines,
        environ: Mapping[str, str],
        *,
        in_pod: bool,
    ) -> None:
        self.pods = LivePods(settings.sandbox_gateway_max_stale)
        counts = GatewayCounts(metrics.registry)
        gateway = Gateway(Ground(self.pods, keys, settings, counts, deadlines))
        variable = "SANDBOX_GATEWAY_HOST" if settings.sandbox_gateway_host else used_variable(LISTEN_HOST, environ)
        address = Address(settings.gateway_hosts, settings.sandbox_gateway_port, variable, "SANDBOX_GATEWAY_PORT")
        self.listener = GatewayListener(gateway, address)
        self._in_pod = in_pod
        self._is_ending = False

    def join(self, unit: ClusterUnit) -> None:
        """Serve the sandboxes of a cluster."""
        pods = self.pods
        pods.join(
            View(
                unit.name,
                unit.cluster,
                lambda pod: subject_of(pod, unit.settings),
                unit.service.note_use,
                may_be_loopback=unit.api_is_local and not self._in_pod,
            )
        )
        unit.overview.dial_problem = lambda: pods.dial_problem(unit.name)

    def follow(self, units: ClusterUnits) -> None:
        """Serve the sandboxes of all clusters of the file that is in force."""
        for unit in units.units.values():
            self.join(unit)
        units.joined.connect(self.join)
        units.changed.connect(lambda: self.pods.keep(units.units))

    def readiness(self) -> Readiness:
        """Return the check of each cluster. One is enough: another one's sandboxes can't be reached by any gateway."""
        if self._is_ending:
            return ENDING
        checks = {name: problem or OK for name, problem in self.pods.problems().items()}
        return Readiness(checks, needs_one=True)

    async def end(self, app: web.Application) -> None:
        """End the connections; call it at shutdown."""
        self._is_ending = True
        await self.listener.drain(app)


def health_app(gateway: GatewayService, metrics: Metrics) -> web.Application:
    """Return the application beside a gateway in a process of its own: its health and its metrics."""

    async def health(_request: web.Request) -> web.Response:
        return alive()

    async def readyz(_request: web.Request) -> web.Response:
        return readiness_response(gateway.readiness())

    async def show_metrics(request: web.Request) -> web.Response:
        return metrics_response(request, metrics)

    app = web.Application(middlewares=[_answer_in_json])
    app.router.add_get("/health", health)
    app.router.add_get("/livez", health)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", show_metrics)
    return app


@web.middleware
async def _answer_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return phrase_response(error)
