"""Converts YAML's scalars to values as kubectl does, by the rules of go-yaml v2 and sigs.k8s.io/yaml. Pure."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from decimal import Decimal
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import yaml

_STR, _BOOL, _INT, _FLOAT, _NULL, _TIMESTAMP, _BINARY, MERGE, SEQ, MAP = (
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "bool", "int", "float", "null", "timestamp", "binary", "merge", "seq", "map")
)
_LITERALS: dict[str, bool | float | None] = {
    text: value
    for value, words in (
        (True, "y yes true on"),
        (False, "n no false off"),
        (None, "~ null"),
        (float("inf"), ".inf +.inf"),
        (float("-inf"), "-.inf"),
    )
    for word in words.split()
    for text in (word, word.upper(), word.replace("inf", "Inf") if "inf" in word else word.capitalize())
} | {"": None, ".nan": float("nan"), ".NaN": float("nan"), ".NAN": float("nan")}

_NUMBER = re.compile(r"[-+.0-9]")
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)(0[bB](?P<b2>[01]+)|0[oO](?P<o8>[0-7]+)|0[xX](?P<b16>[0-9a-fA-F]+)|(?P<b8>0[0-7]*)"
    r"|(?P<b10>[1-9][0-9]{0,19}))"
)
_SIGNED_BINARY = re.compile(r"0b([-+][01]+)")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
# Go's ParseFloat allows an underscore between two digits.
_FRACTION = re.compile(r"\.[0-9]+(_[0-9]+)*([eE][-+]?[0-9]+(_[0-9]+)*)?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ][0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}(\.[0-9]*)?.*)?")
_INT64 = range(-(2**63), 2**63)


class UnreadableError(Exception):
    """The file is not what kubectl reads. `problem`: without the file's text; `line`: from 1, None if unknown."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem if line is None else f"{problem} (line {line})")


def key_of(value: object, line: int) -> str:
    """Return a key as sigs.k8s.io/yaml does, which makes text of numbers and booleans."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and value in _INT64:
        return str(value)
    if isinstance(value, float):
        return _key_of_float(value)
    raise UnreadableError("it has a key that is null, a list, a mapping or too large a number", line)


def _key_of_float(value: float) -> str:
    """Return Go's `FormatFloat(value, 'g', -1, 32)`, with YAML's names of what is no number."""
    try:
        (value,) = struct.unpack("f", struct.pack("f", value))
    except OverflowError:
        value = float("inf") if value > 0 else float("-inf")
    if value != value:  # noqa: PLR0124 - NaN
        return ".nan"
    if value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    shortest = (f"{value:.{digits}e}" for digits in range(9))
    text = next(one for one in shortest if struct.pack("f", float(one)) == struct.pack("f", value))
    mantissa, _, exponent = text.partition("e")
    digits = len(mantissa.lstrip("-").replace(".", ""))
    if -4 <= int(exponent) < 6:  # noqa: PLR2004 - Go's bounds
        return f"{float(text):.{max(digits - 1 - int(exponent), 0)}f}"
    return text


def scalar(event: yaml.ScalarEvent, line: int) -> object:
    """Return the value of a scalar: None, bool, int, float or str; see `as_json_number`. Raises UnreadableError."""
    tag: str | None = event.tag
    text: str = event.value
    if tag == "!" or (tag is None and not event.implicit[0]):
        return text
    if tag == _BINARY:
        return _binary(text, line)
    if tag in (MERGE, _STR):
        return text
    if tag not in (None, _BOOL, _INT, _FLOAT, _NULL, _TIMESTAMP):
        raise UnreadableError("it has a tag that a manifest can't have", line)
    value = _resolved(text)
    if tag is None or tag == _kind(value):
        return value
    if tag == _FLOAT and _kind(value) == _INT:
        return float(cast("int", value))
    if tag == _TIMESTAMP and _DATE.fullmatch(text):
        return text
    raise UnreadableError("it has a value that does not fit its tag", line)


def _kind(value: object) -> str:
    kinds: dict[type, str] = {bool: _BOOL, int: _INT, float: _FLOAT, type(None): _NULL}
    return kinds.get(type(value), _STR)


def _binary(text: str, line: int) -> str:
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise UnreadableError("it has a !!binary value that is not the base64 of a text", line) from None


def _resolved(text: str) -> object:
    """Return the value of a plain scalar, as go-yaml v2's `resolve` does."""
    if text in _LITERALS:
        return _LITERALS[text]
    if not _NUMBER.match(text):
        return text
    if text.startswith("."):
        fraction = _FRACTION.fullmatch(text)
        return _finite(text.replace("_", ""), text) if fraction else text
    plain = text.replace("_", "")
    integer = _integer(plain)
    if integer is not None:
        return integer
    return _finite(plain, text) if _DECIMAL.fullmatch(plain) else text


def _integer(plain: str) -> int | None:
    """Return the integer if it is one that Go's ParseInt or ParseUint accepts, in 64 bits."""
    signed = _SIGNED_BINARY.fullmatch(plain)
    if signed:
        value = int(signed[1], 2)
        return value if value in _INT64 else None
    match = _INTEGER.fullmatch(plain)
    if not match:
        return None
    base, digits = next((name, digits) for name, digits in match.groupdict().items() if name != "sign" and digits)
    value = int(match["sign"] + digits, int(base[1:]))
    return value if value in _INT64 or (not match["sign"] and value < 2**64) else None


def _finite(number: str, text: str) -> float | str:
    value = float(number)
    return text if value in (float("inf"), float("-inf")) else value


def as_json_number(value: float, line: int | None) -> float:
    """Return a number as Kubernetes keeps it: an int64 where it is one, else a float64."""
    if value != value or value in (float("inf"), float("-inf")):  # noqa: PLR0124 - NaN
        raise UnreadableError("it has a number that JSON can't express", line)
    # Go writes a float in its shortest digits and reads that as an integer if it can.
    exact = Decimal(value) if isinstance(value, int) else Decimal(repr(value))
    whole = int(exact)
    return whole if whole == exact and whole in _INT64 else float(value)
