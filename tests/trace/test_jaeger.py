from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace import jaeger
from tests.trace.strategies import damaged, garbage, span_ids, trace_ids

TRACE = bytes.fromhex("00000000000000000af7651916cd43dd")
SPAN = bytes.fromhex("00b7ad6b71692033")


@given(trace_ids, span_ids, st.integers(0, 255))
def test_round_trip(trace_id: bytes, span_id: bytes, flags: int) -> None:
    value = jaeger.format_context(trace_id, span_id, flags)
    assert re.fullmatch(rb"[0-9a-f]{32}:[0-9a-f]{16}:0:[0-9a-f]{1,2}", value)
    assert jaeger.parse(value) == (trace_id, span_id, flags)


@given(trace_ids, span_ids, span_ids, st.integers(0, 255), st.sampled_from([b"%3A", b"%3a", b":"]), st.booleans())
def test_as_other_clients_write_it(
    trace_id: bytes, span_id: bytes, parent: bytes, flags: int, colon: bytes, upper: bool
) -> None:
    numbers = [int.from_bytes(part, "big") for part in (trace_id, span_id, parent)]
    value = colon.join([f"{number:X}".encode() if upper else f"{number:x}".encode() for number in (*numbers, flags)])
    assert jaeger.parse(value) == (trace_id, span_id, flags)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (b"af7651916cd43dd:b7ad6b71692033:0:1", 1),
        (b"0af7651916cd43dd:00b7ad6b71692033:0:01", 1),
        (b"00000000000000000af7651916cd43dd:00b7ad6b71692033:af7651916cd43dd:0", 0),
        (b"af7651916cd43dd%3Ab7ad6b71692033%3A0%3A3", 3),
        (b"AF7651916CD43DD:B7AD6B71692033:0:9", 9),
    ],
)
def test_valid(value: bytes, flags: int) -> None:
    assert jaeger.parse(value) == (TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b":::",
        b"a:b:0",
        b"a:b:0:1:2",
        b"0:b:0:1",
        b"a:0:0:1",
        b"000:b:0:1",
        b"a:b::1",
        b"a:b:0:",
        b"a:b:0:100",
        b"g:b:0:1",
        b"a:b:0:+1",
        b"a:b:0:0x1",
        b" a:b:0:1",
        b"a:b:0:1_",
        b"1_0:b:0:1",
        b"a%3Bb:0:1",
        b"1" * 33 + b":b:0:1",
        b"a:" + b"1" * 17 + b":0:1",
        b"a:b:" + b"1" * 17 + b":1",
        b"a:b:0:1, a:b:0:1",  # two headers, joined
    ],
)
def test_invalid(value: bytes) -> None:
    assert jaeger.parse(value) is None


_valid = st.builds(jaeger.format_context, trace_ids, span_ids, st.integers(0, 255))


@given(st.one_of(garbage, damaged(_valid)))
def test_anything_else_is_refused_not_raised(value: bytes) -> None:
    context = jaeger.parse(value)
    decoded = value.replace(b"%3A", b":").replace(b"%3a", b":")
    match = re.fullmatch(rb"([0-9a-fA-F]{1,32}):([0-9a-fA-F]{1,16}):[0-9a-fA-F]{1,16}:([0-9a-fA-F]{1,2})", decoded)
    numbers = [int(part, 16) for part in match.groups()] if match else [0, 0, 0]
    if numbers[0] and numbers[1]:
        assert context == (numbers[0].to_bytes(16, "big"), numbers[1].to_bytes(8, "big"), numbers[2])
    else:
        assert context is None
