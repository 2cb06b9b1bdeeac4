"""Validates create requests against templates and settings; no other module does. Pure.

Nothing reaches the cluster before these checks pass. The request's fields are in `models/requests.py`, their syntax is
in `grammar.py`, and `manifests.py` writes them into the objects.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sandboxes import objects as kube
from sandboxes.errors import BadRequest, FieldNotAllowed, InvalidField, Unprocessable
from sandboxes.grammar import QuantityError, check_image, key_problem, label_value_problem, parse_quantity
from sandboxes.models.requests import CLUSTER_FIELDS, MAX_ANNOTATION_BYTES, MAX_ENV_BYTES, OPTIONAL_FIELDS
from sandboxes.spec.lark import lark_of, mounts_without_credentials
from sandboxes.spec.mounts import DEFAULT_SKILLS_PATH, checked_mounts, checked_skills_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from decimal import Decimal

    from sandboxes.models.requests import CreateRequest, ExtraMount, ResourceRequirements
    from sandboxes.settings import Settings
    from sandboxes.spec.lark import Lark
    from sandboxes.spec.templates import Template

DEFAULT_TEMPLATE = "default"

# Kubernetes' `IsEnvVarName`, which also rejects `.` and names that start with `..`.
_ENV_NAME = re.compile(r"(?!\.\Z|\.\.)[-._a-zA-Z][-._a-zA-Z0-9]*")

# Labels that identify a sandbox's objects: the Service's selector and the provisioner's lists depend on them.
_RESERVED_KEYS = frozenset(kube.labels_of(""))
# `sandbox-provisioner/client` in manifests/deploy selects the clients that may connect to the provisioner.
_RESERVED_PREFIXES = frozenset({"provisioner", "sandbox-provisioner"})
_KUBERNETES_DOMAINS = ("kubernetes.io", "k8s.io", "x-k8s.io")

_Texts: TypeAlias = "tuple[tuple[str, str], ...]"


@dataclass(frozen=True)
class CreateOptions:
    """Validated options of a create request; fields that the request leaves out are None or empty.

    `requests` and `limits` are Kubernetes quantities by resource name.
    """

    template: str = DEFAULT_TEMPLATE
    image: str | None = None
    env: _Texts = ()
    requests: _Texts = ()
    limits: _Texts = ()
    labels: _Texts = ()
    annotations: _Texts = ()


NO_OPTIONS = CreateOptions()


@dataclass(frozen=True)
class Sandbox:
    """A validated create request."""

    sandbox_id: str
    thread_id: str
    user_id: str
    extra_mounts: tuple[ExtraMount, ...] = ()
    asks: CreateOptions = NO_OPTIONS
    skills_path: str = DEFAULT_SKILLS_PATH
    # True for a DeerFlow that keeps the skills by category: its requests have `include_legacy_skills`.
    knows_skill_categories: bool = False
    lark: Lark = ""
    # Extra mounts that only the broker of the Lark CLI gets.
    broker_mounts: tuple[ExtraMount, ...] = ()
    # Seconds; 0 means no limit, None the operator's default.
    ttl_seconds: int | None = None
    idle_timeout_seconds: int | None = None
    # Delete a lost Pod by force.
    force: bool = False


def check_allowed(fields: Mapping[str, object], settings: Settings) -> None:
    """Raise FieldNotAllowed with all the names if `fields` sets fields that the operator does not allow.

    Also takes a request before validation: a forbidden field is reported as such, even if its value is malformed.
    """
    refused = sorted(OPTIONAL_FIELDS.difference(settings.allow_fields))
    refused = [name for name in refused if fields.get(name) is not None]
    if refused:
        raise FieldNotAllowed(f"The operator does not allow these fields: {', '.join(refused)}")


def validate(request: CreateRequest, templates: Mapping[str, Template], settings: Settings) -> Sandbox:
    """Validate the request beyond its schema and return the sandbox to create.

    A template's resource request above a requested limit is lowered to that limit. Does not check which fields the
    operator allows; see `check_allowed`. Raises BadRequest for extra_mounts, Unprocessable for all other fields.
    """
    if settings.clusters_file is None:
        _refuse_clusters(request)
    options = _checked_options(request, templates, settings)
    if request.extra_mounts and templates[options.template].is_restricted:
        raise BadRequest(f"extra_mounts is not available with the template '{options.template}'")
    skills_path = checked_skills_path(request.skills_container_path)
    lark = "" if templates[options.template].is_restricted else lark_of(request, settings)
    mounts = checked_mounts(request.extra_mounts, settings.base_directory, skills_path)
    extra_mounts, broker_mounts = mounts_without_credentials(mounts, lark, settings)
    return Sandbox(
        sandbox_id=request.sandbox_id,
        thread_id=request.thread_id or request.sandbox_id,
        user_id=request.user_id,
        extra_mounts=extra_mounts,
        asks=options,
        skills_path=skills_path,
        knows_skill_categories="include_legacy_skills" in request.model_fields_set,
        lark=lark,
        broker_mounts=broker_mounts,
        ttl_seconds=request.ttl_seconds,
        idle_timeout_seconds=request.idle_timeout_seconds,
        force=bool(request.force),
    )


def _refuse_clusters(request: CreateRequest) -> None:
    """Raise Unprocessable if the request says something of clusters, and the operator lists none."""
    given = {name: value for name in sorted(CLUSTER_FIELDS) if (value := getattr(request, name)) is not None}
    if given:
        raise Unprocessable(
            [_problem("The operator lists no clusters (`CLUSTERS_FILE`)", value, name) for name, value in given.items()]
        )


def _checked_options(request: CreateRequest, templates: Mapping[str, Template], settings: Settings) -> CreateOptions:
    name = request.template if request.template is not None else DEFAULT_TEMPLATE
    template = templates.get(name)
    if template is None:
        raise Unprocessable([_problem("There is no template of this name", name, "template")])
    resources = _Resources(request.resources, template, settings)
    problems = [
        *_image_problems(request.image),
        *_env_problems(request.env or {}),
        *resources.problems,
        *_label_problems(request.labels or {}, template),
        *_annotation_problems(request.annotations or {}, template),
    ]
    if problems:
        raise Unprocessable(problems)
    return CreateOptions(
        template=name,
        image=request.image,
        env=_pairs(request.env),
        requests=_pairs(resources.requests),
        limits=_pairs(resources.limits),
        labels=_pairs(request.labels),
        annotations=_pairs(request.annotations),
    )


def _pairs(texts: Mapping[str, str] | None) -> _Texts:
    return tuple((texts or {}).items())


def _problem(sentence: str, value: object, *loc: str) -> InvalidField:
    return InvalidField(type="value_error", loc=["body", *loc], msg=sentence, input=value)


def _bytes(texts: Mapping[str, str]) -> int:
    """Return the size in kubectl's JSON, in bytes; Go's encoder escapes `<`, `>` and `&` to six bytes each."""
    text = json.dumps([*texts.keys(), *texts.values()], ensure_ascii=False)
    return len(text.encode(errors="replace")) + 5 * sum(text.count(sign) for sign in "<>&")


def _image_problems(image: str | None) -> Iterator[InvalidField]:
    if image is None:
        return
    try:
        check_image(image)
    except ValueError as error:
        yield _problem(f"It may hold {error}", image, "image")


def _env_problems(env: Mapping[str, str]) -> Iterator[InvalidField]:
    for name, value in env.items():
        if not _ENV_NAME.fullmatch(name):
            sentence = (
                "Variable names may contain letters, digits, `-`, `_` and `.`, and must not start with a digit or `..`"
            )
            yield _problem(sentence, name, "env", name)
        elif name == kube.REVISION_VARIABLE:
            yield _problem("This variable is reserved for the provisioner", name, "env", name)
        elif "\0" in value:
            yield _problem("A variable can't contain a NUL", value, "env", name)
    if _bytes(env) > MAX_ENV_BYTES:
        yield _problem(f"All names and values together must be at most {MAX_ENV_BYTES} bytes", env, "env")


class _Resources:
    """The requested resources merged with the template's, and the problems found in them."""

    def __init__(self, asked: ResourceRequirements | None, template: Template, settings: Settings) -> None:
        self.requests = dict((asked and asked.requests) or {})
        self.limits = dict((asked and asked.limits) or {})
        self._caps = {
            "cpu": settings.max_cpu,
            "memory": settings.max_memory,
            "ephemeral-storage": settings.max_ephemeral_storage,
        }
        self.problems = [*self._amount_problems("requests", self.requests)]
        self.problems += self._amount_problems("limits", self.limits)
        if not self.problems:
            self._merge(kube.sandbox_container(template.pod).get("resources") or {})

    def _amount_problems(self, kind: str, asked: Mapping[str, str]) -> Iterator[InvalidField]:
        for name, text in asked.items():
            sentence = self._amount_problem(name, text)
            if sentence:
                yield _problem(sentence, text, "resources", kind, name)

    def _amount_problem(self, name: str, text: str) -> str | None:
        if name not in self._caps:
            return f"A resource must be one of {', '.join(self._caps)}"
        try:
            amount = parse_quantity(text)
        except QuantityError as error:
            return f"The amount {error}"
        if amount <= 0:
            return "The amount must be more than 0"
        if amount > parse_quantity(self._caps[name]):
            return f"The amount must be at most {self._caps[name]}, which is the operator's limit"
        return None

    def _merge(self, of_template: Mapping[str, Mapping[str, object]]) -> None:
        for name in self._caps:
            # The API server accepts a YAML number as a quantity.
            request = self.requests.get(name) or str((of_template.get("requests") or {}).get(name, ""))
            limit = self.limits.get(name) or str((of_template.get("limits") or {}).get(name, ""))
            if not _is_above(request, limit):
                continue
            if name in self.requests:
                sentence = f"The request must be at most the limit, which is {limit}"
                self.problems.append(_problem(sentence, request, "resources", "requests", name))
            elif name in self.limits:
                self.requests[name] = limit


