"""Finds the kubeconfig files: those that the settings name, else one for the Pod's service account.

Several files, from KUBECONFIG, are merged by kubectl; those that do not exist are passed over, as kubectl does.
"""

from __future__ import annotations

import json
import logging
import os
from typing import TYPE_CHECKING

from sandboxes.cluster_settings import DEFAULT_KUBECONFIG
from sandboxes.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from sandboxes.settings import Settings

logger = logging.getLogger(__name__)


def named_kubeconfigs(settings: Settings) -> tuple[Path, ...]:
    """Return the paths that the settings name, with `~` expanded."""
    return tuple(
        map(_expanded, settings.kubeconfig if _variable(settings) == "KUBECONFIG" else (settings.kubeconfig_path,))
    )


def find_kubeconfigs(
    settings: Settings, environ: Mapping[str, str], directory: Path, service_account: Path
) -> tuple[Path, ...]:
    """Return the absolute paths of the kubeconfig: one that exists, or several of which at least one does.

    Missing ones among several are returned, too: kubectl reads them once they exist. Raises StartupError, also for one
    that can't be read, since kubectl would refuse all.
    """
    paths = named_kubeconfigs(settings)
    existing = [path for path in paths if _exists(path, _variable(settings))]
    if existing:
        return tuple(path.absolute() for path in paths)
    shown = _shown(paths)
    in_cluster = _service_account_kubeconfig(environ, directory, service_account)
    if in_cluster is None:
        raise StartupError(
            f"Kubeconfig not found at {shown}. Name one with KUBECONFIG_PATH, or run in a Pod with a service account."
        )
    logger.info("no kubeconfig at %s: using the Pod's service account", shown)
    return (in_cluster,)


def ignored_kubeconfigs(settings: Settings) -> Iterator[str]:
    """Yield a sentence for a kubeconfig that another kubectl would use, or an earlier version used, and we don't."""
    used = named_kubeconfigs(settings)
    default = _expanded(DEFAULT_KUBECONFIG)
    if _variable(settings) == "KUBECONFIG":
        if _can_be_read(default) and not _are_same((default,), used):
            yield f"KUBECONFIG names {_shown(used)}, so {default} is not read, which also exists."
    elif settings.kubeconfig and not _are_same(settings.kubeconfig, used):
        yield f"KUBECONFIG names {_shown(settings.kubeconfig)} and is not read: KUBECONFIG_PATH names {_shown(used)}."


def _variable(settings: Settings) -> str:
    """Return the variable that names the kubeconfig: KUBECONFIG_PATH, unless only KUBECONFIG is set."""
    return (
        "KUBECONFIG"
        if settings.kubeconfig and "kubeconfig_path" not in settings.model_fields_set
        else "KUBECONFIG_PATH"
    )


def _expanded(path: Path) -> Path:
    """Return the path with `~` expanded, if there is a home directory."""
    try:
        return path.expanduser()
    except RuntimeError:  # no HOME and no entry in the user database
        return path


def _shown(paths: tuple[Path, ...]) -> str:
    return os.pathsep.join(map(str, paths))


def _are_same(others: tuple[Path, ...], used: tuple[Path, ...]) -> bool:
    """Whether `others` are among the used files, or copies of them."""
    return all(any(_is_same(other, one) for one in used) for other in others)


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.absolute() == other.absolute() or one.samefile(other) or one.read_bytes() == other.read_bytes()
    except OSError:
        return False


def _can_be_read(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _exists(path: Path, variable: str) -> bool:
    """Whether the file exists. Raises StartupError if it is a directory or can't be read."""
    try:
        if path.is_dir():
            raise StartupError(f"Kubeconfig path is a directory: {path}. {variable} must name a file.")
        path.read_bytes()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StartupError(_unreadable(path)) from error
    return True


def _unreadable(path: Path) -> str:
    """Return the message about a kubeconfig that we may not read, with the line of a compose file that mends it."""
    told, owner = str(path), _stat(path)
    if owner is None:
        # The file's owner is not known. Most likely it is the folder's.
        folder = next((one for one in path.absolute().parents if _stat(one)), path.parent)
        owner = _stat(folder)
        told += f", in a folder that we may not enter. {folder}"
    if owner is None:
        return f"Kubeconfig can't be read: {path}. We run as uid {os.getuid()}."
    told += f" belongs to uid {owner.st_uid} and has mode {owner.st_mode & 0o7777:04o}"
    message = f"Kubeconfig can't be read: {told}. We run as uid {os.getuid()}."
    if owner.st_uid == os.getuid():
        return message
    line = f'user: "{owner.st_uid}:{owner.st_gid}"'
    return f"{message} To run as its owner, add this line to the service in the compose file: {line}"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _service_account_kubeconfig(environ: Mapping[str, str], directory: Path, service_account: Path) -> Path | None:
    """Write a kubeconfig for the Pod's service account; return its path, or None outside of a Pod.

    --server disables kubectl's own in-cluster configuration (kubectl.md 10). kubectl reads a tokenFile again when the
    token rotates.
    """
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT")
    token, ca = service_account / "token", service_account / "ca.crt"
    if not (host and port and token.is_file() and ca.is_file()):
        return None
    host = f"[{host}]" if ":" in host else host
    cluster = {"server": f"https://{host}:{port}", "certificate-authority": str(ca)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "in-cluster",
        "clusters": [{"name": "in-cluster", "cluster": cluster}],
        "users": [{"name": "service-account", "user": {"tokenFile": str(token)}}],
        "contexts": [{"name": "in-cluster", "context": {"cluster": "in-cluster", "user": "service-account"}}],
    }
    path = directory / "kubeconfig.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(config), encoding="utf-8")
    return path
