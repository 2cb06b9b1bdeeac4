"""Tokens in the URLs of sandboxes: what they permit, and what makes them invalid."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sandboxes.access import tokens
from sandboxes.access.tokens import Grant, Subject, check, mint
from tests.conftest import ROOT

NOW = 1_800_000_000.0
SUBJECT = Subject("east", "deer-flow", "abc", "5e1e4ee7-9c4f-4d0c-a1b5-3f0f7c1f5d0a", 8080, "")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


class Held:
    """Keys that a test holds."""

    def __init__(self, *keys: bytes) -> None:
        self.keys = keys

    def current(self) -> tuple[bytes, ...]:
        return self.keys


KEYS = Held(b"a" * 32)

texts = st.text(max_size=12)
ports = st.integers(1, 65535)
ends = st.none() | st.integers(int(NOW) + 1, 9_999_999_999)
subjects = st.builds(Subject, texts, texts, texts, texts, ports, texts)


@given(subject=subjects, port=st.none() | ports, end=ends)
def test_a_token_permits_exactly_what_it_was_made_for(subject: Subject, port: int | None, end: int | None) -> None:
    token = mint(subject, KEYS, port=port, expires_at=end)
    assert check(token, subject, KEYS, NOW) == Grant(port or subject.port, end)


@given(subject=subjects, port=st.none() | ports, end=ends, field=st.sampled_from(Subject._fields), data=st.data())
def test_a_token_is_invalid_if_any_field_of_its_sandbox_differs(
    subject: Subject, port: int | None, end: int | None, field: str, data: st.DataObject
) -> None:
    changed: dict[str, Any] = {field: data.draw(ports if field == "port" else texts)}
    other = subject._replace(**changed)
    assume(other != subject)
    assert check(mint(subject, KEYS, port=port, expires_at=end), other, KEYS, NOW) is None


@given(parts=st.lists(texts, min_size=5, max_size=5), moved=st.integers(0, 3))
def test_text_that_moves_between_two_fields_gives_another_token(parts: list[str], moved: int) -> None:
    assume(parts[moved])
    shifted = [*parts]
    shifted[moved], shifted[moved + 1] = parts[moved][:-1], parts[moved][-1] + parts[moved + 1]
    one, other = (Subject(of[0], of[1], of[2], of[3], 8080, of[4]) for of in (parts, shifted))
    assert mint(one, KEYS) != mint(other, KEYS)


@given(port=ports, end=ends, other_port=ports, other_end=ends)
def test_port_and_end_in_a_token_can_not_be_changed(
    port: int, end: int | None, other_port: int, other_end: int | None
) -> None:
    assume((port, end) != (other_port, other_end))
    mac = mint(SUBJECT, KEYS, port=port, expires_at=end).rpartition(".")[2]
    assert check(f"{other_port}.{other_end or ''}.{mac}", SUBJECT, KEYS, NOW) is None


def test_port_and_end_can_be_neither_added_to_a_token_nor_taken_from_it() -> None:
    plain, full = mint(SUBJECT, KEYS), mint(SUBJECT, KEYS, port=3000, expires_at=int(NOW) + 60)
    mac = full.rpartition(".")[2]
    for forged in (f"3000..{plain}", f".{int(NOW) + 60}.{plain}", mac, f"3000..{mac}", f".{int(NOW) + 60}.{mac}"):
        assert check(forged, SUBJECT, KEYS, NOW) is None


def test_the_token_for_the_server_without_end_has_no_payload_and_is_the_same_in_every_process() -> None:
    program = (
        "from sandboxes.access.tokens import Subject, mint\n"
        "class Keys:\n"
        "    def current(self): return [b'a' * 32]\n"
        f"print(mint(Subject(*{tuple(SUBJECT)!r}), Keys()))"
    )
    other = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    token = mint(SUBJECT, KEYS)
    assert other.stdout.strip() == token
    assert set(token) <= set(ALPHABET)
    assert len(token) == 32


def test_a_token_is_an_hmac_of_192_bits_over_version_sandbox_port_and_end() -> None:
    signed = ["sandbox-url/1", *SUBJECT, 3000, 1_900_000_000]
    mac = hmac.new(b"a" * 32, json.dumps(signed, separators=(",", ":")).encode(), hashlib.sha256).digest()[:24]
    token = mint(SUBJECT, KEYS, port=3000, expires_at=1_900_000_000)
    assert token == f"3000.1900000000.{base64.urlsafe_b64encode(mac).decode()}"


def test_another_version_of_tokens_is_not_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "VERSION", "sandbox-url/2")
    later = mint(SUBJECT, KEYS)
    monkeypatch.undo()
    assert check(later, SUBJECT, KEYS, NOW) is None


def test_the_first_key_signs_and_every_key_verifies() -> None:
    old, new = b"o" * 32, b"n" * 32
    before, after = mint(SUBJECT, Held(old)), mint(SUBJECT, Held(new, old))
    assert after == mint(SUBJECT, Held(new))
    for token in (before, after):
        assert check(token, SUBJECT, Held(new, old), NOW) == Grant(8080, None)
        assert check(token, SUBJECT, Held(old, new), NOW) == Grant(8080, None)
    assert check(before, SUBJECT, Held(new), NOW) is None


def test_a_token_ends_at_its_second() -> None:
    token = mint(SUBJECT, KEYS, expires_at=int(NOW))
    assert check(token, SUBJECT, KEYS, NOW - 0.001) == Grant(8080, int(NOW))
    assert check(token, SUBJECT, KEYS, NOW) is None
    assert check(token, SUBJECT, KEYS, NOW + 1000) is None


@given(at=st.integers(0, 31), letter=st.sampled_from(ALPHABET))
def test_a_token_with_one_wrong_character_is_invalid(at: int, letter: str) -> None:
    token = mint(SUBJECT, KEYS)
    assume(token[at] != letter)
    assert check(token[:at] + letter + token[at + 1 :], SUBJECT, KEYS, NOW) is None


@given(length=st.integers(0, 31))
def test_a_truncated_token_is_invalid(length: int) -> None:
    assert check(mint(SUBJECT, KEYS)[:length], SUBJECT, KEYS, NOW) is None


@given(guess=st.text() | st.text(ALPHABET + ".", min_size=32, max_size=48))
def test_a_guessed_token_is_invalid_and_raises_nothing(guess: str) -> None:
    assert check(guess, SUBJECT, KEYS, NOW) is None


@pytest.mark.parametrize("change", ["\n{}", "{}\n", " {}", "{}=", "{}.", ".{}", "...{}", "0..{}", "08080..{}", "{}{}"])
def test_a_token_in_another_spelling_is_invalid(change: str) -> None:
    assert check(change.replace("{}", mint(SUBJECT, KEYS)), SUBJECT, KEYS, NOW) is None


@pytest.mark.parametrize("port", [65536, 99999])
def test_a_port_that_no_server_can_have_is_invalid_even_if_it_was_signed(port: int) -> None:
    assert check(mint(SUBJECT, KEYS, port=port), SUBJECT, KEYS, NOW) is None


@pytest.mark.parametrize("token", ["right", "wrong", "expired"])
def test_every_token_is_compared_in_whole_with_every_key(monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append((len(one), len(other)))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = Held(b"1" * 32, b"2" * 32, b"3" * 32)
    given = {"right": mint(SUBJECT, keys), "wrong": "A" * 32, "expired": mint(SUBJECT, keys, expires_at=1)}[token]
    check(given, SUBJECT, keys, NOW)
    assert compared == [(32, 32)] * 3
