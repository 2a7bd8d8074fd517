from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.settings import Tracing
from proxy.trace.begin import begin
from proxy.trace.context import DEBUG, SAMPLED, Propagation, RemoteContext
from proxy.trace.record import RequestRecord
from proxy.trace.sampling import NAMES, Sampler
from tests.trace.strategies import span_ids, trace_ids

TRACE, SPAN = b"T" * 16, b"S" * 8
DEFAULT = Sampler(Tracing().sampler)
NEVER = Sampler("always_off")


def remote(
    flags: int = 1, sampled: bool | None = True, ids: bool = True, tracestate: bytes = b"foo=1"
) -> RemoteContext:
    return RemoteContext(TRACE if ids else b"", SPAN if ids else b"", flags, tracestate, sampled, "tracecontext")


def begun(*args, **kwargs) -> RequestRecord:
    record = RequestRecord()
    begin(record, *args, **kwargs)
    return record


@pytest.mark.parametrize("trusted", [True, False])
def test_nothing_came(trusted: bool) -> None:
    record = begun(None, trusted, DEFAULT)
    assert (len(record.trace_id), len(record.span_id)) == (16, 8)
    assert (record.parent_id, record.link, record.tracestate) == (b"", None, b"")
    assert (record.recorded, record.flags) == (True, 1)  # 03 would be refused by OpenTelemetry for Go
    assert begun(None, trusted, DEFAULT).trace_id != record.trace_id


def test_a_trusted_context_is_continued() -> None:
    record = begun(remote(), True, DEFAULT)
    assert (record.trace_id, record.parent_id, record.tracestate) == (TRACE, SPAN, b"foo=1")
    assert record.span_id != SPAN
    assert (record.recorded, record.flags, record.link) == (True, 1, None)


@pytest.mark.parametrize("flags", [1, 3, SAMPLED | DEBUG])
def test_random_and_debug_stay(flags: int) -> None:
    assert begun(remote(flags), True, DEFAULT).flags == flags


def test_a_trusted_parent_that_did_not_sample_is_obeyed() -> None:
    record = begun(remote(2, sampled=False), True, DEFAULT)
    assert (record.recorded, record.flags, record.trace_id) == (False, 0, TRACE)


def test_a_sampler_that_is_not_parent_based_decides_itself() -> None:
    record = begun(remote(2, sampled=False), True, Sampler("always_on"))
    assert (record.recorded, record.flags, record.parent_id) == (True, 3, SPAN)
    assert not begun(remote(), True, NEVER).recorded


def test_ids_without_a_decision_leave_it_to_us() -> None:
    assert begun(remote(0, sampled=None), True, DEFAULT).recorded
    assert begun(remote(0, sampled=None), True, DEFAULT).flags == 1
    assert not begun(remote(0, sampled=None), True, DEFAULT, 0.0).recorded


@pytest.mark.parametrize(("flags", "sampled"), [(0, False), (1, True), (SAMPLED | DEBUG, True)])
def test_a_decision_without_ids_begins_a_trace(flags: int, sampled: bool) -> None:
    for sampler in (DEFAULT, Sampler("parentbased_always_off")):
        record = begun(remote(flags, sampled, ids=False, tracestate=b""), True, sampler)
        assert (len(record.trace_id), record.parent_id, record.link) == (16, b"", None)
        assert (record.recorded, record.flags) == (sampled, flags)


@pytest.mark.parametrize(("flags", "sampled"), [(0, False), (1, True), (3, True), (0, None), (SAMPLED | DEBUG, True)])
def test_a_stranger_decides_nothing(flags: int, sampled: bool | None) -> None:
    record = begun(remote(flags, sampled), False, DEFAULT)
    assert record.trace_id != TRACE
    assert (record.parent_id, record.tracestate) == (b"", b"")
    assert (record.recorded, record.flags) == (True, 1)
    assert record.link is not None
    assert (record.link.trace_id, record.link.span_id, record.link.flags) == (TRACE, SPAN, flags)
    assert record.link.tracestate == b"foo=1"
    assert not begun(remote(flags, sampled), False, Sampler("parentbased_always_off")).recorded


def test_a_stranger_s_bare_decision_is_nothing_at_all() -> None:
    record = begun(remote(1, True, ids=False), False, NEVER)
    assert (record.recorded, record.link) == (False, None)


def test_what_is_not_wanted_is_not_recorded() -> None:
    record = begun(remote(), True, DEFAULT, wanted=False)
    assert (record.recorded, record.flags, record.trace_id) == (False, 0, TRACE)


def test_our_ratio_goes_into_the_tracestate() -> None:
    record = begun(None, True, DEFAULT, 0.999)
    while not record.recorded:
        record = begun(None, True, DEFAULT, 0.999)
    assert record.tracestate == b"ot=th:0042"
    assert begun(remote(), True, DEFAULT, 0.0001).tracestate == b"foo=1"  # the parent decided


@given(
    st.sampled_from(NAMES),
    st.none() | st.floats(0, 1),
    trace_ids,
    span_ids,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_the_span_that_is_sent_on_is_always_new(name, ratio, trace_id, span_id, sampled, trusted, wanted) -> None:
    context = RemoteContext(trace_id, span_id, int(sampled), b"", sampled, "tracecontext")
    record = begun(context, trusted, Sampler(name, 0.5), ratio, wanted)
    assert any(record.trace_id)
    assert any(record.span_id)
    assert record.span_id != span_id
    assert record.flags == int(record.recorded)
    assert (record.trace_id == trace_id) == trusted
    lines = Propagation(Tracing().propagators).inject(record.trace_id, record.span_id, record.flags, record.tracestate)
    assert span_id.hex().encode() not in lines
