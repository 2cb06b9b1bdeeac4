"""API keys: which are accepted; format, rotation and errors of a key file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxes.api.auth import ApiKeys
from sandboxes.errors import StartupError
from sandboxes.key_file import MAX_FILE_BYTES
from sandboxes.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text("first\n")
    return path


def accepted(keys: ApiKeys, *candidates: str) -> set[str]:
    return {one for one in candidates if keys.accept(one.encode())}


def test_no_key_is_required_when_none_is_configured(make_settings: MakeSettings) -> None:
    assert not ApiKeys(make_settings()).are_required


def test_the_variable_is_a_single_key(make_settings: MakeSettings) -> None:
    keys = ApiKeys(make_settings(PROVISIONER_API_KEY="old, new,with space"))
    assert keys.are_required
    candidates = ("old", "new", "with space", "", "old,", " new", "old, new,with space", "old, new,with spac", ",")
    assert accepted(keys, *candidates) == {"old, new,with space"}


def test_keys_are_read_line_by_line_from_the_file_and_from_the_variable(
    make_settings: MakeSettings, file: Path
) -> None:
    file.write_text("\nfirst\r\n  second  \n\na,b")
    keys = ApiKeys(make_settings(PROVISIONER_API_KEY="fixed", PROVISIONER_API_KEY_FILE=file))
    candidates = ("first", "second", "a,b", "fixed", "a", "", "first\nsecond")
    assert accepted(keys, *candidates) == {"first", "second", "a,b", "fixed"}


def test_comments_in_the_key_file_are_ignored(make_settings: MakeSettings, file: Path) -> None:
    file.write_text("# backend\nin-a-file\n")
    keys = ApiKeys(make_settings(PROVISIONER_API_KEY_FILE=file))
    assert accepted(keys, "in-a-file", "# backend", "backend", "") == {"in-a-file"}


def test_a_changed_key_file_is_read_immediately(make_settings: MakeSettings, file: Path) -> None:
    keys = ApiKeys(make_settings(PROVISIONER_API_KEY_FILE=file))
    for word in ("third", "forth", "fifth"):  # same length, and within the file system's timestamp resolution
        file.write_text(word)
        assert accepted(keys, "first", "third", "forth", "fifth") == {word}


def test_a_mounted_secret_rotates_through_its_symlink(make_settings: MakeSettings, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(name)
    data = tmp_path / "..data"
    data.symlink_to("one")
    keys = ApiKeys(make_settings(PROVISIONER_API_KEY_FILE=data / "keys"))
    assert accepted(keys, "one", "two") == {"one"}
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").rename(data)
    assert accepted(keys, "one", "two") == {"two"}


@pytest.mark.parametrize(
    "kind", ["missing", "directory", "loop", "empty", "blank", "not ascii", "control", "too large"]
)
def test_an_unusable_key_file_stops_the_start_and_the_error_names_no_key(
    make_settings: MakeSettings, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "keys"
    match kind:
        case "directory":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "missing":
            pass
        case _:
            texts = {"empty": "", "blank": "\n \n", "not ascii": "secret\nschlüssel", "control": "secret\x00"}
            path.write_text(texts.get(kind, "secret\n" * MAX_FILE_BYTES))
    with pytest.raises(StartupError) as caught:
        ApiKeys(make_settings(PROVISIONER_API_KEY_FILE=path))
    assert str(caught.value).startswith("The file that PROVISIONER_API_KEY_FILE names can't be ")
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "schl" not in str(caught.value)


@pytest.mark.parametrize("kind", ["gone", "empty", "not ascii"])
def test_previous_keys_stay_valid_when_the_key_file_breaks_and_it_is_logged_once(
    make_settings: MakeSettings, file: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    keys = ApiKeys(make_settings(PROVISIONER_API_KEY_FILE=file))
    file.write_text({"empty": "", "not ascii": "geheim\nschlüssel"}.get(kind, ""))
    if kind == "gone":
        file.unlink()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert accepted(keys, "first", "geheim", "") == {"first"}
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "Its previous keys stay valid." in record.getMessage()
    assert "geheim" not in caplog.text
    caplog.clear()
    file.write_text("later")
    os.utime(file)
    with caplog.at_level(logging.INFO):
        assert accepted(keys, "first", "later") == {"later"}
    assert [one.levelname for one in caplog.records] == ["INFO"]
    assert "later" not in caplog.text
