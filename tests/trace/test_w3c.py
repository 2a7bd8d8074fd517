"""W3C Trace Context. The vectors are those of the specification and of its own test suite (w3c/trace-context)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace import w3c
from tests.trace.strategies import damaged, garbage, span_ids, trace_ids

TRACE = bytes.fromhex("12345678901234567890123456789012")
SPAN = bytes.fromhex("1234567890123456")
BASE = b"12345678901234567890123456789012-1234567890123456"


# traceparent


@given(trace_ids, span_ids, st.integers(0, 255))
def test_round_trip(trace_id: bytes, span_id: bytes, flags: int) -> None:
    value = w3c.format_traceparent(trace_id, span_id, flags)
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", value)
    assert w3c.parse_traceparent(value) == (trace_id, span_id, flags & 3)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        (b"00-" + BASE + b"-01", 1),
        (b"00-" + BASE + b"-00", 0),
        (b"00-" + BASE + b"-02", 2),  # level 2: random
        (b"00-" + BASE + b"-03", 3),
        (b"00-" + BASE + b"-ff", 3),  # undefined flags are not sent on
        (b"01-" + BASE + b"-01", 1),
        (b"cc-" + BASE + b"-01", 1),
        (b"cc-" + BASE + b"-03", 1),  # of a later version only the sampled flag is known
        (b"cc-" + BASE + b"-01-what-the-future-will-be-like", 1),
        (b"cc-" + BASE + b"-00-", 0),
        (b"fe-" + BASE + b"-01", 1),
    ],
)
def test_valid(value: bytes, flags: int) -> None:
    assert w3c.parse_traceparent(value) == (TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"00",
        BASE,
        b"00-" + BASE,
        b"00-" + BASE + b"-",
        b"00-" + BASE + b"-1",
        b"00-" + BASE + b"-001",
        b"00-" + BASE + b"-01.",
        b"00-" + BASE + b"-01-",
        b"00-" + BASE + b"-01-what-the-future-will-be-like",
        b"cc-" + BASE + b"-01.what-the-future-will-be-like",
        b"cc-" + BASE + b"-0",
        b"cc-" + BASE + b"-0-",
        b"ff-" + BASE + b"-01",
        b".0-" + BASE + b"-01",
        b"0.-" + BASE + b"-01",
        b"0-" + BASE + b"-01",
        b"000-" + BASE + b"-01",
        b"CC-" + BASE + b"-01",
        b"00-" + BASE + b"-.0",
        b"00-" + BASE + b"-0.",
        b"00-" + BASE + b"-0A",
        b"00-00000000000000000000000000000000-1234567890123456-01",
        b"00-12345678901234567890123456789012-0000000000000000-01",
        b"00-.2345678901234567890123456789012-1234567890123456-01",
        b"00-1234567890123456789012345678901.-1234567890123456-01",
        b"00-1234567890123456789012345678901-1234567890123456-01",
        b"00-123456789012345678901234567890123-1234567890123456-01",
        b"00-12345678901234567890123456789012-.234567890123456-01",
        b"00-12345678901234567890123456789012-123456789012345-01",
        b"00-12345678901234567890123456789012-12345678901234567-01",
        b"00-1234567890123456789012345678901A-1234567890123456-01",
        b"00_" + BASE + b"-01",
        b"00-" + BASE.replace(b"-", b"_") + b"-01",
        b"00-" + BASE + b"_01",
        b" 0-" + BASE + b"-01",
        b"00-" + BASE + b"-01, 00-" + BASE + b"-01",  # two headers, joined
        b"cc-" + BASE + b"-01, cc-" + BASE + b"-01",
    ],
)
def test_invalid(value: bytes) -> None:
    assert w3c.parse_traceparent(value) is None


_valid = st.builds(w3c.format_traceparent, trace_ids, span_ids, st.integers(0, 255))


@given(st.one_of(garbage, damaged(_valid), st.binary(min_size=55, max_size=57)))
def test_anything_else_is_refused_not_raised(value: bytes) -> None:
    context = w3c.parse_traceparent(value)
    lenient = re.fullmatch(
        rb"(?:00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})|(?!00|ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?)",
        value,
        re.DOTALL,
    )
    if lenient is None:
        assert context is None
    elif context is not None:
        trace, span = lenient[1] or lenient[4], lenient[2] or lenient[5]
        assert context[:2] == (bytes.fromhex(trace.decode()), bytes.fromhex(span.decode()))
    else:
        assert {b"0" * 32, b"0" * 16} & set(lenient.groups())


# tracestate

ALL_KEY = b"abcdefghijklmnopqrstuvwxyz0123456789_-*/"
ALL_VALUE = bytes(range(0x20, 0x2C)) + bytes(range(0x2D, 0x3D)) + bytes(range(0x3E, 0x7F))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"", b""),
        (b"foo=1", b"foo=1"),
        (b"foo=1,bar=2", b"foo=1,bar=2"),
        (b"foo=1, bar=2,baz=3", b"foo=1,bar=2,baz=3"),
        (b"foo=1 \t , \t bar=2, \t baz=3", b"foo=1,bar=2,baz=3"),
        (b"\t foo=1 \t", b"foo=1"),
        (b"foo=1,", b"foo=1"),
        (b", foo=1", b"foo=1"),
        (b"foo=1,,, ,bar=2", b"foo=1,bar=2"),
        (b"foo=  1", b"foo=  1"),  # blanks before a value are the value's
        (b"1foo=1", b"1foo=1"),  # level 2
        (ALL_KEY + b"=" + ALL_VALUE, ALL_KEY + b"=" + ALL_VALUE),
        (ALL_KEY + b"@a-z0-9_-*/=" + ALL_VALUE, ALL_KEY + b"@a-z0-9_-*/=" + ALL_VALUE),
        (b"foo=1," + b"z" * 256 + b"=1", b"foo=1," + b"z" * 256 + b"=1"),
        (b"foo=1," + b"t" * 241 + b"@" + b"v" * 14 + b"=1", b"foo=1," + b"t" * 241 + b"@" + b"v" * 14 + b"=1"),
        (b"foo=" + b"v" * 256, b"foo=" + b"v" * 256),
    ],
)
def test_tracestate(value: bytes, kept: bytes) -> None:
    assert w3c.parse_tracestate(value) == kept


@pytest.mark.parametrize(
    "value",
    [
        b"foo",
        b"foo=",
        b"=1",
        b"foo=,bar=3",
        b"foo=bar=baz",
        b"foo =1",
        b"FOO=1",
        b"foo.bar=1",
        b"foo@=1,bar=2",
        b"@foo=1,bar=2",
        b"foo@@bar=1,bar=2",
        b"foo@bar@baz=1,bar=2",
        b"foo=1,foo=1",
        b"foo=1,foo=2",
        b"foo=1\x00",
        b"foo=\xc3\xa9",
        b"foo=a\tb",
        b"foo=1," + b"z" * 257 + b"=1",
        b"foo=1," + b"t" * 242 + b"@v=1",
        b"foo=1,t@" + b"v" * 15 + b"=1",
        b"foo=" + b"v" * 257,
        b",".join(b"bar%02d=%02d" % (n, n) for n in range(33)),
    ],
)
def test_invalid_tracestate_is_dropped_whole(value: bytes) -> None:
    assert w3c.parse_tracestate(value) == b""


def test_thirty_two_members() -> None:
    value = b",".join(b"bar%02d=%02d" % (n, n) for n in range(32))
    assert w3c.parse_tracestate(value) == value


def test_over_512_bytes_long_members_go_first_then_the_last() -> None:
    small = [b"k%02d=%s" % (n, b"v" * 26) for n in range(10)]  # 30 bytes each, 309 joined
    long, longer = b"long=" + b"v" * 130, b"longer=" + b"v" * 130
    exact = b"e=" + b"v" * (512 - 309 - 1 - 2)
    assert len(b",".join((*small, exact))) == 512
    assert w3c.parse_tracestate(b",".join((*small, exact))) == b",".join((*small, exact))
    # One of the two long ones fits beside the rest: the last of them goes.
    assert w3c.parse_tracestate(b",".join((longer, long, *small))) == b",".join((longer, *small))
    many = [b"k%02d=%s" % (n, b"v" * 26) for n in range(20)]  # 619 joined
    assert w3c.parse_tracestate(b",".join((*many[:3], long, *many[3:]))) == b",".join(many[:16])


_keys = st.from_regex(rb"[a-z][a-z0-9_\-*/]{0,20}(@[a-z][a-z0-9]{0,5})?", fullmatch=True)
_values = st.from_regex(rb"[!-+\--<>-~]{1,30}", fullmatch=True)
_states = st.dictionaries(_keys, _values, max_size=32).map(
    lambda members: b",".join(key + b"=" + value for key, value in members.items())
)


@given(_states)
def test_a_valid_tracestate_stays(value: bytes) -> None:
    kept = w3c.parse_tracestate(value)
    assert kept == value or (len(value) > 512 and set(kept.split(b",")) < set(value.split(b",")))
    assert w3c.parse_tracestate(kept) == kept


@given(st.one_of(garbage, damaged(_states), st.binary(max_size=2_000)))
def test_whatever_comes_what_goes_on_is_valid_and_short(value: bytes) -> None:
    kept = w3c.parse_tracestate(value)
    assert len(kept) <= 512
    assert w3c.parse_tracestate(kept) == kept
    assert re.fullmatch(rb"[\x20-\x7e]*", kept)
