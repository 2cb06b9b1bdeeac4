"""Files of templates that nobody meant to write: each is loaded, or refused in a sentence that names it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sandboxes.errors import StartupError
from sandboxes.settings import Settings
from sandboxes.spec.manifests import build, build_extras
from sandboxes.spec.options import CreateOptions, Sandbox
from sandboxes.spec.templates import load_template, load_templates
from sandboxes.spec.yaml_documents import MAX_BYTES
from tests.conftest import ROOT
from tests.record import case

SECRET = "hunter2"
POD = (ROOT / "manifests" / "sandbox" / "pod.yaml").read_text()
SERVICE = (ROOT / "manifests" / "sandbox" / "service.yaml").read_text()
HEAD = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n    - name: sandbox\n"
CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: sandbox-example-config}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pod.yaml").write_text(POD)
    (tmp_path / "service.yaml").write_text(SERVICE)
    return tmp_path


def refusal(folder: Path, name: str, content: str | bytes) -> str:
    """Write a file, which must be refused; return what is said of it."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(StartupError) as caught:
        load_template(folder)
    said = str(caught.value)
    assert said.startswith(f"The template {folder / name} ")
    assert said.endswith(".")
    assert "\n" not in said
    assert SECRET not in said
    return said


def laughs(levels: int) -> str:
    return "".join(
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" if level else "a0: &a0 [x]\n"
        for level in range(levels)
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: !!set {a, b}", "a tag that a manifest can't have (line 6)"),
        ("x: !!omap [a: 1]", "a tag that a manifest can't have (line 6)"),
        ("x: !!python/object/apply:os.getcwd []", "a tag that a manifest can't have (line 6)"),
        (f"x: !{SECRET} 1", "a tag that a manifest can't have (line 6)"),
        ("x: !!binary /w==", "a !!binary value that is not the base64 of a text (line 6)"),
        (f"x: *{SECRET}", "an alias without an anchor (line 6)"),
        ("x: &x {y: *x}", "an alias inside of what its anchor names (line 6)"),
        ("x: &x {<<: *x}", "an alias inside of what its anchor names (line 6)"),
        ("x: -.inf", "a number that JSON can't express (line 6)"),
        (laughs(9), "more than 100000 values"),
        ("x: " + "[" * 10_000, "nested more than 100 levels deep (line 6)"),
        ("x: " + "[" * 10_000 + "]" * 10_000, "nested more than 100 levels deep (line 6)"),
        ("x: " + "{a: " * 10_000, "nested more than 100 levels deep (line 6)"),
        ("x:\n" + "- " * 10_000 + "x", "nested more than 100 levels deep (line 7)"),
        ("x: &a0 [1]\n" + "".join(f"x{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 200)), "nested more than 100 levels"),
        (f"x: {SECRET}: {SECRET}", "it is not valid YAML: mapping values are not allowed in this context (line 6)"),
        (f"x: '{SECRET}", "it is not valid YAML"),
        ("...\nx: 1", "it is not valid YAML: did not find expected <document start> (line 7)"),
        ("x: 1\r---\ry: 2\r", "it goes on after the end of a document (line 7)"),
        (
            "  volumes:\n    - {name: user-data, persistentVolumeClaim: data}",
            "is wrong at spec.volumes.0.persistentVolumeClaim: Input should be a valid dictionary (line 7)",
        ),
        ("x: \udce4", "it is not UTF-8 (line 6)"),
        ("x: \0", "a control character (line 6)"),
        (f"---\n{HEAD}", "must hold exactly one Pod, and holds 2 documents"),
        (f"uid: {SECRET}\nmetadata:\n  labels: {{a: {SECRET}, b: y}}", "is wrong at metadata.labels.b: "),
        (
            "metadata:\n  annotations:\n    a: 2020-01-01\n    b: 1e3",
            "is wrong at metadata.annotations.b: Input should",
        ),
        ("metadata:\n  annotations:\n    a: 22:30\n    b: 0777", "should be a valid string (line 9)"),
    ],
)
def test_a_file_that_can_not_be_read_is_named_with_the_line(folder: Path, text: str, said: str) -> None:
    assert said in refusal(folder, "pod.yaml", (HEAD + text + "\n").encode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds 0 documents"),
        (b"# only a comment\n---\n---\n", "holds 0 documents"),
        (b"- kind: Pod\n", "holds a list"),
        (b"kind Pod\n", "holds a single value"),
        (b"apiVersion: v1\nkind: List\nitems: []\n", "holds an object of kind List"),
        (b"apiVersion: v1\nkind: [Pod]\n", "holds another object"),
        (b"apiVersion: v2\nkind: Pod\nspec: {}\n", "must hold exactly one Pod (v1)"),
        (b"\xff\xfea", "it is not UTF-16"),
        (b"[" * 10_000, "nested more than 100 levels deep"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "nested more than 100 levels deep"),
        (b'{"kind": "Pod", "x": 1e999}', "a number that JSON can't express"),
        (b"#" * (MAX_BYTES + 1), f"it has more than {MAX_BYTES} bytes"),
    ],
)
def test_a_file_that_is_no_pod_is_named_with_what_it_is(folder: Path, content: bytes, said: str) -> None:
    assert said in refusal(folder, "pod.yaml", content)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("apiVersion: [v1]\nkind: {a: b}\n", "may hold only objects of these kinds"),
        (f"{CONFIG}data: {{a: {SECRET}, b: yes}}\n", "is wrong at data.b: Input should be a valid string (line 4)"),
        (f"{CONFIG}data: {{a: {SECRET}: b}}\n", "it is not valid YAML"),
        (f"{CONFIG}binaryData: [{SECRET}]\n", "is wrong at binaryData: Input should be a valid dictionary (line 4)"),
        ('apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "a\\nb"}\n', 'names an object "a\\nb": it must be'),
    ],
)
def test_another_object_that_can_not_be_used_is_named(folder: Path, text: str, said: str) -> None:
    assert said in refusal(folder, "more.yaml", text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("metadata.uid", "a1cbc485-7bda-4764-a6a4-31c063265a62"),
        ("metadata.resourceVersion", "'251541'"),
        ("metadata.managedFields", "[]"),
        ("metadata.ownerReferences", "[{kind: ReplicaSet, name: a, uid: b}]"),
        ("metadata.deletionTimestamp", "2026-11-26T03:32:03Z"),
        ("status", "{phase: Running}"),
        ("status", "{conditions: [{type: Ready}]}"),
    ],
)
@pytest.mark.parametrize("name", ["pod.yaml", "service.yaml", "config.yaml"])
def test_an_exported_object_is_refused_by_the_field_that_tells(folder: Path, name: str, field: str, value: str) -> None:
    (folder / "config.yaml").write_text(CONFIG)
    text = (folder / name).read_text()
    if field.startswith("metadata.") and name == "config.yaml":
        text = text.replace("config}", f"config, {field.removeprefix('metadata.')}: {value}}}")
    elif field.startswith("metadata."):
        text = text.replace("metadata:\n", f"metadata:\n  {field.removeprefix('metadata.')}: {value}\n", 1)
    else:
        text += f"{field}: {value}\n"
    said = refusal(folder, name, text)
    assert f"exported from a cluster: remove the field {field} (line " in said


