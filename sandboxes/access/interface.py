"""What the rest asks about the way to a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject


class Access(Protocol):
    """One way for callers to reach a sandbox."""

    @property
    def needs_service(self) -> bool:
        """Whether a sandbox consists of a Pod and a Service, else of the Pod alone."""
        ...

    def is_complete(self, pod: KubeObject, service: KubeObject | None) -> bool:
        """Whether all objects of the sandbox are there, and none is being deleted."""
        ...

    def is_whole(self, pod: KubeObject, service: KubeObject | None) -> bool:
        """Whether the objects make a sandbox that callers can see and reach."""
        ...

    def url(self, pod: KubeObject, service: KubeObject | None) -> str | None:
        """Return the sandbox's URL, or None if it has none (yet)."""
        ...

    def probed_url(self, pod: KubeObject, service: KubeObject | None) -> str | None:
        """Return the URL by which this process can check that the sandbox's server answers; None if there is none."""
        ...
