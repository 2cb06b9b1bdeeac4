"""Defaults and validation of PersistentVolumeClaims. Pure."""

from devcluster.errors import Cause, forbidden_field, invalid_value, required, unsupported
from devcluster.objects import Json, clone, metadata
from devcluster.quantities import parse

PROTECTION = "kubernetes.io/pvc-protection"
_ACCESS_MODES = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"]
_IMMUTABLE = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"


def fill_in(claim: Json) -> None:
    """Set defaults that the schema lacks, in place."""
    claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
    claim.setdefault("status", {"phase": "Pending"})


def protect(claim: Json) -> None:
    """Add the finalizer that keeps a claim while a Pod uses it (StorageObjectInUseProtection), in place."""
    finalizers = metadata(claim).setdefault("finalizers", [])
    if PROTECTION not in finalizers:
        finalizers.append(PROTECTION)


def causes(claim: Json) -> list[Cause]:
    """Return the causes for which a claim's spec is invalid."""
    spec = claim["spec"]
    modes = spec.get("accessModes") or []
    found = [] if modes else [required("spec.accessModes", "at least 1 access mode is required")]
    found += [unsupported("spec.accessModes", mode, _ACCESS_MODES) for mode in modes if mode not in _ACCESS_MODES]
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        found.append(required("spec.resources[storage]"))
    elif parse(storage) <= 0:
        found.append(invalid_value("spec.resources[storage]", storage, "must be greater than zero"))
    return found


def update_causes(new: Json, old: Json) -> list[Cause]:
    """Refuse changes of the spec, except to the size and to an empty volume name."""
    before, after = clone(old["spec"]), clone(new["spec"])
    for spec in (before, after):
        spec.pop("resources", None)
    if not before.get("volumeName"):
        after.pop("volumeName", None)
    return [] if before == after else [forbidden_field("spec", _IMMUTABLE)]
