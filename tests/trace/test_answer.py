from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import DebugInfo, RetryInfo
from google.rpc.status_pb2 import Status as StatusMessage
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from proxy.trace.answer import Partial, Status, partial_success, status
from tests.trace.collectors import partial, status_details

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)


@given(INT64, st.text(max_size=200))
def test_partial_success_as_protobuf_writes_it(rejected: int, message: str) -> None:
    assert partial_success(partial(rejected, message)) == Partial(rejected, message)


def test_an_empty_answer_is_full_success() -> None:
    assert partial_success(b"") == Partial(0, "")


def test_unknown_fields_are_passed_over() -> None:
    # A varint, a fixed64, a string and a fixed32 with field numbers nobody has given out yet.
    unknown = b"\xf8\x3e\x05" + b"\xf9\x3e" + b"8" * 8 + b"\xfa\x3e\x02hi" + b"\xfd\x3e" + b"4" * 4
    assert partial_success(unknown + partial(3, "no") + unknown) == Partial(3, "no")


@given(st.text(max_size=50), st.integers(0, 1 << 40), st.integers(0, 999_999_999))
def test_retry_info_among_other_details(message: str, seconds: int, nanos: int) -> None:
    info = RetryInfo(retry_delay=Duration(seconds=seconds, nanos=nanos))
    read = status(status_details(DebugInfo(detail="stack"), info, message=message))
    assert read.message == message
    assert read.retry_delay == pytest.approx(seconds + nanos / 1e9)


def test_a_retry_info_without_a_delay_is_still_one() -> None:
    assert status(status_details(RetryInfo())).retry_delay == 0.0


def test_a_negative_delay_counts_as_none_named() -> None:
    assert status(status_details(RetryInfo(retry_delay=Duration(seconds=-5)))).retry_delay == 0.0


def test_no_retry_info() -> None:
    assert status(status_details(DebugInfo(detail="x"))) == Status("busy", None)
    assert status(b"") == Status("", None)


@given(st.binary(max_size=80))
@example(partial(1, "cut")[:-1])
@example(b"\x0a\x80")
@example(b"\x0a\x02\x08\x80")
@example(b"\x08\x01")
@example(b"\x0a\x02\x0a\x00")
@example(b"\x00\x00")
def test_anything_else_is_a_value_error_and_never_worse(data: bytes) -> None:
    try:
        ours: Partial | None = partial_success(data)
    except ValueError:
        ours = None
    try:
        theirs = ExportTraceServiceResponse.FromString(data).partial_success
    except DecodeError:
        return
    # Where protobuf reads a message, so do we, and the same one; except groups and known fields of the wrong type,
    # which a collector does not send and protobuf keeps as unknown.
    if ours is not None:
        assert ours.rejected == theirs.rejected_spans or not theirs.ByteSize()


@given(st.binary(max_size=80))
def test_status_of_anything(data: bytes) -> None:
    try:
        ours: Status | None = status(data)
    except ValueError:
        return
    assert ours is not None
    try:
        theirs = StatusMessage.FromString(data)
    except DecodeError:
        return
    assert ours.message == theirs.message or not theirs.message
