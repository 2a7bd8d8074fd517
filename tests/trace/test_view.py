from __future__ import annotations

import math

import msgspec
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from proxy.trace.view import EventView, LinkView, attributes, decode, name_of
from tests.trace.spans import batch, span


def test_a_span_in_full() -> None:
    rich = span(1, 2, 3, name="GET /", start=1000, end=4000, error=True)
    rich.status.message = "why"
    rich.trace_state = "a=b"
    rich.attributes.add(key="http.route").value.string_value = "/"
    event = rich.events.add(name="exception", time_unix_nano=2000)
    event.attributes.add(key="n").value.int_value = 1
    rich.links.append(Span.Link(trace_id=b"\x01" * 16, span_id=b"\x02" * 8))
    (view,) = decode([batch(rich, service="shop")])
    assert (view.trace_id, view.span_id, view.parent_id) == (f"{1:032x}", f"{2:016x}", f"{3:016x}")
    assert (view.name, view.kind, view.service, view.scope) == ("GET /", "SERVER", "shop", "spanway")
    assert (view.start_ns, view.end_ns, view.duration_ns) == (1000, 4000, 3000)
    assert (view.status, view.status_message, view.trace_state) == ("ERROR", "why", "a=b")
    assert view.attributes == {"http.route": "/"}
    assert view.events == [EventView("exception", 2000, {"n": 1})]
    assert view.links == [LinkView("01" * 16, "02" * 8, {})]
    assert view.resource == {"service.name": "shop"}


def test_a_span_of_nothing() -> None:
    (view,) = decode([batch(Span(), service="")])
    assert (view.trace_id, view.span_id, view.parent_id, view.kind, view.status) == ("", "", "", "UNSPECIFIED", "UNSET")
    assert view.service == "unknown_service"


def test_a_parent_of_zeros_is_none_and_time_does_not_run_backwards() -> None:
    (view,) = decode([batch(Span(span_id=b"1" * 8, parent_span_id=bytes(8), start_time_unix_nano=9))])
    assert view.parent_id == ""
    assert view.duration_ns == 0


def test_every_type_of_value() -> None:
    one = Span()
    values = {
        "text": AnyValue(string_value="x"),
        "no": AnyValue(bool_value=False),
        "number": AnyValue(int_value=-5),
        "real": AnyValue(double_value=0.5),
        "nan": AnyValue(double_value=math.nan),
        "inf": AnyValue(double_value=-math.inf),
        "raw": AnyValue(bytes_value=b"\xff\x00"),
        "nothing": AnyValue(),
    }
    for key, value in values.items():
        one.attributes.add(key=key, value=value)
    items = one.attributes.add(key="list").value.array_value.values
    items.add(int_value=1)
    items.add(string_value="a")
    one.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.bool_value = True
    read = attributes(one.attributes)
    assert read == {
        "text": "x",
        "no": False,
        "number": -5,
        "real": 0.5,
        "nan": "nan",
        "inf": "-inf",
        "raw": "ff00",
        "nothing": None,
        "list": [1, "a"],
        "map": {"k": True},
    }
    msgspec.json.encode(read)


def test_deep_values_are_cut() -> None:
    one = Span()
    value = one.attributes.add(key="deep").value
    for _ in range(50):
        value = value.array_value.values.add()
    assert str(attributes(one.attributes)["deep"]).count("[") == 8


def test_only_what_is_asked_for_and_only_what_can_be_read() -> None:
    batches = [batch(span(0xAB, 1), span(0xAC, 2)), b"\xff\xffrubbish", batch(span(0xAB, 3))]
    assert [view.span_id[-1] for view in decode(batches)] == ["1", "2", "3"]
    assert [view.span_id[-1] for view in decode(batches, f"{0xAB:032x}")] == ["1", "3"]
    assert decode(batches, "f") == []


def test_enums_of_the_future() -> None:
    assert name_of(("A", "B"), 1) == "B"
    assert name_of(("A", "B"), 7) == "A"
    assert name_of(("A", "B"), -1) == "A"
    (view,) = decode([batch(Span(kind=77))])  # type: ignore[arg-type] # proto3 enums are open
    assert view.kind == "UNSPECIFIED"
