"""DeerFlow's Lark CLI in a sandbox: an init container with the program, or a broker that keeps the credentials. Pure.

With LARK_CLI_INIT_IMAGE an init container copies the program into a volume that the sandbox can read. With
LARK_CLI_BROKER_IMAGE the sandbox gets a stub instead, which calls the broker: a sidecar, the only container that has
the credentials. The contract with these images is DeerFlow's (docs/how-to/deerflow.md).
"""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, Literal

from sandboxes.errors import BadRequest, StartupError
from sandboxes.objects import CONTAINER
from sandboxes.spec.mounts import overlap
from sandboxes.spec.volumes import extra_volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sandboxes.models.requests import CreateRequest, ExtraMount
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.options import Sandbox
    from sandboxes.spec.templates import Template

ROOT = "/mnt/integrations/lark-cli"
RUNTIME_PATH = f"{ROOT}/runtime"

# Where the sandbox would have each credential, and where the broker has it.
BROKER_PATHS = {
    f"{ROOT}/config": "/var/lark/config",
    f"{ROOT}/config/locks": "/var/lark/config/locks",
    f"{ROOT}/data": "/var/lark/data",
}
_BROKER_ROOT = "/var/lark"
_NAME_PREFIX = "lark-cli-"

# Where DeerFlow keeps a user's credentials, below the base directory; `*` is any user.
_CREDENTIALS = ("users", "*", "integrations", "lark-cli")

# Fields of a Pod that let the containers reach each other's files, or other sandboxes' brokers.
_SHARING = ("shareProcessNamespace", "hostPID", "hostNetwork")

_URL_VARIABLE = "DEERFLOW_LARK_BROKER_URL"
_BROKER_PORT = 8788
_BROKER_URL = f"http://127.0.0.1:{_BROKER_PORT}"
_BROKER = "lark-cli-broker"
_RUNTIME_VOLUME = "lark-cli-runtime"

# Both programs are some 100 MB of files. Requests and limits are set, since a ResourceQuota refuses a Pod without.
_RESOURCES = {
    "requests": {"cpu": "10m", "memory": "64Mi", "ephemeral-storage": "64Mi"},
    "limits": {"cpu": "500m", "memory": "256Mi", "ephemeral-storage": "512Mi"},
}
# The Pod may have no seccomp profile, for the browser of DeerFlow's image: these programs need no such exception.
_SECURITY: KubeObject = {
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
# The broker's image runs as root. DeerFlow's gateway keeps the credentials in folders of mode 0700, with its chart as
# user 1000: without these root can neither read nor change them.
_BROKER_SECURITY = {**_SECURITY, "capabilities": {"drop": ["ALL"], "add": ["DAC_OVERRIDE", "FOWNER"]}}

Lark = Literal["", "runtime", "broker"]


def lark_of(request: CreateRequest, settings: Settings) -> Lark:
    """Choose the form of the Lark CLI that the request asks for; where the broker's image is set, no other."""
    if settings.lark_cli_broker_image:
        return "broker" if request.provision_lark_cli_broker else ""
    return "runtime" if settings.lark_cli_init_image and request.provision_lark_cli_runtime else ""


def mounts_without_credentials(
    mounts: tuple[ExtraMount, ...], lark: Lark, settings: Settings
) -> tuple[tuple[ExtraMount, ...], tuple[ExtraMount, ...]]:
    """Split the extra mounts into all that the Pod has, and those among them that only the broker has.

    Credentials never reach the sandbox where a broker image is set, whatever the request says. An extra mount of the
    program is dropped where the Pod brings its own. Raises BadRequest if another mount would show the credentials.
    """
    if settings.lark_cli_broker_image:
        _check_apart(mounts, settings.base_directory or "")
    if settings.lark_cli_broker_image and lark != "broker":
        mounts = tuple(mount for mount in mounts if mount.container_path not in BROKER_PATHS)
    if lark:
        mounts = tuple(mount for mount in mounts if mount.container_path != RUNTIME_PATH)
    brokers = tuple(mount for mount in mounts if lark == "broker" and mount.container_path in BROKER_PATHS)
    return mounts, brokers


def _check_apart(mounts: tuple[ExtraMount, ...], base: str) -> None:
    """Raise BadRequest if a mount of the sandbox contains credentials or lies in them."""
    credentials = [mount for mount in mounts if mount.container_path in BROKER_PATHS]
    for mount in mounts:
        if mount in credentials:
            continue
        parts = mount.host_path.removeprefix(base.rstrip("/") + "/").split("/")
        # The shorter one decides: a folder above contains them, one below lies in them.
        is_kept = all(wanted in ("*", part) for wanted, part in zip(_CREDENTIALS, parts, strict=False))
        if is_kept or any(overlap(mount.host_path, one.host_path) for one in credentials):
            raise BadRequest(
                f"extra_mounts would show credentials of the Lark CLI at {mount.container_path}, which the operator "
                "keeps out of sandboxes"
            )


def check_templates(templates: Mapping[str, Template], settings: Settings) -> None:
    """Raise StartupError if the broker's image is set and a template would open the credentials to the sandbox.

    Restricted templates never get a broker.
    """
    if not settings.lark_cli_broker_image:
        return
    for template in templates.values():
        field = None if template.is_restricted else next(_defeating(template.pod["spec"]), None)
        if field is not None:
            raise StartupError(
                f"The template {template.file} can't be used with LARK_CLI_BROKER_IMAGE, which keeps credentials out "
                f"of sandboxes: remove or change {field}."
            )


def _defeating(spec: KubeObject) -> Iterator[str]:
    """Yield the fields of a Pod that share the broker's processes, network, name or folders with other containers."""
    yield from (f"spec.{field}" for field in _SHARING if spec.get(field))
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or []):
            where = f"spec.{kind}[{index}]"
            if container["name"].startswith(_NAME_PREFIX):
                yield f"{where}.name"
            for number, mount in enumerate(container.get("volumeMounts") or []):
                path = "/" + posixpath.normpath(mount["mountPath"]).lstrip("/")
                if any(f"{path}/".startswith(f"{root}/") for root in (ROOT, _BROKER_ROOT)):
                    yield f"{where}.volumeMounts[{number}].mountPath"


