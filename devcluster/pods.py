"""Defaults and validation of Pods, and their immutable fields. Pure; starts nothing."""

import difflib
import json

from devcluster.errors import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    required,
    unsupported,
)
from devcluster.names import label_problems
from devcluster.objects import Json, JsonValue, clone, random_suffix
from devcluster.quantities import parse

PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
ACCOUNT_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_PULL_POLICIES = ["Always", "IfNotPresent", "Never"]
_RESTART_POLICIES = ["Always", "Never", "OnFailure"]
_HOST_PATH_TYPES = ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"]
_MODE = 0o644
_FIRST_PORT, _LAST_PORT = 1, 65535
_IMMUTABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def containers_of(pod: Json) -> list[Json]:
    """Return the Pod's containers and init containers."""
    spec = pod.get("spec") or {}
    return [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]


def fill_in(pod: Json) -> None:
    """Set defaults that the schema lacks, in place (`apply-real-ready`); see `admission` for those of admission."""
    spec = pod.setdefault("spec", {})
    for container in containers_of(pod):
        _fill_in_container(container)
    for volume in spec.get("volumes") or ():
        _fill_in_volume(volume)
    defaults = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
    }
    for name, value in defaults.items():
        spec.setdefault(name, value)
    pod["status"] = pod.get("status") or {"phase": "Pending", "qosClass": qos_class(pod)}


def _fill_in_container(container: Json) -> None:
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
    resources = container.setdefault("resources", {})
    if resources.get("limits"):
        resources["requests"] = {**resources["limits"], **(resources.get("requests") or {})}
    for name in PROBES:
        if name in container:
            _fill_in_probe(container[name])
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("imagePullPolicy", _pull_policy(container.get("image", "")))


def _pull_policy(image: str) -> str:
    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
    return "Always" if tag in ("", "latest") and "@" not in image else "IfNotPresent"


def _fill_in_probe(probe: Json) -> None:
    if "httpGet" in probe:
        probe["httpGet"].setdefault("path", "/")
        probe["httpGet"].setdefault("scheme", "HTTP")
    for name, value in {
        "timeoutSeconds": 1,
        "periodSeconds": 10,
        "successThreshold": 1,
        "failureThreshold": 3,
    }.items():
        if not probe.get(name):
            probe[name] = value


def _fill_in_volume(volume: Json) -> None:
    if set(volume) <= {"name"}:
        volume["emptyDir"] = {}
    if "hostPath" in volume:
        volume["hostPath"].setdefault("type", "")
    for source in ("configMap", "secret", "downwardAPI", "projected"):
        if source in volume:
            volume[source].setdefault("defaultMode", _MODE)


def add_token(pod: Json) -> None:
    """Mount the service account's token, in place, as its admission plugin does (`apply-create`, over HTTP)."""
    spec = pod["spec"]
    name = f"kube-api-access-{random_suffix()}"
    for container in containers_of(pod):
        mounts = container.setdefault("volumeMounts", [])
        if all(mount.get("mountPath") != ACCOUNT_PATH for mount in mounts):
            mounts.append({"name": name, "readOnly": True, "mountPath": ACCOUNT_PATH})
    reference = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": reference}]}},
    ]
    volume = {"name": name, "projected": {"sources": sources, "defaultMode": _MODE}}
    spec.setdefault("volumes", []).append(volume)


def qos_class(pod: Json) -> str:
    """Return the quality-of-service class, from the containers' resources."""
    guaranteed, best_effort = True, True
    for container in containers_of(pod):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        best_effort = best_effort and not limits and not requests
        for name in ("cpu", "memory"):
            guaranteed = (
                guaranteed and name in limits and parse(limits[name]) == parse(requests.get(name, limits[name]))
            )
    if best_effort:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def causes(pod: Json) -> list[Cause]:
    """Return the causes for which a Pod's spec is invalid."""
    spec = pod["spec"]
    volumes = spec.get("volumes") or []
    found = []
    for index, volume in enumerate(volumes):
        found += _volume_causes(volume, f"spec.volumes[{index}]")
    found += _name_causes(volumes, "spec.volumes")
    if not spec.get("containers"):
        return [*found, required("spec.containers")]
    names = {volume.get("name") for volume in volumes}
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or ()):
            found += _container_causes(container, f"spec.{group}[{index}]", names)
        found += _name_causes(spec.get(group) or [], f"spec.{group}")
    if spec["restartPolicy"] not in _RESTART_POLICIES:
        found.append(unsupported("spec.restartPolicy", spec["restartPolicy"], _RESTART_POLICIES))
    return found


def _name_causes(named: list[Json], at: str) -> list[Cause]:
    """Refuse a name that another one of the list has (`apply-port-name-twice`)."""
    names = [one.get("name") for one in named]
    return [
        duplicate(f"{at}[{index}].name", name) for index, name in enumerate(names) if name and name in names[:index]
    ]


def warnings(pod: Json) -> list[str]:
    """Return what the server warns of in a new Pod: a port that another one repeats (`create-port-twice`)."""
    found = []
    for number, container in enumerate(pod["spec"].get("containers") or ()):
        at = f"spec.containers[{number}].ports"
        ports = [(port.get("containerPort"), port.get("protocol")) for port in container.get("ports") or ()]
        for index, port in enumerate(ports):
            if port in ports[:index]:
                found.append(f"{at}[{index}]: duplicate port definition with {at}[{ports.index(port)}]")
    return found


