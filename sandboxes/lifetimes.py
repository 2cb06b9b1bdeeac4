"""How a Pod's annotations say when it ends. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes import kube

if TYPE_CHECKING:
    from sandboxes.kube import KubeObject


def expires_at(pod: KubeObject) -> str | None:
    """Return when the sandbox ends if nobody renews or uses it, as an RFC 3339 time; None: never."""
    return kube.get_annotations(pod).get(kube.EXPIRES_ANNOTATION)
