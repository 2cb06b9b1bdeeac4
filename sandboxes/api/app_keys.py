"""Typed keys of the objects that the application holds."""

from __future__ import annotations

from aiohttp import web

from sandboxes.api.auth import ApiKeys
from sandboxes.api.callers import Callers
from sandboxes.cluster_units import ClusterUnits
from sandboxes.deadlines import Deadlines
from sandboxes.ops.clusters import ClusterOverviews
from sandboxes.ops.health import Health
from sandboxes.ops.metrics import Metrics
from sandboxes.service.sandboxes import SandboxService
from sandboxes.settings import Settings

SANDBOX_SERVICE = web.AppKey("SANDBOX_SERVICE", SandboxService)

SETTINGS = web.AppKey("SETTINGS", Settings)

HEALTH = web.AppKey("HEALTH", Health)

CLUSTERS = web.AppKey("CLUSTERS", ClusterOverviews)

# Only with CLUSTERS_FILE.
CLUSTER_UNITS = web.AppKey("CLUSTER_UNITS", ClusterUnits)

KEYS = web.AppKey("KEYS", ApiKeys)

CALLERS = web.AppKey("CALLERS", Callers)

METRICS = web.AppKey("METRICS", Metrics)
DEADLINES = web.AppKey("DEADLINES", Deadlines)
