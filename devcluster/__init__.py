"""devcluster, a stand-in for development: a small server that a real kubectl talks to.

It answers as a recorded Kubernetes API server did (`tests/recorded`), keeps everything in memory, and runs no
containers.
"""

from devcluster.cluster import Cluster
from devcluster.faults import once

__all__ = ["Cluster", "once"]
