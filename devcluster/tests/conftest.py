"""Fixtures shared with the service's tests: a cluster, and a real kubectl that talks to it."""

from __future__ import annotations

from tests.kubectl import cluster, kubectl

__all__ = ["cluster", "kubectl"]
