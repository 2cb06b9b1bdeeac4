"""Discovery: the server's version and its resources, in the three formats that kubectl requests.

Aggregated (`apply-create-cold`: v2 for kubectl since 1.30, v2beta1 since 1.26), and one document per group for older
clients and any other Accept header. Pure.
"""

from devcluster.objects import Json
from devcluster.resources import GROUPS, RESOURCES, Resource

VERSION: Json = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "$Format:%H$",
    "gitTreeState": "",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.26.6",
    "compiler": "gc",
    "platform": "linux/amd64",
}
"""As recorded in `version`: the version whose rules and messages devcluster copies."""

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
_STATUS_VERBS = ["get", "patch", "update"]


def aggregated_version(accept: str) -> str:
    """Return the first version of aggregated discovery in an Accept header: `v2`, `v2beta1`, or an empty string."""
    for media_type in accept.split(","):
        parameters = {part.strip() for part in media_type.split(";")}
        if "as=APIGroupDiscoveryList" in parameters:
            for version in ("v2", "v2beta1"):
                if f"v={version}" in parameters:
                    return version
    return ""


def aggregated_media_type(version: str) -> str:
    """Return the content type of an aggregated answer."""
    return _AGGREGATED.format(version=version)


def aggregated(version: str, *, core: bool) -> Json:
    """Return `/api` or `/apis` in aggregated form."""
    wanted = [("", "v1")] if core else list(GROUPS)
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": [_group(group, group_version) for group, group_version in wanted],
    }


def _group(group: str, version: str) -> Json:
    described = [_described(resource) for resource in _served(group, version)]
    return {
        "metadata": {"name": group} if group else {},
        "versions": [{"version": version, "resources": described, "freshness": "Current"}],
    }


def _described(resource: Resource) -> Json:
    described: Json = {
        "resource": resource.plural,
        "responseKind": {"group": "", "version": "", "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        described["shortNames"] = list(resource.short_names)
    if resource.categories:
        described["categories"] = list(resource.categories)
    if resource.has_status:
        kind = {"group": "", "version": "", "kind": resource.kind}
        described["subresources"] = [{"subresource": "status", "responseKind": kind, "verbs": _STATUS_VERBS}]
    return described


def _served(group: str, version: str) -> list[Resource]:
    return [resource for resource in RESOURCES if (resource.group, resource.version) == (group, version)]


def legacy(path: str, address: str) -> Json | None:
    """Return the unaggregated document at a path, or None if there is none."""
    if path == "/api":
        servers = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": servers}
    if path == "/apis":
        groups = [_legacy_group(group, version) for group, version in GROUPS]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    if path == "/api/v1":
        return _legacy_resources("", "v1")
    for group, version in GROUPS:
        if path == f"/apis/{group}":
            return {"kind": "APIGroup", "apiVersion": "v1", **_legacy_group(group, version)}
        if path == f"/apis/{group}/{version}":
            return _legacy_resources(group, version)
    return None


def _legacy_group(group: str, version: str) -> Json:
    described = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [described], "preferredVersion": described}


def _legacy_resources(group: str, version: str) -> Json:
    listed = []
    for resource in _served(group, version):
        entry: Json = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": list(resource.verbs),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        listed.append(entry)
        if resource.has_status:
            status = {"name": f"{resource.plural}/status", "singularName": "", "verbs": _STATUS_VERBS}
            listed.append({**entry, **status})
    group_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}
