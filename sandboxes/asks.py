"""What a caller may ask for beyond the contract's own fields. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandboxes.models import CreateRequest
    from sandboxes.settings import Settings
    from sandboxes.templates import Template

DEFAULT_TEMPLATE = "default"


@dataclass(frozen=True)
class Asks:
    """What was asked for, checked: allowed by the operator and well formed. Empty where nothing was asked.

    `requests` and `limits`: Kubernetes quantities by resource name.
    """

    template: str = DEFAULT_TEMPLATE
    image: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    requests: tuple[tuple[str, str], ...] = ()
    limits: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()


NOTHING_ASKED = Asks()


def checked_asks(request: CreateRequest, templates: Mapping[str, Template], settings: Settings) -> Asks:
    """Return what the request asks for.

    Raises FieldNotAllowed if the operator does not allow a field, Unprocessable if it holds what it may not hold.
    """
    del templates, settings
    return Asks(template=request.template or DEFAULT_TEMPLATE)
