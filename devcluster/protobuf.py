"""Just enough of protobuf's wire format to write messages: lengths and strings. Knows no message."""

_LENGTH_DELIMITED = 2
_CONTINUES = 0x80
_SEVEN_BITS = 0x7F


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > _SEVEN_BITS:
        out.append(number & _SEVEN_BITS | _CONTINUES)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(field: int, body: bytes) -> bytes:
    """Write a field that holds a message, or any bytes."""
    return _varint(field << 3 | _LENGTH_DELIMITED) + _varint(len(body)) + body


def string(field: int, text: str) -> bytes:
    """Write a field that holds a text."""
    return message(field, text.encode())


def named(field: int, name: str, value: bytes) -> bytes:
    """Write one entry of what stands for a map in gnostic's messages: a name (1) and a value (2)."""
    return message(field, string(1, name) + message(2, value))
