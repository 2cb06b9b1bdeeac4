"""The keys that sign the URLs of sandboxes: a file of them, its rotation, and the key of a process."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sandboxes.access.keys import FileKeys, ProcessKey
from sandboxes.access.tokens import Grant, Subject, check, mint
from sandboxes.errors import StartupError

SUBJECT = Subject("default", "deer-flow", "a", "u1", 8080, "")
OLD, NEW = "o" * 44, "n" * 44


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{OLD}\n")
    return path


def is_valid(token: str, keys: FileKeys) -> bool:
    return check(token, SUBJECT, keys, 0.0) == Grant(8080, None)


def test_the_first_line_signs_and_every_line_verifies(file: Path) -> None:
    before = mint(SUBJECT, FileKeys(file))
    file.write_text(f"# made in May\n{NEW}\n\n{OLD}\n")
    keys = FileKeys(file)
    assert keys.current() == (NEW.encode(), OLD.encode())
    assert mint(SUBJECT, keys) != before
    assert is_valid(before, keys)


def test_a_rotation_takes_effect_without_a_restart(file: Path) -> None:
    keys = FileKeys(file)
    before = mint(SUBJECT, keys)
    file.write_text(f"{OLD}\n{NEW}\n")
    assert mint(SUBJECT, keys) == before
    file.write_text(f"{NEW}\n{OLD}\n")
    after = mint(SUBJECT, keys)
    assert after != before
    assert is_valid(before, keys)
    file.write_text(f"{NEW}\n")
    assert is_valid(after, keys)
    assert not is_valid(before, keys)


@pytest.mark.parametrize("content", ["", "# only a comment\n", f"{NEW}\nshort\n", None])
def test_a_bad_change_keeps_the_keys_and_is_logged_once_without_a_key(
    file: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    keys = FileKeys(file)
    token = mint(SUBJECT, keys)
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert is_valid(token, keys)
            assert mint(SUBJECT, keys) == token
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "The file of gateway keys" in record.getMessage()
    assert "Its previous keys stay valid." in record.getMessage()
    assert not any(secret in caplog.text for secret in (OLD, NEW, "short"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "contains no key"),
        (f"{OLD}\n{'x' * 31}\n", "a key of less than 32 characters in line 2; make one by `openssl rand -base64 32`"),
        (None, "can't be read"),
    ],
)
def test_an_unusable_file_stops_the_start_and_the_error_names_no_key(
    tmp_path: Path, content: str | None, why: str
) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StartupError) as caught:
        FileKeys(path)
    assert str(caught.value).startswith("The file that SANDBOX_GATEWAY_KEYS_FILE names can't be ")
    assert why in str(caught.value)
    assert OLD not in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_a_key_of_exactly_the_least_length_is_accepted(file: Path) -> None:
    file.write_text("x" * 32)
    assert FileKeys(file).current() == (b"x" * 32,)


def test_the_key_of_a_process_stays_and_that_of_another_process_is_different() -> None:
    one, other = ProcessKey(), ProcessKey()
    token = mint(SUBJECT, one)
    assert check(token, SUBJECT, one, 0.0) == Grant(8080, None)
    assert check(token, SUBJECT, other, 0.0) is None
    assert all(len(key) * 8 >= 128 for key in one.current())