def _volume_causes(volume: Json, at: str) -> list[Cause]:
    found = [invalid_value(f"{at}.name", volume["name"], problem) for problem in label_problems(volume["name"])]
    if len(set(volume) - {"name"}) > 1:
        found.append(
            forbidden_field(f"{at}.{sorted(set(volume) - {'name'})[1]}", "may not specify more than 1 volume type")
        )
    host_path = volume.get("hostPath")
    if host_path is not None:
        found += _host_path_causes(host_path, f"{at}.hostPath")
    if "persistentVolumeClaim" in volume and not volume["persistentVolumeClaim"].get("claimName"):
        found.append(required(f"{at}.persistentVolumeClaim.claimName"))
    return found


def _host_path_causes(source: Json, at: str) -> list[Cause]:
    """Refuse a path with `..` (`apply-hostpath-backstep`), and unknown types."""
    path = source.get("path", "")
    found = [] if path else [required(f"{at}.path")]
    if ".." in path.split("/"):
        found.append(invalid_value(f"{at}.path", path, "must not contain '..'"))
    if source["type"] not in _HOST_PATH_TYPES:
        found.append(unsupported(f"{at}.type", source["type"], _HOST_PATH_TYPES))
    return found


def _container_causes(container: Json, at: str, volumes: set[JsonValue]) -> list[Cause]:
    name, image = container.get("name", ""), container.get("image", "")
    found = [invalid_value(f"{at}.name", name, problem) for problem in label_problems(name)]
    if not image:
        found.append(required(f"{at}.image"))
    elif image != image.strip():
        found.append(invalid_value(f"{at}.image", image, "must not have leading or trailing whitespace"))
    for index, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort")
        if not _FIRST_PORT <= number <= _LAST_PORT:
            detail = "must be between 1 and 65535, inclusive"
            found.append(invalid_value(f"{at}.ports[{index}].containerPort", number, detail))
    found += _name_causes(container.get("ports") or [], f"{at}.ports")
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            found.append(required(f"{at}.env[{index}].name"))
    found += _mount_causes(container.get("volumeMounts") or [], at, volumes)
    found += _resource_causes(container["resources"], f"{at}.resources")
    if container["imagePullPolicy"] not in _PULL_POLICIES:
        found.append(unsupported(f"{at}.imagePullPolicy", container["imagePullPolicy"], _PULL_POLICIES))
    return found


def _mount_causes(mounts: list[Json], at: str, volumes: set[JsonValue]) -> list[Cause]:
    found = []
    seen = set()
    for index, mount in enumerate(mounts):
        here = f"{at}.volumeMounts[{index}]"
        if mount.get("name") not in volumes:
            found.append(Cause(f"{here}.name", "FieldValueNotFound", f'Not found: "{mount.get("name", "")}"'))
        path = mount.get("mountPath", "")
        if not path:
            found.append(required(f"{here}.mountPath"))
        if path in seen:
            found.append(invalid_value(f"{here}.mountPath", path, "must be unique"))
        seen.add(path)
        sub_path = mount.get("subPath", "")
        if sub_path.startswith("/"):
            found.append(invalid_value(f"{here}.subPath", sub_path, "must be a relative path"))
        if ".." in sub_path.split("/"):
            found.append(invalid_value(f"{here}.subPath", sub_path, "must not contain '..'"))
    return found


def _resource_causes(resources: Json, at: str) -> list[Cause]:
    """Refuse requests above their limits (`apply-request-over-limit`) and negative amounts."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    found = []
    for group, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            if parse(amount) < 0:
                detail = "must be greater than or equal to 0"
                found.append(invalid_value(f"{at}.{group}[{name}]", amount, detail))
    for name, amount in requests.items():
        if name in limits and parse(amount) > parse(limits[name]):
            detail = f"must be less than or equal to {name} limit of {limits[name]}"
            found.append(invalid_value(f"{at}.requests", amount, detail))
    return found


def update_causes(new: Json, old: Json) -> list[Cause]:
    """Refuse changes of immutable fields, which are nearly all of the spec (`apply-immutable-change`).

    Like the server, adds a diff to the message; but a server's diff shows Go structures.
    """
    before, after = _comparable(old, new), _comparable(new, new)
    if before == after:
        return []
    lines = difflib.unified_diff(_lines(before), _lines(after), n=3, lineterm="")
    diff = "\n".join(line for line in lines if not line.startswith(("---", "+++")))
    return [forbidden_field("spec", f"{_IMMUTABLE}\n{diff}\n")]


def _lines(spec: Json) -> list[str]:
    return json.dumps(spec, indent=1, sort_keys=True).splitlines()


def _comparable(pod: Json, new: Json) -> Json:
    """Return the spec with the mutable fields of `new`."""
    spec: Json = clone(pod["spec"])
    target = new["spec"]
    for group in ("containers", "initContainers"):
        images = {container["name"]: container.get("image") for container in target.get(group) or ()}
        for container in spec.get(group) or ():
            container["image"] = images.get(container["name"], container.get("image"))
    spec.pop("activeDeadlineSeconds", None)
    kept = spec.get("tolerations") or []
    if all(toleration in (target.get("tolerations") or []) for toleration in kept):
        spec["tolerations"] = target.get("tolerations") or []
    if target.get("terminationGracePeriodSeconds") == 1 and spec.get("terminationGracePeriodSeconds", 0) < 0:
        spec["terminationGracePeriodSeconds"] = 1
    return spec
