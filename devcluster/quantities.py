"""Parses resource quantities, and formats them canonically, as the server stores them ("1000m" becomes "1")."""

import re
from decimal import Decimal

from devcluster.objects import Json, JsonValue
from devcluster.schema import Type

QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_PATTERN = re.compile(r"([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_DECIMAL_BASE = _DECIMAL.index("")
_STEP, _BINARY_STEP = 1000, 1024


class QuantityError(ValueError):
    """A malformed quantity; the message is the server's (`apply-quantity-invalid`)."""


def parse(text: object) -> Decimal:
    """Return the value of a quantity. Raises QuantityError."""
    return _read(str(text))[0]


def _read(text: str) -> tuple[Decimal, str]:
    match = _PATTERN.fullmatch(text)
    if not match or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", match[1]):
        raise QuantityError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    number, suffix = Decimal(match[1]), match[2]
    if suffix in _BINARY[1:]:
        return number * Decimal(_BINARY_STEP) ** _BINARY.index(suffix), "binary"
    if suffix in _DECIMAL:
        return number * Decimal(_STEP) ** (_DECIMAL.index(suffix) - _DECIMAL_BASE), "decimal"
    if re.fullmatch(r"[eE][-+]?\d+", suffix):
        return number.scaleb(int(suffix[1:])), "exponent"
    raise QuantityError("unable to parse quantity's suffix")


def canonical(text: object) -> str:
    """Format a quantity as the server stores it. Raises QuantityError."""
    number, form = _read(str(text))
    if form == "exponent":
        return str(text)
    if form == "binary" and abs(number) >= _BINARY_STEP and number == number.to_integral_value():
        return _scaled(int(number), _BINARY, _BINARY_STEP)
    nanos = (number * Decimal(_STEP) ** _DECIMAL_BASE).to_integral_value(rounding="ROUND_CEILING")
    return _scaled(int(nanos), _DECIMAL, _STEP)


def _scaled(number: int, suffixes: tuple[str, ...], step: int) -> str:
    if number == 0:
        return "0"
    index = 0
    while number % step == 0 and index < len(suffixes) - 1:
        number //= step
        index += 1
    return f"{number}{suffixes[index]}"


def canonicalize(typed: Type, value: JsonValue) -> None:
    """Rewrite all quantities of an object canonically, in place. Raises QuantityError."""
    if isinstance(value, dict):
        _canonicalize_fields(typed, value)
    elif isinstance(value, list) and typed.element is not None:
        for item in value:
            canonicalize(typed.element, item)


def _canonicalize_fields(typed: Type, value: Json) -> None:
    for name, inner in value.items():
        declared = typed.child(name)
        if declared is None:
            continue
        if declared.definition == QUANTITY:
            value[name] = canonical(inner)
        elif isinstance(inner, (dict, list)):
            canonicalize(declared, inner)