@pytest.mark.parametrize("field", ["clusterIP: 10.0.0.7", "clusterIPs: [10.0.0.7, 'fd00::7']"])
def test_a_service_with_the_address_of_another_is_refused(folder: Path, field: str) -> None:
    said = refusal(folder, "service.yaml", SERVICE.replace("spec:\n", f"spec:\n  {field}\n"))
    assert f"has the field spec.{field.partition(':')[0]} (line 14)" in said


def test_what_tools_print_and_the_cluster_ignores_is_left_out(folder: Path) -> None:
    metadata = "metadata:\n  creationTimestamp: null\n  generation: 1\n  uid: ~\n"
    (folder / "pod.yaml").write_text(POD.replace("metadata:\n", metadata, 1) + "status: {}\n")
    service = SERVICE.replace("metadata:\n", "metadata:\n  creationTimestamp: 2026-11-26T03:32:03Z\n", 1)
    service = service.replace("spec:\n", "spec:\n  clusterIP: None\n")
    (folder / "service.yaml").write_text(service + "status:\n  loadBalancer: {}\n  conditions: []\n")
    template = load_template(folder)
    for obj in (template.pod, template.service):
        assert "status" not in obj
        assert set(obj["metadata"]) <= {"name", "labels", "annotations"}
    assert template.service["spec"]["clusterIP"] == "None"


