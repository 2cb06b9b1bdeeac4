"""Whatever bytes a kubeconfig has: the start works or ends with one sentence, and nothing of the content comes out."""

from __future__ import annotations

import copy
import logging
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from sandboxes.errors import StartupError
from sandboxes.kubectl.config import connect
from sandboxes.kubectl.credentials import Credentials
from sandboxes.kubectl.kubeconfig import read_kubeconfig
from sandboxes.kubectl.stderr import classify
from sandboxes.kubectl.withheld import repeatable
from sandboxes.masking import hide
from sandboxes.settings import Settings
from tests.logs import Log
from tests.marker import MARKER, shows

MakeSettings = Callable[..., Settings]

VALID: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "here",
    "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", "proxy-url": f"http://u:{MARKER}@p:1"}}],
    "users": [
        {"name": "u", "user": {"token": MARKER}},
        {"name": "v", "user": {"exec": {"command": "login", "args": ["--key", MARKER], "env": [], "apiVersion": "v1"}}},
    ],
    "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
}
SCALARS: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just(MARKER) | st.just([]) | st.just({})
)


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


PLACES = list(places(VALID))


def changed(changes: list[tuple[tuple[Any, ...], str, Any]]) -> bytes:
    """Delete, double, replace or move nodes of a good kubeconfig."""
    config = copy.deepcopy(VALID)
    for path, how, value in changes:
        parent: Any = config
        try:
            for key in path[:-1]:
                parent = parent[key]
            node = parent[path[-1]]
            if how == "delete":
                del parent[path[-1]]
            elif how == "replace":
                parent[path[-1]] = value
            elif how == "wrap":
                parent[path[-1]] = [node]
            elif isinstance(parent, list):
                parent.append(copy.deepcopy(node))
            else:
                parent[f"{path[-1]}{value}"] = copy.deepcopy(node)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has removed the place
    return yaml.safe_dump(config, allow_unicode=True).encode(errors="replace")


CHANGED = st.lists(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(["delete", "double", "replace", "wrap"]), SCALARS), max_size=4
).map(changed)
CUT = st.tuples(CHANGED, st.integers(0, 900), st.binary(max_size=4)).map(
    lambda one: one[0][: one[1]] + one[2] + one[0][one[1] :]
)
ENCODED = CHANGED.flatmap(
    lambda text: st.sampled_from([text.decode().encode(name) for name in ("utf-16", "utf-8-sig", "utf-32")])
)
ANY = st.binary(max_size=200) | CHANGED | CUT | ENCODED


@given(content=ANY)
@example(content=b"\x00")
@example(content=b"&a [*a]")
@example(content=b"users: [" * 2000)
def test_any_bytes_are_read_without_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """If they are read whole, what kubectl would quote of them is hidden."""
    found = read_kubeconfig(content)
    # A valid document that still has its token where tokens stand.
    if found.is_whole and b"  token: " + MARKER.encode() in content:
        assert MARKER not in hide(f"it says {MARKER}", found.secrets.forms(), found.secrets.forms_of_words())
    path = tmp_path_factory.mktemp("any") / "config"
    path.write_bytes(content)
    credentials = Credentials(path, {}, ())
    credentials.forms()
    assert credentials.forms_of_words() is not None or not found.is_whole


@given(content=ANY.map(lambda content: content.decode(errors="replace")), before=st.sampled_from(["", "error: ", "E"]))
def test_whatever_is_quoted_as_kubectls_message_makes_an_answer(content: str, before: str) -> None:
    said = f'{before}error loading config file "/x": {content}'
    assert not shows(classify(f"error: {said}").public)
    assert not shows(repeatable(f"error: {said}", "/x"))


@pytest.mark.slow
@examples(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=ANY, second=st.none() | CHANGED)
async def test_with_the_real_kubectl_the_start_works_or_ends_with_one_sentence(
    make_settings: MakeSettings, tmp_path: Path, first: bytes, second: bytes | None
) -> None:
    paths = [tmp_path / "first", *([tmp_path / "second"] if second is not None else [])]
    for path, content in zip(paths, (first, second), strict=False):
        path.write_bytes(content or b"")
    listed = os.pathsep.join(map(str, paths))
    log = Log(as_json=True)
    logging.getLogger().addHandler(log.handler)
    said = trace = ""
    try:
        await connect(make_settings(KUBECONFIG=listed), {"PATH": str(tmp_path)}, tmp_path)
    except StartupError as error:
        said, trace = str(error), "".join(traceback.format_exception(error))
    finally:
        logging.getLogger().removeHandler(log.handler)
    assert not said or (listed in said and "\n" not in said)
    assert not shows(trace)
    assert not shows(log.written.getvalue())
