from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace import b3
from tests.trace.strategies import damaged, garbage, span_ids, trace_ids

TRACE = bytes.fromhex("80f198ee56343ba864fe8b2a57d3eff7")
SHORT = bytes.fromhex("000000000000000064fe8b2a57d3eff7")
SPAN = bytes.fromhex("e457b5a2e4d86bd1")
DECISIONS = st.sampled_from([b3.DENY, b3.ACCEPT, b3.DEBUG])


@given(trace_ids, span_ids, DECISIONS)
def test_single_round_trip(trace_id: bytes, span_id: bytes, decision: int) -> None:
    value = b3.format_single(trace_id, span_id, decision)
    assert re.fullmatch(rb"[0-9a-f]{32}-[0-9a-f]{16}-[01d]", value)
    assert b3.parse_single(value) == (trace_id, span_id, decision)


@given(trace_ids, span_ids, DECISIONS)
def test_multi_round_trip(trace_id: bytes, span_id: bytes, decision: int) -> None:
    fields = dict(b3.format_multi(trace_id, span_id, decision))
    parsed = b3.parse_multi(
        fields[b"x-b3-traceid"],
        fields[b"x-b3-spanid"],
        b"",
        fields.get(b"x-b3-sampled", b""),
        fields.get(b"x-b3-flags", b""),
    )
    assert parsed == (trace_id, span_id, decision)


@pytest.mark.parametrize(
    ("value", "context"),
    [
        (b"0", (b"", b"", b3.DENY)),
        (b"1", (b"", b"", b3.ACCEPT)),
        (b"d", (b"", b"", b3.DEBUG)),
        (b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1", (TRACE, SPAN, b3.DEFER)),
        (b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1", (TRACE, SPAN, b3.ACCEPT)),
        (b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-0", (TRACE, SPAN, b3.DENY)),
        (b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-d-05e3ac9a4f6e3b90", (TRACE, SPAN, b3.DEBUG)),
        (b"64fe8b2a57d3eff7-e457b5a2e4d86bd1-1", (SHORT, SPAN, b3.ACCEPT)),
    ],
)
def test_single(value: bytes, context: tuple[bytes, bytes, int]) -> None:
    assert b3.parse_single(value) == context


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"2",
        b"D",
        b"true",
        b"-",
        b"80f198ee56343ba864fe8b2a57d3eff7",
        b"80f198ee56343ba864fe8b2a57d3eff7-",
        b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-",
        b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-2",
        b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-",
        b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b9",
        b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90-1",
        b"80F198EE56343BA864FE8B2A57D3EFF7-e457b5a2e4d86bd1-1",
        b"80f198ee56343ba864fe8b2a57d3eff-e457b5a2e4d86bd1-1",
        b"00000000000000000000000000000000-e457b5a2e4d86bd1-1",
        b"0000000000000000-e457b5a2e4d86bd1-1",
        b"64fe8b2a57d3eff7-0000000000000000-1",
        b"64fe8b2a57d3eff7-e457b5a2e4d86bd-1",
        b"0, 0",  # two headers, joined
    ],
)
def test_invalid_single(value: bytes) -> None:
    assert b3.parse_single(value) is None


T, S, P = b"80f198ee56343ba864fe8b2a57d3eff7", b"e457b5a2e4d86bd1", b"05e3ac9a4f6e3b90"


@pytest.mark.parametrize(
    ("fields", "context"),
    [
        ((T, S, b"", b"1", b""), (TRACE, SPAN, b3.ACCEPT)),
        ((T, S, P, b"0", b""), (TRACE, SPAN, b3.DENY)),
        ((T, S, P, b"", b""), (TRACE, SPAN, b3.DEFER)),
        ((T, S, b"", b"", b"1"), (TRACE, SPAN, b3.DEBUG)),
        ((T, S, b"", b"1", b"0"), (TRACE, SPAN, b3.ACCEPT)),
        ((T, S, b"", b"0", b"1"), (TRACE, SPAN, b3.DEBUG)),
        ((T[16:], S, b"", b"1", b""), (SHORT, SPAN, b3.ACCEPT)),
        ((T, S, b"", b"true", b""), (TRACE, SPAN, b3.ACCEPT)),
        ((T, S, b"", b"false", b""), (TRACE, SPAN, b3.DENY)),
        ((b"", b"", b"", b"0", b""), (b"", b"", b3.DENY)),
        ((b"", b"", b"", b"1", b""), (b"", b"", b3.ACCEPT)),
        ((b"", b"", b"", b"", b"1"), (b"", b"", b3.DEBUG)),
        ((b"", b"", b"", b"", b""), None),
        ((b"", b"", b"", b"", b"0"), None),
        ((T, b"", b"", b"1", b""), None),
        ((b"", S, b"", b"1", b""), None),
        ((b"", b"", P, b"1", b""), None),
        ((T, S, b"x", b"1", b""), None),
        ((T, S, b"", b"d", b""), None),
        ((T, S, b"", b"1, 1", b""), None),
        ((T, S, b"", b"1", b"2"), None),
        ((T.upper(), S, b"", b"1", b""), None),
        ((b"0" * 32, S, b"", b"1", b""), None),
        ((T, b"0" * 16, b"", b"1", b""), None),
    ],
)
def test_multi(fields: tuple[bytes, bytes, bytes, bytes, bytes], context: tuple[bytes, bytes, int] | None) -> None:
    assert b3.parse_multi(*fields) == context


_valid = st.builds(b3.format_single, trace_ids, span_ids, DECISIONS)
_parts = st.one_of(st.just(b""), garbage, st.sampled_from([T, T[16:], S, P, b"0", b"1", b"d", b"true"]))


@given(st.one_of(garbage, damaged(_valid)))
def test_any_other_single_is_refused_not_raised(value: bytes) -> None:
    form = rb"(?:([0-9a-f]{16}){1,2}-([0-9a-f]{16})(-[01d](-[0-9a-f]{16})?)?|[01d])"
    context = b3.parse_single(value)
    if re.fullmatch(form, value) is None:
        assert context is None
    elif context is None:
        assert any(part and not part.strip(b"0") for part in value.split(b"-"))


@given(_parts, _parts, _parts, _parts, _parts)
def test_any_multi_gives_whole_ids_or_none(
    trace: bytes, span: bytes, parent: bytes, sampled: bytes, flags: bytes
) -> None:
    context = b3.parse_multi(trace, span, parent, sampled, flags)
    if context is not None:
        assert (len(context[0]), len(context[1])) in ((16, 8), (0, 0))
        assert (context[0] == b"") == (trace == b"")
        assert context[2] in (b3.DENY, b3.ACCEPT, b3.DEBUG, b3.DEFER)
