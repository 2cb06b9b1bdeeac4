"""Validates `extra_mounts`: the directories that a caller may mount, and their mount paths. Pure.

Every host path must be below one base directory. The container paths are a fixed list, part of which moves with
`skills_container_path` (docs/how-to/deerflow.md). A violation is a 400.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from sandboxes.errors import BadRequest
from sandboxes.models.requests import ExtraMount
from sandboxes.variables import normalized

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_PATH_BYTES = 4095  # Linux's PATH_MAX minus the final NUL; no kubelet can mount a longer path

DEFAULT_SKILLS_PATH = "/mnt/skills"
SKILL_CATEGORIES = ("public", "custom", "legacy", "integrations")

UPLOADS = "/mnt/user-data/.upload-conversions"

_LARK_PATHS = frozenset(
    f"/mnt/integrations/lark-cli/{folder}" for folder in ("config", "config/locks", "data", "runtime")
)

# Directories with a meaning of their own, where no skills may be: DeerFlow's three, and those of the container runtime.
_RESERVED = ("/mnt/user-data", "/mnt/acp-workspace", "/mnt/integrations/lark-cli", "/proc", "/sys", "/dev")


def container_paths(skills_path: str) -> frozenset[str]:
    """List the container paths that extra mounts may have with the skills at `skills_path`."""
    skills = {f"{skills_path}/{category}" for category in SKILL_CATEGORIES}
    return frozenset({"/mnt/acp-workspace", UPLOADS, *_LARK_PATHS, *skills})


def checked_skills_path(path: str | None) -> str:
    """Normalize `skills_container_path`, by default `/mnt/skills`. Raises BadRequest if no skills may be there."""
    if path is None:
        return DEFAULT_SKILLS_PATH
    # A colon ends a path for the container runtime; the API server refuses it.
    if not path.startswith("/") or ":" in path or ".." in path.split("/") or not path.isprintable():
        raise BadRequest("skills_container_path is not an absolute path without '..' and ':'")
    normal = normalized(path)
    if len(normal.encode()) > MAX_PATH_BYTES:
        raise BadRequest(f"skills_container_path has more than {MAX_PATH_BYTES} bytes")
    if normal == "/" or any(overlap(normal, reserved) for reserved in _RESERVED):
        raise BadRequest("skills_container_path overlaps a reserved directory: one of " + ", ".join(("/", *_RESERVED)))
    return normal


def checked_mounts(
    mounts: Sequence[ExtraMount], base: str | None, skills_path: str = DEFAULT_SKILLS_PATH
) -> tuple[ExtraMount, ...]:
    """Normalize the paths of `mounts` and sort them, parents before what is mounted below them.

    `base`: the directory of the node that all host paths must be below; None if the operator named none.
    Raises BadRequest at the first violation.
    """
    if not mounts:
        return ()
    if base is None:
        raise BadRequest("extra_mounts is not available here: the operator has not set DEER_FLOW_HOST_BASE_DIR")
    allowed = container_paths(skills_path)
    checked = [_checked(mount, base, allowed) for mount in mounts]
    seen: set[str] = set()
    for mount in checked:
        if mount.container_path in seen:
            raise BadRequest(f"extra_mounts names the container path {mount.container_path} twice")
        seen.add(mount.container_path)
    for parent in checked:
        for child in checked:
            _check_nested(parent, child)
    return tuple(sorted(checked, key=lambda mount: mount.container_path))


def _checked(mount: ExtraMount, base: str, allowed: frozenset[str]) -> ExtraMount:
    container_path = posixpath.normpath(mount.container_path)
    if container_path not in allowed or ".." in mount.container_path.split("/"):
        raise BadRequest("extra_mounts has a container path that is not one of " + ", ".join(sorted(allowed)))
    if container_path == UPLOADS and not mount.read_only:
        raise BadRequest(f"extra_mounts may have {UPLOADS} only with read_only")
    if not mount.host_path.startswith("/") or not mount.host_path.isprintable():
        raise BadRequest("extra_mounts has a host path that is not an absolute path")
    host_path = normalized(mount.host_path)
    if len(host_path.encode()) > MAX_PATH_BYTES:
        raise BadRequest(f"extra_mounts has a host path of more than {MAX_PATH_BYTES} bytes")
    if not host_path.startswith(base.rstrip("/") + "/"):
        raise BadRequest("extra_mounts has a host path outside the directory that the operator allows")
    return ExtraMount(host_path=host_path, container_path=container_path, read_only=mount.read_only)


def _check_nested(parent: ExtraMount, child: ExtraMount) -> None:
    """Raise BadRequest if the container runtime can't create the mount point of `child` in a read-only `parent`.

    It exists there if the child's source is that very directory of the parent's source.
    """
    below = child.container_path.removeprefix(parent.container_path)
    is_below = parent.read_only and below != child.container_path and below.startswith("/")
    if is_below and child.host_path != parent.host_path + below:
        raise BadRequest(
            f"extra_mounts mounts {child.container_path} below the read-only {parent.container_path}, whose host path "
            "does not contain it"
        )


def overlap(one: str, other: str) -> bool:
    """Whether the two normalized absolute paths are one, or one of them contains the other."""
    return f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")