def _is_above(request: str, limit: str) -> bool:
    """Whether `request` exceeds `limit`; false if one is not a quantity, as in a template, which the cluster checks."""
    amounts: list[Decimal] = []
    for text in (request, limit):
        try:
            amounts.append(parse_quantity(text))
        except QuantityError:
            return False
    return amounts[0] > amounts[1]


def _label_problems(labels: Mapping[str, str], template: Template) -> Iterator[InvalidField]:
    taken = [kube.get_labels(obj) for obj in (template.pod, template.service) if "metadata" in obj]
    for key, value in labels.items():
        sentence = _key_problem(key) or _taken_problem(key, value, taken)
        if sentence:
            yield _problem(sentence, key, "labels", key)
        elif sentence := label_value_problem(value):
            yield _problem(sentence, value, "labels", key)


def _annotation_problems(annotations: Mapping[str, str], template: Template) -> Iterator[InvalidField]:
    taken = [kube.get_annotations(template.pod)] if "metadata" in template.pod else []
    for key, value in annotations.items():
        sentence = _key_problem(key) or _taken_problem(key, value, taken)
        if sentence:
            yield _problem(sentence, key, "annotations", key)
    if _bytes(annotations) > MAX_ANNOTATION_BYTES:
        sentence = f"All keys and values together must be at most {MAX_ANNOTATION_BYTES} bytes"
        yield _problem(sentence, annotations, "annotations")


def _key_problem(key: str) -> str | None:
    """Return the problem with the key of a label or an annotation, None for a valid one."""
    problem = key_problem(key)
    if problem:
        return problem
    prefix = key.rpartition("/")[0]
    if key in _RESERVED_KEYS or prefix in _RESERVED_PREFIXES:
        return "This key is reserved for the provisioner"
    if any(prefix == domain or prefix.endswith(f".{domain}") for domain in _KUBERNETES_DOMAINS):
        return f"The prefixes {' and '.join(_KUBERNETES_DOMAINS)} are reserved for Kubernetes"
    return None


def _taken_problem(key: str, value: str, taken: list[dict[str, str]]) -> str | None:
    """Return the problem if the template sets the key to another value; the operator's value wins."""
    return "The template sets this key" if any(marks.get(key, value) != value for marks in taken) else None
