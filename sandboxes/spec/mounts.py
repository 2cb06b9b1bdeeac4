"""Validates `extra_mounts`: the node's directories that a caller may mount, and their mount paths. Pure.

Every host path must be below the operator's base directory; the container paths are a fixed list (contract.md). A
violation is a 400.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from sandboxes.errors import BadRequest
from sandboxes.models.requests import ExtraMount

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PATH_BYTES = 4095  # Linux's PATH_MAX minus the final NUL; no kubelet can mount a longer path

CONTAINER_PATHS = frozenset(
    {
        "/mnt/acp-workspace",
        "/mnt/skills/custom",
        "/mnt/skills/integrations",
        "/mnt/integrations/lark-cli/config",
        "/mnt/integrations/lark-cli/config/locks",
        "/mnt/integrations/lark-cli/data",
        "/mnt/integrations/lark-cli/runtime",
    }
)


def checked_mounts(mounts: Sequence[ExtraMount], base: str | None) -> tuple[ExtraMount, ...]:
    """Return `mounts` with normalised paths, outer container paths before nested ones.

    `base` is DEER_FLOW_HOST_BASE_DIR, None if unset. Raises BadRequest for the first violation.
    """
    if not mounts:
        return ()
    if base is None:
        raise BadRequest("extra_mounts is not available here: the operator has not set DEER_FLOW_HOST_BASE_DIR")
    checked = [_checked(mount, base) for mount in mounts]
    seen: set[str] = set()
    for mount in checked:
        if mount.container_path in seen:
            raise BadRequest(f"extra_mounts names the container path {mount.container_path} twice")
        seen.add(mount.container_path)
    return tuple(sorted(checked, key=lambda mount: mount.container_path))


def _checked(mount: ExtraMount, base: str) -> ExtraMount:
    container_path = posixpath.normpath(mount.container_path)
    if container_path not in CONTAINER_PATHS:
        raise BadRequest("extra_mounts has a container path that is not one of " + ", ".join(sorted(CONTAINER_PATHS)))
    if not mount.host_path.startswith("/") or not mount.host_path.isprintable():
        raise BadRequest("extra_mounts has a host path that is not an absolute path")
    # normpath keeps exactly two leading slashes, as POSIX allows; treat them as one.
    host_path = "/" + posixpath.normpath(mount.host_path).lstrip("/")
    if len(host_path.encode()) > MAX_PATH_BYTES:
        raise BadRequest(f"extra_mounts has a host path of more than {MAX_PATH_BYTES} bytes")
    if not host_path.startswith(base.rstrip("/") + "/"):
        raise BadRequest("extra_mounts has a host path outside the directory that the operator allows")
    return ExtraMount(host_path=host_path, container_path=container_path, read_only=mount.read_only)
