"""Bodies of `GET /api/clusters`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

ClusterState = Literal["ready", "degraded", "unreachable", "draining"]


ClusterAccess = Literal["node-port", "cluster-ip", "gateway"]


class ClusterCapacity(BaseModel):
    """How much a cluster can take, as far as it is known."""

    max_sandboxes: int | None = Field(
        description="Most sandboxes that the operator allows in it; null: no limit.", examples=[100]
    )
    quota: dict[str, str] | None = Field(
        description="What is left of the quotas of its namespace, by resource: cores, bytes, or objects, up to a "
        "minute ago. Quotas with scopes are left out. Null: not known, as without the right to list `resourcequotas`.",
        examples=[{"limits.memory": "8589934592", "pods": "7", "requests.cpu": "1.5"}],
    )


class ClusterResponse(BaseModel):
    """A cluster."""

    name: str = Field(description="Cluster name; `default` if the operator lists none.", examples=["default"])
    access: ClusterAccess | None = Field(
        description="How the sandboxes that are made in it now are reached: `node-port` or `cluster-ip`, by a Service "
        "each; `gateway`, by the gateway, which must reach the Pods' addresses from where it runs. Null for a lost "
        "cluster that can't be used.",
        examples=["node-port"],
    )
    state: ClusterState = Field(
        description="`ready`; `degraded`: a right is missing, the live view is not up to date, the gateway can't reach "
        "its Pods, or another entry of the list is the same cluster; `unreachable`: it can't be asked; `draining`: it "
        "gets no new sandboxes.",
        examples=["ready"],
    )
    version: str | None = Field(description="Version of its API server; null until known.", examples=["v1.37.1"])
    sandboxes: dict[str, int] | None = Field(
        description="Number of sandboxes by status; null while the live view is not up to date.",
        examples=[{"Pending": 1, "Running": 3, "Failed": 0, "Succeeded": 0, "Unknown": 0}],
    )
    capacity: ClusterCapacity = Field(description="How much it can take, as far as it is known.")
    last_error: str | None = Field(
        description="What is wrong with it, in one sentence; null if nothing is.", examples=[None]
    )


class DoubledSandbox(BaseModel):
    """A sandbox that several clusters have."""

    sandbox_id: str = Field(description="Sandbox ID.", examples=["abc"])
    clusters: list[str] = Field(description="Clusters that have a Pod of it.", examples=[["east", "west"]])
    answers: str | None = Field(
        description="Cluster whose Pod is the sandbox in all answers; null if that is none of them, or not known now.",
        examples=["east"],
    )


class ClusterList(BaseModel):
    """All clusters."""

    clusters: list[ClusterResponse] = Field(description="Clusters, in the operator's order.")
    count: int = Field(description="Number of clusters.", examples=[1])
    doubled: list[DoubledSandbox] = Field(
        default=[],
        exclude_if=lambda value: not value,
        description="Sandboxes that several clusters have, by hand or after a loss, as far as their live views are up "
        "to date. A `DELETE` deletes all Pods of such a sandbox, and nothing else does. Left out if there are none.",
    )
