"""Validates create requests and builds their objects."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from sandboxes.errors import Unprocessable
from sandboxes.models.requests import OPTIONAL_FIELDS, CreateRequest
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build
from sandboxes.spec.options import DEFAULT_TEMPLATE, CreateOptions, Sandbox, validate
from sandboxes.spec.templates import Template

MakeSettings = Callable[..., Settings]
AT = "2026-01-01T00:00:00.000000Z"
ALL = ",".join(sorted(OPTIONAL_FIELDS))


class Validator:
    """Validates requests and builds their objects; every field is allowed."""

    def __init__(self, make_settings: MakeSettings, template: Template) -> None:
        self.settings = make_settings(ALLOW_FIELDS=ALL)
        self.template = Template(copy.deepcopy(template.pod), copy.deepcopy(template.service))

    def __call__(self, **fields: Any) -> CreateOptions:
        request = CreateRequest.model_validate({"sandbox_id": "a", **fields})
        return validate(request, {DEFAULT_TEMPLATE: self.template, "other": self.template}, self.settings).asks

    def problems(self, **fields: Any) -> list[tuple[list[Any], str]]:
        """Return `loc` without its `body`, and `msg`, of each invalid field."""
        with pytest.raises(Unprocessable) as caught:
            self(**fields)
        assert all(field["loc"][0] == "body" for field in caught.value.fields)
        return [(field["loc"][1:], field["msg"]) for field in caught.value.fields]

    def locations(self, **fields: Any) -> list[list[Any]]:
        return [loc for loc, _ in self.problems(**fields)]

    def built(self, **fields: Any) -> tuple[Any, Any]:
        """Return the Pod and the Service of the request."""
        pod, service = build(Sandbox("a", "t", "u", asks=self(**fields)), self.template, self.settings, applied_at=AT)
        return pod, service

    def container(self, **fields: Any) -> Any:
        return self.built(**fields)[0]["spec"]["containers"][0]

    def set_template(self, **resources: dict[str, str]) -> None:
        self.template.pod["spec"]["containers"][0]["resources"] = resources


# Keys of labels and annotations.
VALID_KEYS = [
    "team",
    "A",
    "a-b_c.d9",
    "example.com/team",
    "a.b-c.d/X",
    "x" * 63,
    "notkubernetes.io/x",
    "kubernetes.io.x/y",
]
INVALID_KEYS = [
    *("", "-a", "a-", ".a", "a b", "a\n", "ä", "x" * 64, "/a", "a/", "a/b/c", "Example.com/a", "a_b/c", "-a/b"),
    "x" * 254 + "/a",
    # of the service
    *("app", "sandbox-id", "app.kubernetes.io/name", "app.kubernetes.io/managed-by"),
    *("provisioner/thread-id", "provisioner/anything"),
    # of Kubernetes
    *("kubernetes.io/x", "k8s.io/x", "topology.kubernetes.io/zone", "node.k8s.io/x", "app.kubernetes.io/version"),
]
