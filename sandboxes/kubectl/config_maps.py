"""Calls for the ConfigMaps that say where sandboxes are: reads in order, and replaces under a resourceVersion."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sandboxes import objects as kube
from sandboxes.errors import NamespaceMissing, ObjectsMissing
from sandboxes.kubectl.client import FIELD_MANAGER, GET, STORES
from sandboxes.kubectl.output import objects_created, objects_named

if TYPE_CHECKING:
    from sandboxes.kubectl.client import Kubectl
    from sandboxes.objects import KubeObject

# The API server compares the resourceVersion of the object. The objects are the provisioner's own, so that none needs
# to be validated.
REPLACE = ("replace", f"--field-manager={FIELD_MANAGER}", "--validate=false", "-o", "json", STORES, "-f", "-")


async def read_in_order(kubectl: Kubectl, references: list[KubeObject]) -> list[KubeObject]:
    """Return the referenced objects that exist, read one after the other in this order, by one kubectl."""
    try:
        return objects_named(await kubectl.run(*GET, stdin=_stdin(references)), references)
    except ObjectsMissing as error:
        # kubectl continues after a missing object, and prints the others.
        there = [one for one in references if _name(one) not in error.names]
        if len(there) == len(references):
            raise
        return objects_named(error.stdout, there) if there else []
    except NamespaceMissing:
        return []


async def replace(kubectl: Kubectl, obj: KubeObject) -> KubeObject:
    """Replace the object if its resourceVersion is unchanged, and return it as stored.

    Raises PreconditionFailed if it was changed, and ObjectsMissing if it is gone.
    """
    (stored,) = objects_created(await kubectl.run(*REPLACE, stdin=_stdin([obj])), [obj])
    return stored


def _stdin(objects: list[KubeObject]) -> bytes:
    return json.dumps(kube.as_list(objects), separators=(",", ":")).encode()


def _name(reference: KubeObject) -> tuple[str, str]:
    return kube.RESOURCES[reference["kind"]], reference["metadata"]["name"]
