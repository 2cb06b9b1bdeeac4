"""Hiding secrets in the files and variables of kubectl, as they change."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from sandboxes.kubectl import credentials
from sandboxes.kubectl.credentials import UNREADABLE_SECONDS, Credentials
from sandboxes.masking import hide


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config"


def write(path: Path, **user: str) -> None:
    path.write_text(yaml.safe_dump({"users": [{"name": "u", "user": user}]}))


def secret(number: int) -> str:
    return f"secret-number-{number}"


def hidden_numbers(credentials: Credentials, numbers: range) -> list[int]:
    """Return the numbers of the secrets that are hidden."""
    return [number for number in numbers if hide(secret(number), credentials.forms()) == "(hidden)"]


def test_a_new_secret_in_the_file_is_hidden_immediately(path: Path) -> None:
    found = Credentials(path, {}, ())
    assert found.forms() == ()
    for number in range(10):
        write(path, token=secret(number))
        assert number in hidden_numbers(found, range(10))


def test_two_changes_with_the_same_mtime_are_both_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, token=secret(1))
    found = Credentials(path, {}, ())
    found.forms()
    now = path.stat()
    monkeypatch.setattr(Path, "stat", lambda _self: now)
    write(path, token=secret(2))
    assert hidden_numbers(found, range(3)) == [1, 2]


def test_an_unchanged_file_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, token=secret(1))
    os.utime(path, (1, 1))
    monkeypatch.setattr(credentials, "STEP_SECONDS", -1.0)  # no file counts as recently changed
    found = Credentials(path, {}, ())
    before = found.forms()

    def read(_self: Path, *_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(Path, "open", read)
    assert found.forms() is before


def test_previous_secrets_stay_hidden(path: Path) -> None:
    """A watch that has read it may run for hours."""
    found = Credentials(path, {}, ())
    for number in range(50):
        write(path, token=secret(number))
        found.forms()
    assert hidden_numbers(found, range(50)) == list(range(50))


def test_the_oldest_secrets_of_a_file_are_forgotten_past_the_limit(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many secrets of one file do not displace those of another."""
    monkeypatch.setattr(credentials, "MOST_FORMS", 500)
    path.write_text(yaml.safe_dump({"users": [{"name": "u", "user": {"tokenFile": "token", "password": secret(0)}}]}))
    found = Credentials(path, {}, ())
    for number in range(1, 600):
        (tmp_path / "token").write_text(secret(number))
        found.forms()
    assert hidden_numbers(found, range(600))[0] == 0
    assert hidden_numbers(found, range(1, 600))[0] in range(50, 550)
    assert hidden_numbers(found, range(550, 600)) == list(range(550, 600))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("content", ["{", "a: [", "x: 1\n---\n- [", "[" * 100_000])
def test_an_incomplete_file_hides_all_plugin_output(path: Path, content: str, clock: list[float]) -> None:
    """Also for a time after it is complete again: a process that has read it may still run."""
    write(path, token=secret(1))
    found = Credentials(path, {}, ())
    assert found.forms_of_words() is not None
    path.write_text(content)
    assert found.forms_of_words() is None
    write(path, token=secret(2))
    assert hidden_numbers(found, range(3)) == [1, 2]
    clock[0] += UNREADABLE_SECONDS - 1
    assert found.forms_of_words() is None
    clock[0] += 2
    assert found.forms_of_words() is not None


def test_a_restored_file_with_the_same_content_is_complete_again(path: Path, clock: list[float]) -> None:
    write(path, token=secret(1))
    found = Credentials(path, {}, ())
    found.forms()
    path.rename(path.with_name("moved"))
    os.mkfifo(path)
    assert found.forms_of_words() is None
    path.with_name("moved").rename(path)
    clock[0] += UNREADABLE_SECONDS + 1
    assert found.forms_of_words() is not None


def test_an_oversized_token_file_hides_all_plugin_output(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(path, tokenFile="token")
    found = Credentials(path, {}, ())
    assert found.forms_of_words() is not None
    (tmp_path / "token").write_text(secret(1) * 20)
    monkeypatch.setattr(credentials, "MAX_FILE_BYTES", 100)
    assert found.forms_of_words() is None


@pytest.mark.parametrize("content", ["{", None])
def test_secrets_of_a_file_that_becomes_unreadable_stay_hidden(path: Path, content: str | None) -> None:
    write(path, token=secret(1))
    found = Credentials(path, {}, ())
    found.forms()
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert hidden_numbers(found, range(3)) == [1]


def test_a_rotated_token_file_is_read_again(path: Path, tmp_path: Path) -> None:
    for name in ("t0", "t1", "t2", "t3", "t4", "t5"):
        (tmp_path / name).write_text(f"other-{name}-token\n")
    users = [{"name": name, "user": {"tokenFile": name}} for name in ("t0", "t1", "t2", "t3", "t4", "t5", "none", "\0")]
    path.write_text(yaml.safe_dump({"users": [*users, {"name": "u", "user": {"token": secret(0)}}]}))
    found = Credentials(path, {}, ())
    for number in range(1, 4):
        (tmp_path / "t0").write_text(f"{secret(number)}\n")
        assert {0, number} <= set(hidden_numbers(found, range(4)))
    assert hide("other-t5-token", found.forms()) == "(hidden)"


def test_a_pipe_is_not_read(path: Path) -> None:
    os.mkfifo(path)
    found = Credentials(path, {}, ())
    assert found.forms() == ()
    assert found.forms_of_words() is None


def test_an_oversized_file_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "MAX_FILE_BYTES", 10)
    write(path, token=secret(1))
    found = Credentials(path, {}, ())
    assert found.forms() == ()
    assert found.forms_of_words() is None


def test_variables_for_plugins_and_user_info_of_proxies_are_hidden(path: Path) -> None:
    environ = {
        "AWS_SECRET_ACCESS_KEY": "AbCdEfGhIj",
        "LOGIN": "a login of many words",
        "AWS_REGION": "eu",
        "OTHER": "not-passed-on-at-all",
        "HTTPS_PROXY": "http://me:pr0xy%2Fword@proxy:3128",
        "http_proxy": "someone:anotherword@proxy",
        "NO_PROXY": "10.0.0.0/8",
    }
    found = Credentials(path, environ, ("AWS_SECRET_ACCESS_KEY", "LOGIN", "AWS_REGION", "UNSET"))
    text = "AbCdEfGhIj, a login of many words, eu, not-passed-on-at-all, http://me:pr0xy%2Fword@proxy:3128 pr0xy/word"
    assert hide(text, found.forms()) == (
        "(hidden), (hidden), eu, not-passed-on-at-all, http://me:(hidden)@proxy:3128 (hidden)"
    )
    assert hide("someone:anotherword@proxy", found.forms()) == "(hidden):(hidden)@proxy"


def test_duplicate_names_are_reported(path: Path) -> None:
    found = Credentials(path, {}, ())
    path.write_text(yaml.safe_dump({"users": [{"name": "u"}, {"name": "u"}]}))
    found.forms()
    assert found.doubled == ("users", "u")
    write(path, token="t")
    found.forms()
    assert found.doubled is None
