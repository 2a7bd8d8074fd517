from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import SettingsError
from proxy.http1.fields import CONTEXT
from proxy.settings import Tracing
from proxy.trace import b3
from proxy.trace.context import DEBUG, FIELDS, FORMATS, SAMPLED, Propagation
from tests.trace.strategies import damaged, garbage, span_ids, trace_ids

DEFAULT = Tracing().propagators
TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
SPAN = bytes.fromhex("00f067aa0ba902b7")
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
UBER = b"af7651916cd43dd:b7ad6b71692033:0:1"
UBER_IDS = (bytes.fromhex("00000000000000000af7651916cd43dd"), bytes.fromhex("00b7ad6b71692033"))
B3 = b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1"
B3_IDS = (bytes.fromhex("80f198ee56343ba864fe8b2a57d3eff7"), bytes.fromhex("e457b5a2e4d86bd1"))
EVERY = {b"traceparent": TRACEPARENT, b"tracestate": b"foo=1", b"uber-trace-id": UBER, b"b3": B3}

FLAGS = st.sampled_from([0, SAMPLED, SAMPLED | DEBUG])
FORMAT_LISTS = st.lists(st.sampled_from([name for name in FORMATS if name != "none"]), max_size=5).map(tuple)


def parsed(lines: bytes) -> dict[bytes, bytes]:
    """Header lines as the scanner would note them."""
    assert lines == b"" or lines.endswith(b"\r\n")
    fields: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b": ")
        assert colon
        assert name not in fields
        assert name == name.lower()
        fields[name] = value
    return fields


# Settings


def test_the_default_formats_exist() -> None:
    assert Propagation(DEFAULT).formats == ("tracecontext", "baggage", "jaeger")