def add_lark(spec: KubeObject, container: KubeObject, sandbox: Sandbox, settings: Settings) -> None:
    """Add to a Pod's spec, and to its container `sandbox`, what the form that the request gets consists of."""
    if not sandbox.lark:
        return
    spec.setdefault("volumes", []).append({"name": _RUNTIME_VOLUME, "emptyDir": {}})
    container.setdefault("volumeMounts", []).append(_runtime_mount(read_only=True))
    init: KubeObject = {
        "imagePullPolicy": "IfNotPresent",
        "env": [{"name": "LARK_CLI_RUNTIME_DEST", "value": RUNTIME_PATH}],
        "volumeMounts": [_runtime_mount(read_only=False)],
        "resources": _RESOURCES,
        "securityContext": _SECURITY,
    }
    if sandbox.lark == "runtime":
        init = {"name": "lark-cli-init", "image": settings.lark_cli_init_image, **init}
    else:
        arguments = ["install-shim", RUNTIME_PATH]
        init = {"name": "lark-cli-shim-init", "image": settings.lark_cli_broker_image, "args": arguments, **init}
        spec["containers"].append(_broker(spec, sandbox, settings))
        others = [one for one in container.get("env") or [] if one.get("name") != _URL_VARIABLE]
        container["env"] = [*others, {"name": _URL_VARIABLE, "value": _BROKER_URL}]
    spec.setdefault("initContainers", []).append(init)


def port_owner(pod: KubeObject, port: int) -> str | None:
    """Return the name of the container that this port of a Pod belongs to, if that is not the sandbox's; else None.

    Containers of a Pod share its network. The broker listens without declaring its port.
    """
    spec = pod["spec"]
    for container in (*spec["containers"], *(spec.get("initContainers") or ())):
        declared = {one.get("containerPort") for one in container.get("ports") or ()}
        if container["name"] == _BROKER:
            declared.add(_BROKER_PORT)
        if container["name"] != CONTAINER and port in declared:
            return str(container["name"])
    return None


def _runtime_mount(*, read_only: bool) -> KubeObject:
    return {"name": _RUNTIME_VOLUME, "mountPath": RUNTIME_PATH, "readOnly": read_only}


def _broker(spec: KubeObject, sandbox: Sandbox, settings: Settings) -> KubeObject:
    """Build the sidecar, and add the volumes of the credentials to the Pod's spec."""
    mounts = []
    for index, mount in enumerate(sandbox.extra_mounts):
        if mount in sandbox.broker_mounts:
            volume, volume_mount = extra_volume(index, mount, settings)
            spec["volumes"].append(volume)
            path = BROKER_PATHS[mount.container_path]
            is_config = mount.container_path == f"{ROOT}/config"
            mounts.append({**volume_mount, "mountPath": path, "readOnly": mount.read_only or is_config})
    env = {"LARKSUITE_CLI_CONFIG_DIR": "/var/lark/config", "LARKSUITE_CLI_DATA_DIR": "/var/lark/data"}
    if settings.deerflow_lark_broker_deny_subcommands:
        env["DEERFLOW_LARK_BROKER_DENY_SUBCOMMANDS"] = settings.deerflow_lark_broker_deny_subcommands
    return {
        "name": _BROKER,
        "image": settings.lark_cli_broker_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve"],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "volumeMounts": mounts,
        "resources": _RESOURCES,
        "securityContext": _BROKER_SECURITY,
    }
