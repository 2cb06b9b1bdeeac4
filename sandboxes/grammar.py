"""Kubernetes' resource quantities, such as `500m`, `2Gi` or `1e3`: what number one stands for. Exact, and pure.

The grammar is Kubernetes' own (`Quantity` in its API reference), less the sign, since nobody may ask for less than
nothing, and with bounds on the length, since nobody means a longer one.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal

MAX_LENGTH = 64

# "No quantity may represent a number greater than 2^63-1": Kubernetes lowers a larger one to that without a word.
LARGEST = 2**63 - 1

_QUANTITY = re.compile(
    r"(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?:(?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?[0-9]{1,2}))?"
)

# The powers of ten, and of two, that a suffix stands for.
_TENS = {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_TWOS = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}

# As many digits as MAX_LENGTH lets in, times the 19 of 2^60: nothing is ever rounded.
_EXACT = Context(prec=MAX_LENGTH + 19)


class QuantityError(ValueError):
    """A text that is no quantity, or is one out of bounds. The message goes on from the text: "must be …"."""


def parse(text: str) -> Decimal:
    """Return the number that the quantity stands for: of cores, or of bytes.

    Raises QuantityError for what is none, has a sign, is longer than MAX_LENGTH or more than LARGEST.
    """
    match = _QUANTITY.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if match is None:
        raise QuantityError("must be a Kubernetes quantity, such as 500m, 2Gi or 1e3")
    suffix = match["suffix"] or ""
    tens = int(match["exponent"] or 0) + _TENS.get(suffix, 0)
    value = _EXACT.multiply(Decimal(match["number"]).scaleb(tens, _EXACT), Decimal(2 ** _TWOS.get(suffix, 0)))
    if value > LARGEST:
        raise QuantityError("must be at most 2^63-1")
    return value
