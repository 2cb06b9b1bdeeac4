"""Quantities: valid texts, and the numbers that they denote."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devcluster import quantities as devcluster_quantities
from sandboxes.grammar import LARGEST, QuantityError, parse_quantity
from tests.record import case

SUFFIXES = ("", *"numkMGTPE", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", "0"),
        ("1", "1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("100m", "0.1"),
        ("1n", "1e-9"),
        ("1u", "1e-6"),
        ("2k", "2000"),
        ("1.5M", "1500000"),
        ("1G", "1e9"),
        ("1T", "1e12"),
        ("1P", "1e15"),
        ("1E", "1e18"),
        ("1Ki", "1024"),
        ("256Mi", "268435456"),
        ("0.5Gi", "536870912"),
        ("1Ti", "1099511627776"),
        ("1Pi", "1125899906842624"),
        ("7Ei", "8070450532247928832"),
        ("1e3", "1000"),
        ("1E3", "1000"),
        ("12e+2", "1200"),
        ("1e-3", "0.001"),
        (str(LARGEST), str(LARGEST)),
        # More digits than the default precision of Decimal: nothing is rounded.
        ("1.0000000000000000000000000000000000000001", "1.0000000000000000000000000000000000000001"),
    ],
)
def test_a_quantity_is_parsed_to_its_number(text: str, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", " 1", "1 ", "1\n", "-1", "+1", "1 core", "1cpu", "half", "inf", "NaN", "1_000", "1,5", "0x10"),
        *("1K", "1ki", "1KI", "1mi", "1kB", "1MB", "1i", "1mm", "Mi", ".", "1..2", "1.2.3", "1e", "1e3Ki", "1e3.5"),
        *("\u0661", "1e\u0663", "1e100", "1e999999999", "1" * 65, "0" * 10_000),
    ],
)
def test_invalid_quantities_are_rejected(text: str) -> None:
    assert not _is_quantity(text)


@pytest.mark.parametrize("text", [str(LARGEST + 1), "8Ei", "10E", "1e19", "9" * 64])
def test_quantities_above_the_maximum_of_kubernetes_are_rejected(text: str) -> None:
    with pytest.raises(QuantityError, match=r"at most 2\^63-1"):
        parse_quantity(text)


def test_the_quantity_in_the_recorded_rejection_is_invalid() -> None:
    pod = case("apply-quantity-invalid").stdin["items"][0]
    assert not _is_quantity(pod["spec"]["containers"][0]["resources"]["limits"]["cpu"])


NUMBERS = st.from_regex(r"\A([0-9]{1,9}(\.[0-9]{0,3})?|\.[0-9]{1,3})\Z")
TAILS = st.sampled_from(SUFFIXES) | st.integers(-9, 9).map(lambda power: f"e{power}")


@given(number=NUMBERS, tail=TAILS)
def test_devcluster_parses_every_quantity_alike(number: str, tail: str) -> None:
    expected = devcluster_quantities.parse(number + tail)
    if expected > LARGEST:
        assert not _is_quantity(number + tail)
    else:
        assert parse_quantity(number + tail) == expected


@given(text=st.text(max_size=8) | st.from_regex(r"\A[0-9.eEinumkMGTP+-]{1,12}\Z"))
def test_any_text_is_rejected_or_parsed_as_by_devcluster(text: str) -> None:
    if _is_quantity(text):
        assert parse_quantity(text) == devcluster_quantities.parse(text)


def _is_quantity(text: str) -> bool:
    try:
        parse_quantity(text)
    except QuantityError:
        return False
    return True
