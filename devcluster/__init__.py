"""devcluster, a stand-in for a Kubernetes cluster: a small API server for development that a real kubectl talks to.

It answers like a recorded Kubernetes API server (`tests/recorded`), keeps all objects in memory, and runs no
containers.
"""

from devcluster.cluster import Cluster
from devcluster.faults import once

__all__ = ["Cluster", "once"]
