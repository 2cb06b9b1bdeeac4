"""The seccomp profile of a sandbox's Pod. Pure.

Chromium in DeerFlow's image sandboxes its own processes with system calls that the profile `RuntimeDefault` refuses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandboxes.grammar import image_name

if TYPE_CHECKING:
    from sandboxes.objects import KubeObject
    from sandboxes.settings import Settings
    from sandboxes.spec.templates import Template

RUNTIME_DEFAULT = "RuntimeDefault"

# Name of DeerFlow's image, in any registry.
ALL_IN_ONE = "all-in-one-sandbox"


def set_seccomp(spec: KubeObject, template: Template, image: str, settings: Settings) -> None:
    """Set the profile in the spec of a Pod whose sandbox has this image; leave the template's own, or none.

    None is not `Unconfined`, which the Pod Security Standard `baseline` refuses.
    """
    if template.is_restricted:
        profile: str | None = RUNTIME_DEFAULT
    elif settings.sandbox_seccomp or "seccompProfile" in spec.get("securityContext", {}):
        profile = settings.sandbox_seccomp
    else:
        profile = None if is_all_in_one(image) else RUNTIME_DEFAULT
    if profile:
        spec.setdefault("securityContext", {})["seccompProfile"] = {"type": profile}


def is_all_in_one(image: str) -> bool:
    """Whether the image is DeerFlow's, by the last component of its path, of any registry, tag or digest."""
    return image_name(image) == ALL_IN_ONE
