"""The syntax of names, labels and images: the same for every source of a value."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from sandboxes import grammar
from sandboxes.api.openapi.document import document
from sandboxes.api.params import parsed
from sandboxes.errors import StartupError, Unprocessable
from sandboxes.models.requests import OPTIONAL_FIELDS, CreateRequest
from sandboxes.service.listing import REPEATED, ListQuery
from sandboxes.settings import Settings
from sandboxes.spec.options import DEFAULT_TEMPLATE, validate
from sandboxes.spec.templates import Template

MakeSettings = Callable[..., Settings]

HEX = "0123456789abcdef" * 4
IMAGES = [
    "sandbox",
    "sandbox:1",
    "team/sandbox",
    "localhost/x",
    "localhost:5000/x",
    "localhost:5000",
    "registry.example.com/team/sandbox:1.2.3-rc.1_x",
    "Registry.Example.COM:5000/x",
    "REGISTRY/x",
    "10.0.0.1:5000/x:1",
    "[fd00::1]:5000/x:1",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/x:latest",
    "europe-docker.pkg.dev/my-project/my.repo/x__y/a--b_c.d:1",
    "xn--n3h.com/x",
    f"x@sha256:{HEX}",
    f"registry:5000/team/x:1@sha256:{HEX}",
    f"x@sha512:{HEX * 2}",
    f"x@multihash+base58:{HEX}",
    "x:_tag",
    "x:" + "t" * 128,
    "a/" * 200 + "a",
]
INVALID_IMAGES = [
    '"registry/sandbox:1"',
    "'sandbox:1'",
    "`sandbox`",
    "sandbox:1;",
    "{{ image }}",
    "$IMAGE",
    "<image>",
    "https://registry/x",
    "docker://x",
    "user@registry/x",
    "Sandbox",
    "registry/Team/x",
    "team/Sandbox:1",
    "/x",
    "x/",
    "a//b",
    "x:",
    "x@",
    "x:1:2",
    "x:-tag",
    "x:" + "t" * 129,
    "x:a b",
    "x@sha256:abc",
    "x@sha256:" + "g" * 64,
    "-x",
    "x-",
    "a..b",
    "a___b",
    "a._b",
    ".x/y",
    "host-/x",
    "registry:port/x",
    "my_registry:5000/x",
    "a b",
    "x\n",
    "bild:ä",
    "a" * 513,
]

KEYS = ["team", "A", "a-b_c.d9", "example.com/team", "a.b-c.d/X", "x" * 63, "x" * 64 + "/a", "a." * 126 + "a/x"]
INVALID_KEYS = [
    *("-a", "a-", ".a", "a b", "ä", "x" * 64, "/a", "a/", "a/b/c", "Example.com/a", "a_b/c", "-a/b", "a-/b"),
    *("a..b/x", ".a/x", "a./x", "a-.b/x", "a.-b/x", "a." * 127 + "a/x"),
]
VALUES = ["", "a", "A_b-c.9", "x" * 63]
INVALID_VALUES = ["-a", "a-", ".", "a b", "a/b", "a=b", "ä", "x" * 64]


class Validators:
    """All validators of labels and images; each returns None, or the message of the rejection."""

    def __init__(self, make_settings: MakeSettings, template: Template) -> None:
        self.make_settings = make_settings
        self.template = template
        self.settings = make_settings(ALLOW_FIELDS=",".join(OPTIONAL_FIELDS))

    def create(self, **fields: object) -> str | None:
        request = CreateRequest.model_validate({"sandbox_id": "a", **fields})
        try:
            validate(request, {DEFAULT_TEMPLATE: self.template}, self.settings)
        except Unprocessable as refused:
            return str(refused.fields[0]["msg"])
        return None

    def list(self, label: str) -> str | None:
        try:
            parsed(ListQuery, MultiDict(label=label), repeated=REPEATED)
        except Unprocessable as refused:
            return str(refused.fields[0]["msg"])
        return None

    def start(self, **variables: str) -> str | None:
        try:
            self.make_settings(**variables)
        except StartupError as refused:
            return str(refused)
        return None

    def document(self, label: str) -> bool:
        parameters = document()["paths"]["/api/sandboxes"]["get"]["parameters"]
        (schema,) = (one["schema"] for one in parameters if one["name"] == "label")
        return re.search(schema["items"]["pattern"], label) is not None


@pytest.fixture
def validators(make_settings: MakeSettings, template: Template) -> Validators:
    return Validators(make_settings, template)


@pytest.mark.parametrize("image", IMAGES)
def test_a_valid_image_is_accepted_by_create_and_by_settings(validators: Validators, image: str) -> None:
    assert validators.create(image=image) is None
    assert validators.start(SANDBOX_IMAGE=image) is None


@pytest.mark.parametrize("image", INVALID_IMAGES)
def test_an_invalid_image_is_rejected_alike_by_create_and_by_settings(validators: Validators, image: str) -> None:
    sentence = validators.create(image=image)
    assert sentence is not None
    assert sentence.startswith("It may hold an image reference")
    assert f". {sentence}." in str(validators.start(SANDBOX_IMAGE=image))


@pytest.mark.parametrize(
    ("key", "value", "is_valid"),
    [
        *((key, "x", True) for key in KEYS),
        *((key, "x", False) for key in INVALID_KEYS),
        *(("team", value, True) for value in VALUES),
        *(("team", value, False) for value in INVALID_VALUES),
    ],
)
def test_a_label_is_validated_alike_by_create_list_document_and_ingress(
    validators: Validators, key: str, value: str, is_valid: bool
) -> None:
    label = f"{key}={value}"
    accepted = {
        "create": validators.create(labels={key: value}) is None,
        "list": validators.list(label) is None,
        "document": validators.document(label),
        "pods": validators.start(SANDBOX_INGRESS_FROM=f"pod:{label}") is None,
        "namespaces": validators.start(SANDBOX_INGRESS_FROM=f"namespace:{label}") is None,
        "both": validators.start(SANDBOX_INGRESS_FROM=f"namespace:a=b/pod:{label}") is None,
    }
    assert accepted == dict.fromkeys(accepted, is_valid)


@pytest.mark.parametrize("key", INVALID_KEYS)
def test_annotation_keys_are_validated_like_label_keys(validators: Validators, key: str) -> None:
    assert validators.create(annotations={key: "x"}) == validators.create(labels={key: "x"}) is not None


def test_list_and_create_reject_a_label_with_the_same_message(validators: Validators) -> None:
    sentence = validators.create(labels={"a..b/x": "y"})
    assert sentence is not None
    assert sentence in str(validators.list("a..b/x=y"))


@pytest.mark.parametrize(
    ("name", "label", "subdomain"),
    [
        ("a", True, True),
        ("a-1", True, True),
        ("x" * 63, True, True),
        ("x" * 64, False, True),
        ("a.b", False, True),
        (".".join(["x" * 63] * 4)[:253], False, True),
        (".".join(["x" * 63] * 4)[:254], False, False),
        *((name, False, False) for name in ("", "A", "a_b", "-a", "a-", ".a", "a.", "a..b", "a\n", "ä")),
    ],
)
def test_names_of_claims_and_namespaces_are_validated_as_by_kubernetes(
    validators: Validators, name: str, label: bool, subdomain: bool
) -> None:
    assert grammar.is_dns_label(name) is label
    assert grammar.is_dns_name(name) is subdomain
    # An empty variable counts as unset.
    if name:
        assert (validators.start(SKILLS_PVC_NAME=name) is None) is subdomain
        assert (validators.start(SKILLS_PVC_NAME="a", K8S_NAMESPACE=name) is None) is label


@pytest.mark.parametrize("variable", ["NODE_HOST", "LISTEN_HOST", "K8S_TLS_SERVER_NAME", "ALLOWED_HOSTS"])
@pytest.mark.parametrize(
    ("host", "is_valid"),
    [
        *((host, True) for host in ("localhost", "host.docker.internal", "Node-1", "my_node", "10.0.0.1", "a.b.")),
        *((host, False) for host in ("a..b", "-a", "a-", ".a", "a:1", "http://a", "ä", "x" * 64, "a." * 127 + "a")),
    ],
)
def test_a_host_is_validated_alike_by_each_variable(
    validators: Validators, variable: str, host: str, is_valid: bool
) -> None:
    assert (validators.start(**{variable: host}) is None) is is_valid


ODD = st.text("aA0-_./=", max_size=8)


@given(key=ODD)
def test_the_key_pattern_agrees_with_the_key_messages(key: str) -> None:
    assert (re.fullmatch(grammar.KEY, key) is not None) is (grammar.key_problem(key) is None)


@pytest.mark.parametrize("part", ["a", "a-", "a.", "a_", "a/", "aA", "a:", "a@"])
def test_long_invalid_texts_are_rejected_without_catastrophic_backtracking(part: str) -> None:
    text = part * (500 // len(part)) + "!"
    assert grammar.key_problem(text)
    assert grammar.key_problem(f"{text[:200]}/!")
    assert grammar.label_value_problem(text)
    assert not grammar.is_dns_name(text[:200] + "!")
    with pytest.raises(ValueError, match="image reference"):
        grammar.check_image(text)
