"""DeerFlow's Lark CLI in a sandbox: an init container with the program, or a broker that keeps the credentials. Pure.

With LARK_CLI_INIT_IMAGE an init container copies the program into a volume that the sandbox can read. With
LARK_CLI_BROKER_IMAGE the sandbox gets a stub instead, which calls the broker: a sidecar, the only container that has
the credentials. The contract with these images is DeerFlow's (docs/how-to/deerflow.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from sandboxes.spec.volumes import extra_volume

if TYPE_CHECKING:
    from sandboxes.models.requests import CreateRequest, ExtraMount
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.options import Sandbox

ROOT = "/mnt/integrations/lark-cli"
RUNTIME_PATH = f"{ROOT}/runtime"

# Where the sandbox would have each credential, and where the broker has it.
BROKER_PATHS = {
    f"{ROOT}/config": "/var/lark/config",
    f"{ROOT}/config/locks": "/var/lark/config/locks",
    f"{ROOT}/data": "/var/lark/data",
}
_URL_VARIABLE = "DEERFLOW_LARK_BROKER_URL"
_BROKER_URL = "http://127.0.0.1:8788"
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
    program is dropped where the Pod brings its own.
    """
    if settings.lark_cli_broker_image and lark != "broker":
        mounts = tuple(mount for mount in mounts if mount.container_path not in BROKER_PATHS)
    if lark:
        mounts = tuple(mount for mount in mounts if mount.container_path != RUNTIME_PATH)
    brokers = tuple(mount for mount in mounts if lark == "broker" and mount.container_path in BROKER_PATHS)
    return mounts, brokers


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
        "name": "lark-cli-broker",
        "image": settings.lark_cli_broker_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["serve"],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "volumeMounts": mounts,
        "resources": _RESOURCES,
        "securityContext": _BROKER_SECURITY,
    }