@pytest.mark.parametrize("formats", [("b3single",), ("tracecontext", "xray"), ("TRACECONTEXT",), ("",)])
def test_unknown_format(formats: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as raised:
        Propagation(formats)
    assert repr(formats[-1]) in str(raised.value)
    assert all(name in str(raised.value) for name in FORMATS)


def test_none_stands_alone() -> None:
    with pytest.raises(SettingsError, match="'none'"):
        Propagation(("none", "b3"))


def test_the_scanner_takes_every_field_that_is_read_here() -> None:
    assert frozenset(CONTEXT) == FIELDS


# Reading


@pytest.mark.parametrize(
    ("formats", "name", "trace_and_span"),
    [
        (DEFAULT, "tracecontext", (TRACE, SPAN)),
        (("jaeger", "tracecontext"), "jaeger", UBER_IDS),
        (("baggage", "b3", "jaeger"), "b3", B3_IDS),
        (("b3multi",), "b3", B3_IDS),
    ],
)
def test_the_first_listed_format_wins(formats: tuple[str, ...], name: str, trace_and_span: tuple[bytes, bytes]) -> None:
    context = Propagation(formats).extract(EVERY)
    assert context is not None
    assert (context.format, context.trace_id, context.span_id) == (name, *trace_and_span)
    assert context.sampled is True
    assert context.tracestate == (b"foo=1" if name == "tracecontext" else b"")


@pytest.mark.parametrize("broken", [b"", b"00-0-0-1", TRACEPARENT + b", " + TRACEPARENT])
def test_an_invalid_context_makes_way_for_the_next_format(broken: bytes) -> None:
    context = Propagation(DEFAULT).extract({**EVERY, b"traceparent": broken})
    assert context is not None
    assert (context.format, context.trace_id, context.tracestate) == ("jaeger", UBER_IDS[0], b"")


def test_what_is_not_listed_is_not_read() -> None:
    assert Propagation(DEFAULT).extract({b"b3": B3}) is None
    assert Propagation(("b3",)).extract({b"traceparent": TRACEPARENT, b"uber-trace-id": UBER}) is None
    for formats in ((), ("none",), ("baggage",)):
        assert Propagation(formats).extract(EVERY) is None


@pytest.mark.parametrize(
    "fields", [{}, {b"host": b"h", b"user-agent": b"u"}, {b"tracestate": b"foo=1"}, {b"x-b3-spanid": b"1"}]
)
def test_no_context(fields: dict[bytes, bytes]) -> None:
    assert Propagation((*DEFAULT, "b3")).extract(fields) is None


def test_an_invalid_tracestate_does_not_harm_the_traceparent() -> None:
    context = Propagation(DEFAULT).extract({b"traceparent": TRACEPARENT, b"tracestate": b"FOO=1"})
    assert context is not None
    assert (context.trace_id, context.tracestate) == (TRACE, b"")


@pytest.mark.parametrize(
    ("formats", "fields", "ids", "flags", "sampled"),
    [
        (("tracecontext",), {b"traceparent": TRACEPARENT[:-1] + b"0"}, True, 0, False),
        (("tracecontext",), {b"traceparent": TRACEPARENT[:-1] + b"3"}, True, 3, True),
        (("jaeger",), {b"uber-trace-id": b"a:b:0:0"}, True, 0, False),
        (("jaeger",), {b"uber-trace-id": b"a:b:0:8"}, True, 0, False),
        (("jaeger",), {b"uber-trace-id": b"a:b:0:3"}, True, SAMPLED | DEBUG, True),
        (("jaeger",), {b"jaeger-debug-id": b"ticket-7"}, False, SAMPLED | DEBUG, True),
        (("jaeger",), {b"uber-trace-id": b"a:b:0:0", b"jaeger-debug-id": b"ticket-7"}, True, 0, False),
        (("jaeger",), {b"uber-trace-id": b"bad", b"jaeger-debug-id": b"ticket-7"}, False, SAMPLED | DEBUG, True),
        (("b3",), {b"b3": b"0"}, False, 0, False),
        (("b3",), {b"b3": b"1"}, False, SAMPLED, True),
        (("b3",), {b"b3": b"d"}, False, SAMPLED | DEBUG, True),
        (("b3",), {b"b3": B3[:-2]}, True, 0, None),
        (("b3",), {b"x-b3-traceid": B3[:32], b"x-b3-spanid": B3[33:49]}, True, 0, None),
        (("b3multi",), {b"x-b3-traceid": B3[:32], b"x-b3-spanid": B3[33:49], b"x-b3-flags": b"1"}, True, 0x101, True),
        (("b3multi",), {b"x-b3-sampled": b"0"}, False, 0, False),
        (("b3",), {b"b3": b"bad", b"x-b3-flags": b"1"}, False, SAMPLED | DEBUG, True),
    ],
)
def test_decisions(formats, fields, ids, flags, sampled) -> None:
    context = Propagation(formats).extract(fields)
    assert context is not None
    assert (context.flags, context.sampled) == (flags, sampled)
    assert (len(context.trace_id), len(context.span_id)) == ((16, 8) if ids else (0, 0))


_fields = st.dictionaries(
    st.sampled_from([*sorted(FIELDS), b"host"]),
    st.one_of(
        garbage,
        damaged(st.sampled_from([TRACEPARENT, UBER, B3, B3[:32], B3[33:49]])),
        st.sampled_from([TRACEPARENT, UBER, B3, B3[:32], B3[33:49], b"0", b"1", b"d", b"foo=1"]),
    ),
)


@given(FORMAT_LISTS, _fields)
def test_whatever_comes_nothing_is_raised_and_contexts_are_whole(formats: tuple[str, ...], fields) -> None:
    propagation = Propagation(formats)
    context = propagation.extract(fields)
    if context is None:
        return
    assert (len(context.trace_id), len(context.span_id)) in ((16, 8), (0, 0))
    if context.trace_id:
        assert any(context.trace_id)
        assert any(context.span_id)
    else:
        assert context.sampled is not None
    assert context.sampled is None or context.sampled == bool(context.flags & SAMPLED)
    assert context.format in formats or {context.format, *formats} >= {"b3", "b3multi"}
    assert repr(context).startswith(f"RemoteContext({context.trace_id.hex()}-")


# Writing


def test_the_default_formats_in_full() -> None:
    lines = Propagation(DEFAULT).inject(TRACE, SPAN, 1, b"ot=th:8")
    assert parsed(lines) == {
        b"traceparent": TRACEPARENT,
        b"tracestate": b"ot=th:8",
        b"uber-trace-id": b"4bf92f3577b34da6a3ce929d0e0e4736:00f067aa0ba902b7:0:1",
    }


@pytest.mark.parametrize(
    ("flags", "traceparent", "uber", "single", "multi"),
    [
        (0, b"00", b"0", b"0", {b"x-b3-sampled": b"0"}),
        (1, b"01", b"1", b"1", {b"x-b3-sampled": b"1"}),
        (2, b"02", b"0", b"0", {b"x-b3-sampled": b"0"}),
        (3, b"03", b"1", b"1", {b"x-b3-sampled": b"1"}),
        (SAMPLED | DEBUG, b"01", b"3", b"d", {b"x-b3-flags": b"1"}),
    ],
)
@pytest.mark.parametrize("first", ["tracecontext", "b3"])
def test_every_format_says_the_same(flags, traceparent, uber, single, multi, first) -> None:
    formats = (first, *(name for name in ("tracecontext", "jaeger", "b3", "b3multi") if name != first))
    fields = parsed(Propagation(formats).inject(TRACE, SPAN, flags, b""))
    assert fields[b"traceparent"][-2:] == traceparent
    assert fields[b"uber-trace-id"].rpartition(b":")[2] == uber
    assert fields[b"b3"].rpartition(b"-")[2] == single
    assert {name: value for name, value in fields.items() if name in (b"x-b3-sampled", b"x-b3-flags")} == multi
    assert b"tracestate" not in fields


@given(FORMAT_LISTS, trace_ids, span_ids, FLAGS, st.sampled_from([b"", b"foo=1,bar=2"]))
def test_what_is_written_is_read_back(formats, trace_id, span_id, flags, tracestate) -> None:
    propagation = Propagation(formats)
    fields = parsed(propagation.inject(trace_id, span_id, flags, tracestate))
    assert set(fields) <= FIELDS
    for name in formats:
        context = Propagation((name,)).extract(fields)
        if name == "baggage":
            assert context is None
            continue
        assert context is not None
        assert (context.trace_id, context.span_id, context.sampled) == (trace_id, span_id, bool(flags))
        if name == "tracecontext":
            assert (context.flags, context.tracestate) == (flags & SAMPLED, tracestate)
        else:
            assert context.flags == flags


@given(trace_ids, span_ids, st.integers(0, 0x1FF), st.sampled_from([b"", b"foo=1"]))
def test_the_shortcut_for_the_default_formats_is_only_a_shortcut(trace_id, span_id, flags, tracestate) -> None:
    written = [
        parsed(Propagation(formats).inject(trace_id, span_id, flags, tracestate))
        for formats in (("tracecontext", "jaeger"), ("tracecontext", "jaeger", "b3"))
    ]
    assert written[1].pop(b"b3")
    assert written[0] == written[1]


def test_none_writes_nothing() -> None:
    for formats in ((), ("none",), ("baggage",)):
        assert Propagation(formats).inject(TRACE, SPAN, 1, b"foo=1") == b""


# Passing on


def test_passthrough_is_what_came_and_only_context() -> None:
    fields = {**EVERY, b"host": b"h", b"connection": b"close", b"jaeger-baggage": b"k=v", b"x-b3-sampled": b"1"}
    for formats in (DEFAULT, ("none",)):
        passed = parsed(Propagation(formats).passthrough(fields))
        assert passed == {**EVERY, b"jaeger-baggage": b"k=v", b"x-b3-sampled": b"1"}
    assert Propagation(DEFAULT).passthrough({b"host": b"h"}) == b""


def test_others_are_what_inject_does_not_replace() -> None:
    fields = {**EVERY, b"host": b"h", b"jaeger-baggage": b"k=v", b"x-b3-sampled": b"1", b"jaeger-debug-id": b"7"}
    assert parsed(Propagation(DEFAULT).others(fields)) == {b"b3": B3, b"x-b3-sampled": b"1", b"jaeger-baggage": b"k=v"}
    assert parsed(Propagation(("b3",)).others(fields)) == {
        b"traceparent": TRACEPARENT,
        b"tracestate": b"foo=1",
        b"uber-trace-id": UBER,
        b"jaeger-debug-id": b"7",
        b"jaeger-baggage": b"k=v",
    }
    assert parsed(Propagation(("none",)).others(fields)) == {
        name: value for name, value in fields.items() if name != b"host"
    }


@given(FORMAT_LISTS, _fields, trace_ids, span_ids)
def test_no_field_is_written_twice(formats, fields, trace_id, span_id) -> None:
    fields = {name: value.replace(b"\r", b"").replace(b"\n", b"") for name, value in fields.items()}
    propagation = Propagation(formats)
    written = parsed(propagation.inject(trace_id, span_id, SAMPLED, b"foo=1"))
    assert not set(written) & set(parsed(propagation.others(fields)))


def test_repr() -> None:
    assert repr(Propagation(DEFAULT)) == "Propagation(tracecontext,baggage,jaeger)"
    assert repr(Propagation(())) == "Propagation(none)"


def test_b3_decisions_are_all_known() -> None:
    assert {b3.DENY, b3.ACCEPT, b3.DEBUG, b3.DEFER} == {0, 1, 2, 3}
