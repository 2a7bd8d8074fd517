from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from proxy.trace import wire

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
WIDTHS = st.sampled_from(
    [0, 1, (1 << 14) - 1, 1 << 14, (1 << 28) - 1, 1 << 28, (1 << 42) - 1, 1 << 42, (1 << 63) - 1, -1]
)


def written(key: str, **value: Any) -> Span:
    return Span(attributes=[KeyValue(key=key, value=AnyValue(**value))])


@given(KEYS, INT64)
def test_integer(key: str, value: int) -> None:
    assert wire.integer(key, value) == written(key, int_value=value).SerializeToString()


@given(KEYS, st.one_of(INT64, WIDTHS))
@example("key", 0)
def test_integer_writer(key: str, value: int) -> None:
    assert Span.FromString(wire.integer_writer(key)(value)) == written(key, int_value=value)


@given(KEYS, st.booleans())
def test_boolean(key: str, value: bool) -> None:
    encoded = wire.boolean(key, value)
    assert Span.FromString(encoded) == written(key, bool_value=value)


@given(KEYS, st.one_of(st.text(max_size=300), st.integers(100, 300).map(lambda n: "x" * n), st.just("y" * 20_000)))
def test_text(key: str, value: str) -> None:
    encoded = value.encode("utf-8", "replace")
    message = written(key, string_value=encoded.decode()).SerializeToString()
    assert wire.text(key, encoded) == wire.text_writer(key)(encoded) == message
    assert wire.text_head(key, len(encoded)) + encoded == message


@given(st.binary(max_size=400))
def test_delimited(payload: bytes) -> None:
    assert wire.delimited(3, payload) == wire.delimited_writer(3)(payload)
    assert wire.delimited(1, payload[:16]) == (Span(trace_id=payload[:16]).SerializeToString() or b"\x0a\x00")


@given(st.integers(0, (1 << 14) - 1))
def test_narrow_numbers(value: int) -> None:
    encoded = wire.integer_head("k", 2) + struct.pack("<H", wire.NARROW[value])
    assert Span.FromString(encoded) == written("k", int_value=value)


@given(st.integers(0, (1 << 28) - 1))
def test_wide_numbers(value: int) -> None:
    encoded = wire.integer_head("k", 4) + struct.pack("<HH", wire.LOW[value & 0x3FFF], wire.NARROW[value >> 14])
    assert Span.FromString(encoded) == written("k", int_value=value)


@given(st.binary(max_size=60), st.integers(1, 40))
@example(b"\xff" * 40, 40)
@example(b"caf\xc3\xa9", 5)
@example(b"caf\xc3\xa9", 4)
@example("\U0001f40d".encode() * 3, 11)
@example(b"abc\xe2\x82", 5)
def test_utf8_is_valid_and_bounded(value: bytes, limit: int) -> None:
    clean = wire.utf8(value, limit)
    text = clean.decode("utf-8")
    assert len(clean) <= limit
    whole = value.decode("utf-8", "replace")
    assert whole.startswith(text)
    # Nothing is cut that had room.
    assert text == whole or len(text.encode()) + len(whole[len(text)].encode()) > limit or len(value) > limit


@pytest.mark.parametrize(
    ("value", "limit", "clean"),
    [
        (b"plain", 5, "plain"),
        (b"plain", 4, "plai"),
        ("caf\u00e9".encode(), 5, "caf\u00e9"),
        ("caf\u00e9".encode(), 4, "caf"),
        ("\U0001f40d\U0001f40d".encode(), 7, "\U0001f40d"),
        (b"\xff", 10, "\ufffd"),
        (b"\xff\xff", 5, "\ufffd"),
        (b"a\xe2\x82", 9, "a\ufffd"),
        (b"", 1, ""),
    ],
)
def test_utf8(value: bytes, limit: int, clean: str) -> None:
    assert wire.utf8(value, limit).decode() == clean
