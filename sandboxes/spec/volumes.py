"""Volumes of a sandbox and where they are mounted: settings and request in, Kubernetes objects out. Pure.

The rules are those that DeerFlow's clients need (docs/how-to/deerflow.md):

- An extra mount replaces the built-in mount of the same container path.
- Nothing is mounted below a read-only mount: the container runtime can't create the mount point there. So the skills
  are mounted whole only where nothing lies below them, else by category.
- `readOnly` is set at the mount and never at a claim's source: two volumes of one claim in a Pod share what the kubelet
  mounts, so a read-only source makes user data read-only, too.
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from sandboxes import objects as kube

if TYPE_CHECKING:
    from sandboxes.models.requests import ExtraMount
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.options import Sandbox

USER_DATA_PATH = "/mnt/user-data"

# Root of the paths on the claim of USERDATA_PVC_NAME.
CLAIM_ROOT = "deer-flow"

# Categories of the skills that the service mounts itself, and whether each user has a folder of their own.
_CATEGORIES = {"public": False, "custom": True, "legacy": True}


class Mounted(NamedTuple):
    """A volume of the Pod, and its mount in the container `sandbox`."""

    volume: KubeObject
    mount: KubeObject


def volumes_of(sandbox: Sandbox, settings: Settings) -> list[Mounted]:
    """List the volumes with their mounts in the container `sandbox`, parents before what is mounted below them."""
    extra = [
        extra_volume(index, mount, settings)
        for index, mount in enumerate(sandbox.extra_mounts)
        if mount not in sandbox.broker_mounts
    ]
    return [*_skills(sandbox, settings), _user_data(sandbox, settings), *extra]


def extra_volume(index: int, mount: ExtraMount, settings: Settings) -> Mounted:
    """Build the volume of an extra mount: a directory of the node, or a folder of the user data claim.

    `index`: position in the request's `extra_mounts`, which names the volume.
    """
    relative = mount.host_path.removeprefix((settings.base_directory or "").rstrip("/") + "/")
    source = _source(mount.host_path, relative, settings, must_exist=mount.read_only)
    return _mounted(f"extra-{index}", source, mount.container_path, read_only=mount.read_only)


class _Source(NamedTuple):
    """A volume's source in the Pod, and the folder of it that is mounted (empty: all of it)."""

    volume: KubeObject
    sub_path: str = ""


def _source(host_path: str, relative: str, settings: Settings, *, must_exist: bool) -> _Source:
    """Locate a directory below the base directory: on the node, or on the user data claim if there is one."""
    if settings.userdata_pvc_name:
        return _Source(_claim(settings.userdata_pvc_name), f"{CLAIM_ROOT}/{relative}")
    return _Source(_host_path(host_path, "Directory" if must_exist else "DirectoryOrCreate"))


def _claim(name: str) -> KubeObject:
    return {"persistentVolumeClaim": {"claimName": name}}


def _host_path(path: str, kind: str) -> KubeObject:
    return {"hostPath": {"path": path, "type": kind}}


def _mounted(name: str, source: _Source, path: str, *, read_only: bool | None = None) -> Mounted:
    mount: KubeObject = {"name": name, "mountPath": path}
    if read_only is not None:
        mount["readOnly"] = read_only
    if source.sub_path:
        mount["subPath"] = source.sub_path
    return Mounted({"name": name, **source.volume}, mount)


def _skills(sandbox: Sandbox, settings: Settings) -> list[Mounted]:
    root = sandbox.skills_path
    taken = {mount.container_path for mount in sandbox.extra_mounts}
    operators = _operators_skills(sandbox, settings)
    if operators is not None and not any(path.startswith(f"{root}/") for path in taken):
        return [_mounted(kube.SKILLS_VOLUME, operators, root, read_only=True)]
    sources = _categories(sandbox, settings)
    if operators is not None:
        sources["public"] = _below(operators, "public")
    return [
        _mounted(f"skills-{category}", sources[category], f"{root}/{category}", read_only=True)
        for category in _CATEGORIES
        if category in sources and f"{root}/{category}" not in taken
    ]


def _categories(sandbox: Sandbox, settings: Settings) -> dict[str, _Source]:
    """Locate the folders that DeerFlow keeps for each category of skills.

    Empty where they do not exist: a Pod that mounts a missing directory never starts.
    """
    base = settings.base_directory
    if base is None or not (settings.deer_flow_host_base_dir or sandbox.knows_skill_categories):
        return {}
    found = {}
    for category, is_users in _CATEGORIES.items():
        relative = f"users/{sandbox.user_id}/skills_view/{category}" if is_users else f"skills_view/{category}"
        found[category] = _source(posixpath.join(base, relative), relative, settings, must_exist=True)
    return found


def _operators_skills(sandbox: Sandbox, settings: Settings) -> _Source | None:
    """Locate the skills of SKILLS_PVC_NAME, else of SKILLS_HOST_PATH; None if neither is set."""
    if settings.skills_pvc_name:
        template = settings.skills_pvc_subpath_template or ""
        sub_path = template.format(user_id=sandbox.user_id, thread_id=sandbox.thread_id)
        return _Source(_claim(settings.skills_pvc_name), sub_path)
    if settings.skills_host_path:
        return _Source(_host_path(settings.skills_host_path, "Directory"))
    return None


def _below(source: _Source, folder: str) -> _Source:
    if "hostPath" in source.volume:
        host_path = source.volume["hostPath"]
        return _Source(_host_path(posixpath.join(host_path["path"], folder), host_path["type"]))
    return _Source(source.volume, posixpath.join(source.sub_path, folder))


def _user_data(sandbox: Sandbox, settings: Settings) -> Mounted:
    if settings.userdata_pvc_name:
        relative = f"users/{sandbox.user_id}/threads/{sandbox.thread_id}/user-data"
        source = _Source(_claim(settings.userdata_pvc_name), f"{CLAIM_ROOT}/{relative}")
    elif settings.threads_host_path:
        source = _Source(_host_path(_thread_path(settings.threads_host_path, sandbox), "DirectoryOrCreate"))
    else:
        source = _Source({"emptyDir": {}})
    return _mounted(kube.USER_DATA_VOLUME, source, USER_DATA_PATH)


def _thread_path(template: str, sandbox: Sandbox) -> str:
    """Fill in THREADS_HOST_PATH; without `{thread_id}` in it, the thread's folder is below it."""
    folder = "user-data" if "{thread_id}" in template else f"{sandbox.thread_id}/user-data"
    path = template.format(user_id=sandbox.user_id, thread_id=sandbox.thread_id)
    return f"{path.rstrip('/')}/{folder}"
