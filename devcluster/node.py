"""The folders of the only node and of its claims, and what mounts find there. Pure: none is of this machine.

Every folder of the node and of claims exists, unless a test declares those of the node: then a claim has only the
folders that the kubelet made for a `subPath`. What an emptyDir or a Secret holds is always only that.
"""

import posixpath
from collections.abc import Iterable, Iterator
from itertools import count

from devcluster.objects import Json, metadata, namespace_of

_MADE_BY_KUBELET = ("DirectoryOrCreate", "")
"""Types of hostPath; the second one's folder is made by the container runtime."""

_PLUGINS = {"emptyDir": "empty-dir", "configMap": "configmap", "downwardAPI": "downward-api", "secret": "secret"}
_PODS = "/var/lib/kubelet/pods"
_TASKS = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
_START_ERROR = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: error mounting"
)


class Folders:
    """The folders that exist, by path; those of other volumes than hostPaths are named without a leading slash."""

    def __init__(self, declared: Iterable[str] | None) -> None:
        self._are_declared = declared is not None
        self._made: set[str] = set()
        for path in declared or ():
            self.make(path)

    def make(self, path: str) -> None:
        """Make a folder, with its parents."""
        path = posixpath.normpath(path)
        while path not in self._made:
            self._made.add(path)
            path = posixpath.dirname(path)

    def failed_mount(self, pod: Json) -> str:
        """Make the folders of the Pod's volumes; return the first one's error (`events-failed-mount`), or nothing."""
        for volume in pod["spec"].get("volumes") or ():
            source = volume.get("hostPath")
            if source is None:
                continue
            path = source["path"]
            if source.get("type", "") in _MADE_BY_KUBELET:
                self.make(path)
            elif source["type"] == "Directory" and not self._exists(path):
                return failed_mount(volume["name"], path)
        return ""

    def start_error(self, pod: Json, container: Json, ident: str) -> str:
        """Make the container's mount points; return the first one's error (`pod-nested-mount-read-only`), or nothing.

        `ident`: what the message calls the container.
        """
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes") or ()}
        mounts = sorted(container.get("volumeMounts") or (), key=lambda mount: mount["mountPath"].count("/"))
        for mount in mounts:
            if mount.get("subPath"):
                self.make(_source(pod, volumes[mount["name"]], mount))
        for mount in mounts:
            parent = _parent(mount["mountPath"], mounts)
            if parent is None:
                continue
            inside = mount["mountPath"].removeprefix(parent["mountPath"])
            folder = _source(pod, volumes[parent["name"]], parent) + inside
            if self._exists(folder):
                continue
            if _is_read_only(volumes[parent["name"]], parent):
                index = container["volumeMounts"].index(mount)
                where = _mounted_from(pod, volumes[mount["name"]], mount, f"{container['name']}/{index}")
                path = mount["mountPath"]
                made = f"mkdir {_TASKS}/{ident}/rootfs{path}: read-only file system"
                return f'{_START_ERROR} "{where}" to rootfs at "{path}": {made}'
            self.make(folder)
        return ""

    def _exists(self, path: str) -> bool:
        is_the_pods_own = path.startswith(_PODS[1:])
        return posixpath.normpath(path) in self._made or not (self._are_declared or is_the_pods_own)


def failed_mount(volume: str, path: str) -> str:
    """Return the kubelet's message for a hostPath that is no folder (`events-failed-mount`)."""
    return f'MountVolume.SetUp failed for volume "{volume}" : hostPath type check failed: {path} is not a directory'


def mount_retries() -> Iterator[float]:
    """Return the seconds after which the kubelet mounts again, each time: from 0.5 to 122 s."""
    return (min(0.5 * 2**tried, 122.0) for tried in count())


def _parent(path: str, mounts: list[Json]) -> Json | None:
    """Return the innermost mount that a mount point lies in."""
    around = [mount for mount in mounts if path.startswith(f"{mount['mountPath'].rstrip('/')}/")]
    return max(around, key=lambda mount: len(mount["mountPath"]), default=None)


def _source(pod: Json, volume: Json, mount: Json) -> str:
    """Return the folder that is mounted."""
    if "hostPath" in volume:
        root = str(volume["hostPath"]["path"])
    elif "persistentVolumeClaim" in volume:
        root = f"claims/{namespace_of(pod)}/{volume['persistentVolumeClaim']['claimName']}"
    else:
        root = f"{_PODS[1:]}/{metadata(pod)['uid']}/{volume['name']}"
    return posixpath.normpath(posixpath.join(root, mount.get("subPath", "")))


def _is_read_only(volume: Json, mount: Json) -> bool:
    """Whether no mount point can be made in it; the kubelet mounts what it writes itself read-only."""
    by_claim = (volume.get("persistentVolumeClaim") or {}).get("readOnly", False)
    return bool(mount.get("readOnly") or by_claim or {"configMap", "secret", "downwardAPI", "projected"} & set(volume))


def _mounted_from(pod: Json, volume: Json, mount: Json, number: str) -> str:
    """Return the path on the node from which the runtime mounts."""
    of_pod = f"{_PODS}/{metadata(pod)['uid']}"
    if mount.get("subPath"):
        return f"{of_pod}/volume-subpaths/{volume['name']}/{number}"
    if "hostPath" in volume:
        return str(volume["hostPath"]["path"])
    plugin = next((name for kind, name in _PLUGINS.items() if kind in volume), "projected")
    if "persistentVolumeClaim" in volume:
        return f"{of_pod}/volumes/kubernetes.io~csi/{volume['name']}/mount"
    return f"{of_pod}/volumes/kubernetes.io~{plugin}/{volume['name']}"
