"""The reading of YAML: the same values as a real kubectl reads, which needs no cluster for `annotate --local`."""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sandboxes.spec.yaml_documents import read_documents
from sandboxes.spec.yaml_scalars import UnreadableError
from tests.kubectl import KUBECTL

HEAD = "apiVersion: v1\nkind: Example\nmetadata: {name: a}\n"
INT64 = range(-(2**63), 2**63)

WORDS = (
    *("y", "yes", "n", "no", "on", "off", "true", "false", "null", "~", "nil", "none", "<<", "=", "t", "f", "o"),
    *(".inf", "+.inf", "-.inf", ".nan", "nan", "inf", ".infinity"),
)
DATES = (
    *("2020-01-01", "2020-1-1", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.10 -5", "2020-13-45", "20-01-01"),
    *("22:30", "1:30:30.5", "0:0", "-1:30", "1.2.3", "1.10", "12e03", "1e400", "-1e400", "1e-400", "0x1p3", "1,000"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809"),
    *("18446744073709551615", "18446744073709551616", "+18446744073709551615", "0xffffffffffffffff"),
    *(
        "0x10000000000000000",
        "+0xffffffffffffffff",
        "0777777777777777777777",
        "07777777777777777777777",
        "1e20",
        "1e21",
    ),
    *(
        "0o1777777777777777777777",
        "123456789012345678901234567890",
        "0b-11",
        "0b+1",
        "-0b-1",
        "0b-_1",
        "16777217",
        "0.1",
    ),
    *(
        "1e6",
        "1e5",
        "123456.5",
        "1234567.5",
        "0.0001",
        "0.00001",
        "3.4e38",
        "3.5e38",
        "1e-46",
        "100000000",
        "\u0661\u0662",
    ),
)
NUMBERS = tuple(
    "".join(parts)
    for parts in itertools.product(
        ("", "+", "-"),
        ("", "0", "0x", "0X", "0b", "0B", "0o", "0O", ".", "_"),
        ("", "0", "1", "7", "8", "10", "1_0", "1__0", "_1", "f", "1.5"),
        ("", "e3", "E+2", "e-2", "_", ".", ".5", "_5", "e"),
    )
)


def cased(words: tuple[str, ...]) -> list[str]:
    return [case for word in words for case in (word, word.upper(), word.title(), word.capitalize(), word.swapcase())]


def plain_scalars() -> list[str]:
    """All the texts above that YAML allows as plain scalars of a block collection."""
    found = dict.fromkeys([*NUMBERS, *cased(WORDS), *DATES])
    return [text for text in found if text not in ("", "-", "?")]


def by_kubectl(path: Path, home: Path) -> list[dict[str, Any]] | str:
    """Return the objects as kubectl reads them, or its message."""
    done = subprocess.run(
        [str(KUBECTL), "annotate", "--local", "-f", str(path), "-o", "json", "read=yes"],
        env={"HOME": str(home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return done.stderr
    found: list[dict[str, Any]] = []
    rest = done.stdout
    while rest := rest.lstrip():
        obj, end = json.JSONDecoder(parse_int=_number).raw_decode(rest)
        del obj["metadata"]["annotations"]["read"]
        if not obj["metadata"]["annotations"]:
            del obj["metadata"]["annotations"]
        found.append(obj)
        rest = rest[end:]
    return found


def _number(text: str) -> float:
    return int(text) if int(text) in INT64 else float(text)


def kinds(value: Any) -> Any:
    """Return JSON, in which true and 1, and 1 and 1.0, are not the same."""
    return json.dumps(value, sort_keys=True)


def compare(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    theirs = by_kubectl(path, tmp_path)
    assert isinstance(theirs, list), theirs
    assert kinds([one.value for one in read_documents(content)]) == kinds(theirs)


def test_every_plain_scalar_is_read_as_kubectl_reads_it(tmp_path: Path) -> None:
    texts = [text for text in plain_scalars() if text.lower().lstrip("+-") not in (".inf", ".nan")]
    texts += [".iNF", ".Nan"]
    content = f"{HEAD}values:\n" + "".join(f"- {text}\n" for text in texts)
    path = tmp_path / "file.yaml"
    path.write_text(content)
    theirs = by_kubectl(path, tmp_path)
    assert isinstance(theirs, list), theirs
    (ours,) = read_documents(content.encode())
    assert isinstance(ours.value, dict)
    assert isinstance(ours.value["values"], list)
    differ = {
        text: (mine, its)
        for text, mine, its in zip(texts, ours.value["values"], theirs[0]["values"], strict=True)
        if kinds(mine) != kinds(its)
    }
    assert differ == {}


def test_every_key_is_read_as_kubectl_reads_it(tmp_path: Path) -> None:
    texts = [text for text in plain_scalars() if text != "<<"]
    refused = {"~", "null", "NULL", "Null"}
    content = HEAD + "keys:\n"
    for text in texts:
        try:
            read_documents(f"{text}: 1\n".encode())
        except UnreadableError:
            refused.add(text)
        else:
            content += f"- {text}: 1\n"
    compare(content.encode(), tmp_path)
    for text in refused:
        assert text.lower() in ("~", "null") or 2**63 <= int(text, 0) < 2**64


STRUCTURES = {
    "a merge before": "d: {<<: {a: 2}, a: 1}\n",
    "a merge after": "d: {a: 1, <<: {a: 2}}\n",
    "a merge of several": "x: &x {a: 2}\nd: {<<: [*x, {a: 3, b: 1}]}\n",
    "two merges": "d: {<<: {a: 1}, <<: {a: 2}}\n",
    "a merge within a merge": "x: &x {a: 1}\ny: &y {<<: *x, b: 2}\nd:\n  <<: *y\n  c: 3\n",
    "a quoted merge": "d: {'<<': 1, b: <<, c: [<<]}\n",
    "a tagged merge": "d: {!!merge <<: {a: 1}, !!merge b: 2}\n",
    "a double key": "d: {a: 1, a: 2}\n",
    "a double key with null": "d: {a: 1, a: ~}\n",
    "an anchor set twice": "a: &x 1\nb: *x\nc: &x 2\nd: *x\n",
    "an anchored key": "d: {&k foo: 1, b: *k}\n",
    "an alias as key": "d: {a: &k foo, *k : 1}\n",
    "an alias of a number as key": "d: {a: &k 010, *k : 1}\n",
    "an alias of a merge sign": "d: {a: &k <<, *k : 1}\n",
    "tags": "d: [!!str 1, !!int '1', !!int 0x10, !!float 1, !!bool y, !!null '', !!timestamp 2020-01-01, ! 5]\n",
    "binary": "d:\n  a: !!binary aGVsbG8=\n  b: !!binary |\n    aGVs\n    bG8=\n  !!binary aGk= : !!binary w6Q=\n",
    "quoted": "d: ['1', \"2\", '', \"\\x41\\u00e4\\U0001F600\\t\\0\", 'a''b', \"a\\\n  b\"]\n",
    "folded": "d: a\n  b\n\n  c\ne: 'x\n\n  y'\n",
    "block scalars": "a: |\n  one\n   two\n\nb: >\n  one\n  two\n\n  x\nc: |-\n  x\nd: |+\n  x\n\ne: |2\n    x\n",
    "nothing": "a:\nb: {c: , d}\ne: [~, , ]\n".replace(", , ]", "]"),
    "a question mark": "? a\n: 1\n? b\nd: {? x, ? y : z}\n",
    "tabs": "d:\ta\ne: [1,\t2]\n",
    "comments": "# a\nd: 1 # b\ne: 'a # b' # c\nf: a#b\n",
    "line ends of Windows": "d: |\r\n  a\r\n  b\r\ne: 1\r\n",
    "old line ends": "d: 1\re: 2\r",
    "unicode": "d: \u00e4\U0001f600\n\u00f6: 1\n",
    "flow over lines": "d: {a: [1,\n  2], b:\n  c}\n",
    "no line end": "d: 1",
    "a block without line end": "d: |\n  a",
    "a kept block at the end": "d: |+\n  a\n\n",
    "a kept block without line end": "d: |+\n  a\n ",
    "a block before a separator": f"d: |\n  a\n---\n{HEAD}d: |+\n  b\n\n---\n{HEAD}d: >\n  c",
    "indicators in text": "d: [a:b, http://x/y, -1a, 'a: b', a-b, '@x']\n",
    "comments only at the end": "d: 1\n---\n# nothing\n",
    "a separator at the end": "d: 1\n---\n",
    "separators around": "d: 1\n---\n---   \n# x\n---\n",
    "a separator with a comment": f"d: 1\n--- # more\n{HEAD}d: 2\n",
    "separators of Windows": f"d: 1\r\n---\r\n{HEAD}d: 2\r\n",
    "a null document": f"d: 1\n---\nnull\n---\n~\n---\n{HEAD}d: 2\n",
    "JSON after YAML": 'd: 1\n---\n{"apiVersion": "v1", "kind": "Example",\n\t"metadata": {"name": "a"}, "d": 1e3}\n',
    "the end of a document": "d: 1\n...\n",
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_is_read_as_kubectl_reads_it(name: str, tmp_path: Path) -> None:
    compare((HEAD + STRUCTURES[name]).encode(), tmp_path)


JSON_HEAD = '{"apiVersion": "v1", "kind": "Example", "metadata": {"name": "a"}'
ENCODED = {
    "a UTF-8 mark": b"\xef\xbb\xbf" + f"{HEAD}d: \u00e4\n".encode(),
    "UTF-16": f"{HEAD}d: \u00e4\n---\n{HEAD}d: \U0001f600\n".encode("utf-16"),
    "UTF-16, the other order": b"\xfe\xff" + f"{HEAD}d: \u00e4\n".encode("utf-16-be"),
    "separators first": f"---\n# x\n---\n{HEAD}d: 1\n".encode(),
    "JSON with tabs": f'{JSON_HEAD},\n\t"d": [1, 1.0, 1e3, -0, -0.0, 1e21, 18446744073709551615]}}\n'.encode(),
    "JSON with a mark": b"\xef\xbb\xbf" + f'{JSON_HEAD}, "d": 1}}'.encode(),
    "JSON with escapes": f'{JSON_HEAD}, "d": "\\ud83d\\ude00 \\ud800 \\/", "d\\ud800": 1}}'.encode(),
    "JSON with a double key": f'{JSON_HEAD}, "d": 1, "d": 2}}'.encode(),
    "JSON after JSON": f'{JSON_HEAD}, "d": 1}}\n{JSON_HEAD}, "d": 2}}{JSON_HEAD}}}'.encode(),
    "YAML after JSON": f'{JSON_HEAD}, "d": 1}}\n---\n{HEAD}d: 2\n'.encode(),
    "YAML that begins as JSON": b"{apiVersion: v1, kind: Example, metadata: {name: a}, d: 0777}",
    "JSON with a comma too many": f'{JSON_HEAD}, "d": [1, 2,], }}'.encode(),
    "JSON with Infinity": f'{JSON_HEAD}, "d": Infinity}}'.encode(),
}


@pytest.mark.parametrize("name", ENCODED)
def test_every_encoding_is_read_as_kubectl_reads_it(name: str, tmp_path: Path) -> None:
    compare(ENCODED[name], tmp_path)


REFUSED = {
    "d: .inf": "a number that JSON can't express (line 4)",
    "d: {a: [.NaN]}": "a number that JSON can't express (line 4)",
    "d: {~: 1}": "a key that is null",
    "d: {18446744073709551615: 1}": "a key that is null",
    "d: {[1]: 1}": "a key that is a list or a mapping (line 4)",
    "d: {<<: 1}": "something that is not a mapping",
    "d: {<<: ~}": "something that is not a mapping",
    "d: {<<: [{a: 1}, 2]}": "something that is not a mapping",
    "a: 1\nd: &x [*x]": "an alias inside of what its anchor names (line 5)",
    "d: &x [1]\ne: &x {a: *x}": "an alias inside of what its anchor names (line 5)",
    "d: *hunter2": "an alias without an anchor (line 4)",
    "a: &x 1\n---\nd: *x": "an alias without an anchor (line 6)",
    "d: !!int foo": "a value that does not fit its tag",
    "d: !!int 1.5": "a value that does not fit its tag",
    "d: !!float yes": "a value that does not fit its tag",
    "d: !!bool 1": "a value that does not fit its tag",
    "d: !!null 1": "a value that does not fit its tag",
    "d: !!timestamp yesterday": "a value that does not fit its tag",
    "d: !!binary '***'": "!!binary",
    "d: \x01": "a control character (line 4)",
    "d: a\n--- |\n  b": "more than a comment after `---` (line 5)",
    "d: a\n---b": "more than a comment after `---` (line 5)",
    "d: [1": "it is not valid YAML",
    "d: a: b": "it is not valid YAML",
    "d:\n\ta: 1": "it is not valid YAML",
    "%YAML 1.1\n---\nd: 1": "it is not valid YAML",
    'd: "\\ud83d"': "it is not valid YAML",
    "d: !x!y 1": "it is not valid YAML",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_file_that_kubectl_refuses_is_refused_in_one_sentence(text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(HEAD + text + "\n")
    assert isinstance(by_kubectl(path, tmp_path), str)
    with pytest.raises(UnreadableError) as caught:
        read_documents(path.read_bytes())
    assert REFUSED[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