def test_text_in_binary_is_decoded(folder: Path) -> None:
    (folder / "more.yaml").write_text(f"{CONFIG}data: {{a: !!binary aGVsbG8=}}\n")
    assert load_template(folder).extras[0]["data"] == {"a": "hello"}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_other_encodings_and_line_ends_give_the_same_template(folder: Path, encoding: str, line_end: str) -> None:
    expected = load_template(folder)
    text = f"# \u00e4\n---\n{POD}---\n# the end\n".replace("\n", line_end)
    (folder / "pod.yaml").write_bytes(text.encode(encoding))
    (folder / "service.yaml").write_text(json.dumps(expected.service, indent="\t"))
    assert load_template(folder) == expected


def test_an_alias_is_a_value_of_its_own(folder: Path, make_settings: Callable[..., Settings]) -> None:
    text = POD.replace("      resources:\n", "      resources: &resources\n")
    text = text.replace("  volumes:\n", "    - {name: sidecar, image: 'a:1', resources: *resources}\n  volumes:\n")
    (folder / "pod.yaml").write_text(text)
    sandbox = Sandbox("a", "a", "a", asks=CreateOptions(limits=(("cpu", "8"),)))
    pod, _ = build(sandbox, load_template(folder), make_settings(), applied_at="2026-01-01T00:00:00Z")
    limits = [container["resources"]["limits"]["cpu"] for container in pod["spec"]["containers"]]
    assert limits == ["8", "1000m"]


def test_all_bad_files_of_all_templates_are_named_at_once(tmp_path: Path) -> None:
    for name, files in {
        "one": {"pod.yaml": "a: [", "service.yaml": "", "more.yml": "", "more.yaml": "- a", "other.yaml": "a: *b"},
        "two": {"service.yaml": SERVICE},
        "three": {"pod.yaml": POD, "service.yaml": SERVICE},
        "Four": {},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    with pytest.raises(StartupError) as caught:
        load_templates(("default", ROOT / "manifests" / "sandbox"), tmp_path, tmp_path / "none")
    lines = str(caught.value).splitlines()
    assert [re.sub(r" (can't|must|may|would|has).*", "", line) for line in lines] == [
        f"The folder of templates {tmp_path / 'none'}",
        f"The template {tmp_path / 'Four'}",
        *(
            f"The template {tmp_path / 'one' / file}"
            for file in ("pod.yaml", "service.yaml", "more.yaml", "more.yml", "other.yaml")
        ),
        f"The template {tmp_path / 'two' / 'pod.yaml'}",
    ]


FILES = st.sampled_from(["pod.yaml", "service.yaml", "more.yaml"])
# Pieces that mean something in YAML, so that made-up files get past its scanner.
WORDS = (
    "a kind: Pod spec: containers: name: sandbox metadata: labels: v1 apiVersion: ConfigMap - [ ] { } , : ? | > & * "
    "&a *a <<: ! !!binary !!int !!set '' \" # --- ... % @ ` ~ null y 1 0x1 .inf 1e400"
)
SIGNS = ("\n", "\r\n", "\t", " ", "\n  ", "\n- ", "\ufeff", "\x00", "\u2028", "\ud800")
PIECES = st.lists(st.sampled_from([*WORDS.split(), *SIGNS])).map(
    lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass")
)


def load_or_refuse(folder: Path, settings: Settings) -> None:
    """Load and render; whatever the files are, there is nothing but a template or one line for each bad file."""
    try:
        template = load_template(folder)
    except StartupError as error:
        for line in str(error).split("\n"):
            assert line.startswith(f"The template {folder}")
            assert line.endswith(".")
            assert line.isprintable()
            assert SECRET not in line
        return
    asks = CreateOptions(env=(("A", "b"),), limits=(("cpu", "1"),), requests=(("memory", "1Gi"),))
    sandbox = Sandbox("a", "t", "u", asks=asks)
    for part in (build, build_extras):
        json.dumps(part(sandbox, template, settings, applied_at="2026-01-01T00:00:00Z"), allow_nan=False).encode()


no_reset = examples(suppress_health_check=[HealthCheck.function_scoped_fixture])


@no_reset
@given(name=FILES, content=st.binary() | PIECES | st.text().map(lambda text: text.encode(errors="surrogatepass")))
def test_any_bytes_are_loaded_or_refused(
    folder: Path, make_settings: Callable[..., Settings], name: str, content: bytes
) -> None:
    (folder / name).write_bytes(content)
    load_or_refuse(folder, make_settings())


def parts_of(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*where, key)
        yield from parts_of(one, (*where, key))


def full_template() -> dict[str, Any]:
    """The shipped template, with a container, volume, variable or object for each thing that a render looks at."""
    template = load_template(ROOT / "manifests" / "sandbox")
    pod, service = copy.deepcopy(template.pod), copy.deepcopy(template.service)
    spec = pod["spec"]
    mount = {"name": "user-data", "mountPath": "/data", "subPath": "a", "subPathExpr": "$(B)", "readOnly": False}
    spec["initContainers"] = [{"name": "i", "image": "a:1", "env": [{"name": "B", "value": SECRET}]}]
    spec["initContainers"][0]["volumeMounts"] = [mount]
    spec["containers"].append(copy.deepcopy(spec["initContainers"][0]) | {"name": "sidecar"})
    spec["volumes"].append({"name": "c", "persistentVolumeClaim": {"claimName": "sandbox-example-data"}})
    spec["securityContext"] = {"seccompProfile": {"type": "RuntimeDefault"}}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "sandbox-example-a"}, "data": {"a": SECRET}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "sandbox-example-data"}}
    claim["spec"] = {"accessModes": ["ReadWriteOnce"]}
    return {"pod.yaml": pod, "service.yaml": service, "config.yaml": config, "claim.yaml": claim}


