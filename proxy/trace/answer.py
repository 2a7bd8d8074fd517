"""What a collector answers, read without the protobuf library: three messages of two or three fields each.

The library would be imported by the sender's thread (30 ms of the interpreter's lock) for answers that are empty nearly
always. Encoding: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, are in none of these messages
_LONGEST_VARINT: Final = 10  # bytes
_UINT64: Final = (1 << 64) - 1
_INT64_SIGN: Final = 1 << 63

RETRY_INFO: Final = b"google.rpc.RetryInfo"


class Partial(NamedTuple):
    """``ExportTracePartialSuccess``: spans that were refused, and why; (0, "words") is a warning."""

    rejected: int
    message: str


class Status(NamedTuple):
    """``google.rpc.Status``: ``retry_delay`` in seconds from a RetryInfo, 0.0 if that names none, None without one."""

    message: str
    retry_delay: float | None


def partial_success(answer: bytes) -> Partial:
    """Read an ``ExportTraceServiceResponse``; ValueError if it is none."""
    rejected, message = 0, ""
    for number, value in _fields(answer):
        if number == 1:  # partial_success
            for inner, content in _fields(_bytes(value)):
                if inner == 1:  # rejected_spans
                    rejected = _int64(content)
                elif inner == 2:  # error_message
                    message = _text(content)
    return Partial(rejected, message)


def status(answer: bytes) -> Status:
    """Read a ``google.rpc.Status``; ValueError if it is none."""
    message, delay = "", None
    for number, value in _fields(answer):
        if number == 2:  # message
            message = _text(value)
        elif number == 3:  # details, a google.protobuf.Any each
            found = _retry_info(_bytes(value))
            delay = found if delay is None else delay
    return Status(message, delay)


def _retry_info(any_message: bytes) -> float | None:
    kind, content = b"", b""
    for number, value in _fields(any_message):
        if number == 1:  # type_url: what follows the last slash names the type
            kind = _bytes(value).rpartition(b"/")[2]
        elif number == 2:  # value
            content = _bytes(value)
    if kind != RETRY_INFO:
        return None
    delay = 0.0
    for number, value in _fields(content):
        if number == 1:  # retry_delay, a google.protobuf.Duration
            for inner, amount in _fields(_bytes(value)):
                if inner == 1:  # seconds
                    delay += _int64(amount)
                elif inner == 2:  # nanos
                    delay += _int64(amount) / 1e9
    return max(delay, 0.0)


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers with their values: int for varints and fixed widths, bytes for what has a length."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        wire_type = key & 7
        value: int | bytes
        if wire_type == _VARINT:
            value, at = _varint(message, at)
        else:
            if wire_type == _BYTES:
                length, at = _varint(message, at)
            elif wire_type in {_FIXED64, _FIXED32}:
                length = 8 if wire_type == _FIXED64 else 4
            else:
                raise ValueError(f"wire type {wire_type}")
            if length > end - at:
                raise ValueError("cut short")
            value = message[at : at + length]
            at += length
        if key >> 3 == 0:
            raise ValueError("field number 0")
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in message[at : at + _LONGEST_VARINT]:
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _UINT64, at
        shift += 7
    raise ValueError("a varint without an end")


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _text(value: int | bytes) -> str:
    return _bytes(value).decode("utf-8", "replace")


def _int64(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("a message where a number belongs")
    return value - (1 << 64) if value >= _INT64_SIGN else value