FULL = full_template()
PLACES = [where for where in parts_of(FULL) if len(where) > 1]
OTHERS: list[Any] = [
    None,
    True,
    0,
    1.5,
    "",
    "a",
    [],
    {},
    [None],
    [[]],
    ["a"],
    {"a": "b"},
    {"name": 1},
    [{"name": "sandbox"}],
]
CHANGES = st.tuples(st.sampled_from(PLACES), st.sampled_from(["drop", "twice", "wrap", *map(json.dumps, OTHERS)]))


def change(files: dict[str, Any], where: tuple[Any, ...], how: str) -> None:
    parent: Any = files
    for key in where[:-1]:
        try:
            parent = parent[key]
        except (KeyError, IndexError, TypeError):
            return  # an earlier change has taken it away
    key = where[-1]
    if not (key in parent if isinstance(parent, dict) else isinstance(parent, list) and key in range(len(parent))):
        return
    if how == "drop":
        del parent[key]
    elif how == "twice" and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    elif how in ("twice", "wrap"):
        parent[key] = [parent[key], copy.deepcopy(parent[key])]
    else:
        parent[key] = json.loads(how)


@no_reset
@given(changes=st.lists(CHANGES, min_size=1, max_size=3), pvc=st.booleans())
def test_any_change_of_a_template_is_loaded_or_refused(
    folder: Path, make_settings: Callable[..., Settings], changes: list[tuple[tuple[Any, ...], str]], *, pvc: bool
) -> None:
    files = copy.deepcopy(FULL)
    for where, how in changes:
        change(files, where, how)
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    load_or_refuse(folder, make_settings(**({"USERDATA_PVC_NAME": "data"} if pvc else {"THREADS_HOST_PATH": "/t"})))


@no_reset
@given(at=st.integers(0, 10_000), size=st.integers(0, 3), more=st.text(max_size=3) | st.sampled_from("{}[]:,&*!|>'\"#"))
def test_any_slip_of_the_keyboard_is_loaded_or_refused_without_the_text(
    folder: Path, make_settings: Callable[..., Settings], at: int, size: int, more: str
) -> None:
    text = (
        f"{CONFIG}data:\n  key: {SECRET}\n  other: '{SECRET}'\n  more: |\n    {SECRET}\n  list: {{a: \"{SECRET}\"}}\n"
    )
    place = at % len(text)
    changed = text[:place] + more + text[place + size :]
    (folder / "more.yaml").write_bytes(changed.encode(errors="surrogatepass"))
    load_or_refuse(folder, make_settings())


def test_the_recorded_export_is_refused_until_the_clusters_fields_are_gone(folder: Path) -> None:
    exported = copy.deepcopy(case("apply-exported-gone-no-uid").stdin)
    said = refusal(folder, "pod.yaml", json.dumps(exported))
    assert "remove the field metadata.resourceVersion, status." in said
    del exported["metadata"]["resourceVersion"], exported["status"]
    (folder / "pod.yaml").write_text(json.dumps(exported))
    assert load_template(folder).pod["spec"] == exported["spec"]
