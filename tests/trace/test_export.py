from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy.errors import SettingsError
from proxy.settings import KIB, MIB, Tracing
from proxy.trace.encoder import Encoder
from proxy.trace.export import BATCH_BYTES, Exporter, make_transport
from proxy.trace.ledger import QUEUE_FULL, SHUTDOWN, ExportCounters
from proxy.trace.otlp_grpc import GrpcTransport
from proxy.trace.otlp_http import HttpTransport
from proxy.trace.record import RequestRecord
from proxy.trace.ring import Ring
from proxy.trace.sender import Retry
from proxy.trace.transport import Outcome, Transport
from tests.trace.collectors import (
    ACCEPTED,
    BUSY,
    Answer,
    Failure,
    Gate,
    GrpcCollector,
    HttpCollector,
    ScriptedTransport,
    unused_port,
)
from tests.trace.collectors import REFUSED as REFUSAL
from tests.trace.records import record, records
from tests.trace.spans import RESOURCE, SCOPE, blob, sized, span, spans_in

Protocol = Literal["grpc", "http/protobuf"]

PATIENCE = 20.0
SOON = Retry(first=0.001, longest=0.002, give_up=300.0)


def check(exporter: Exporter) -> ExportCounters:
    """The counters, which must add up and keep the bound at any moment."""
    counters = exporter.counters()
    assert counters.recorded == (
        counters.acknowledged + counters.rejected + counters.local + sum(counters.dropped.values()) + counters.pending
    )
    assert counters.pending_bytes <= counters.limit_bytes
    return counters


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Exporter] = []

    def build(
        transport: Transport | None, *, start: bool = True, ring: Ring | None = None, **settings: Any
    ) -> Exporter:
        exporter = Exporter(
            Tracing(**settings), transport, resource=RESOURCE, scope=SCOPE, ring=ring, retry=SOON, probe=False
        )
        made.append(exporter)
        if start:
            exporter.start()
        return exporter

    yield build
    for exporter in made:
        exporter.close(0.0)
        check(exporter)


def settled(exporter: Exporter) -> ExportCounters:
    assert exporter.flush(PATIENCE)
    return check(exporter)


class TestBatches:
    def test_a_batch_leaves_when_it_is_full(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport, batch=4)
        for number in range(1, 5):
            exporter.offer(blob(span(1, number), span(1, number + 100)), 2)
        assert exporter.drained(PATIENCE)
        assert [len(spans_in(body)) for body in transport.bodies] == [4, 4]
        assert check(exporter).acknowledged == 8

    def test_a_batch_leaves_when_it_is_old_enough(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport, delay=1.0)
        exporter.tick(100.0)
        exporter.offer(blob(span(1, 1)), 1)
        exporter.tick(100.9)
        assert check(exporter).pending == 1
        assert not transport.bodies
        exporter.tick(101.0)
        assert exporter.drained(PATIENCE)
        assert len(transport.bodies) == 1

    def test_age_is_counted_from_the_batchs_own_beginning(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport, batch=2, delay=1.0)
        exporter.tick(100.0)
        for number in (1, 2, 3):  # the third begins a new batch at once
            exporter.offer(blob(span(1, number)), 1)
        exporter.tick(101.5)  # the first that sees the new batch: its age begins here
        assert exporter.drained(PATIENCE)
        assert len(transport.bodies) == 1
        assert check(exporter).pending == 1
        exporter.tick(102.5)
        assert exporter.drained(PATIENCE)
        assert len(transport.bodies) == 2

    def test_a_batch_is_bounded_in_bytes(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport, batch=10_000, queue=64 * MIB)
        for number in range(1, 41):
            exporter.offer(sized(100_000, number), 1)
        assert settled(exporter).acknowledged == 40
        assert len(transport.bodies) == 4
        assert max(map(len, transport.bodies)) <= BATCH_BYTES

    def test_one_huge_blob_is_a_batch_of_its_own(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport, queue=64 * MIB)
        exporter.offer(blob(span(1, 1)), 1)
        exporter.offer(sized(2 * BATCH_BYTES, 2), 1)
        exporter.offer(blob(span(1, 3)), 1)
        assert settled(exporter).acknowledged == 3
        assert [len(spans_in(body)) for body in transport.bodies] == [1, 1, 1]

    def test_more_spans_in_a_blob_than_in_a_batch(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport, batch=2)
        exporter.offer(blob(*(span(1, number) for number in range(1, 6))), 5)
        assert settled(exporter).acknowledged == 5

    def test_nothing_is_sent_for_nothing(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport, delay=0.0)
        for now in (1.0, 2.0, 3.0):
            exporter.tick(now)
        exporter.seal()
        assert exporter.flush(0.0)
        assert not transport.bodies

    def test_spans_arrive_as_they_were_with_resource_and_scope(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport)
        exporter.offer(blob(span(1, 1), span(1, 2, 1)), 2)
        exporter.offer(blob(span(2, 3)), 1)
        settled(exporter)
        request = ExportTraceServiceRequest.FromString(transport.bodies[0])
        assert spans_in(request) == [span(1, 1), span(1, 2, 1), span(2, 3)]
        assert request.resource_spans[0].resource.SerializeToString() == RESOURCE
        assert request.resource_spans[0].scope_spans[0].scope.SerializeToString() == SCOPE


class TestQueue:
    def test_its_bound_counts_everything_not_yet_acknowledged(
        self, make: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        gate = Gate()
        transport = ScriptedTransport(gate)
        exporter = make(transport, batch=3, queue=20_000, delay=1000.0)
        kept = 0
        for number in range(1, 101):
            exporter.offer(sized(1000, number), 1)
            if check(exporter).dropped[QUEUE_FULL] == 0:
                kept = number
        counters = check(exporter)
        # 100 kB were offered: what fits stays, in flight, queued and open alike, and the newest go.
        assert 17 <= kept <= 19
        assert counters.pending == kept
        assert counters.dropped[QUEUE_FULL] == 100 - kept
        assert gate.reached.wait(PATIENCE)
        assert check(exporter).pending_bytes > 20_000 - 2000
        exporter.tick(1.0)
        exporter.tick(1.1)
        assert caplog.text.count("The queue is full") == 1
        gate.opened.set()
        assert settled(exporter).acknowledged == kept
        # There is room again, also for the fast path.
        exporter.tick(2.0)
        exporter.offer(sized(1000, 200), 1)
        assert settled(exporter).acknowledged == kept + 1
        numbers = [int.from_bytes(one.span_id, "big") for body in transport.bodies for one in spans_in(body)]
        assert numbers == [*range(1, kept + 1), 200]

    def test_room_is_found_again_without_a_tick(self, make: Any) -> None:
        gate = Gate()
        exporter = make(ScriptedTransport(gate), batch=1, queue=2500)
        exporter.offer(sized(2000, 1), 1)
        assert gate.reached.wait(PATIENCE)
        exporter.offer(sized(2000, 2), 1)
        assert check(exporter).dropped[QUEUE_FULL] == 1
        gate.opened.set()
        assert exporter.drained(PATIENCE)
        exporter.offer(sized(2000, 3), 1)
        assert settled(exporter).acknowledged == 2

    def test_a_blob_larger_than_the_queue(self, make: Any) -> None:
        exporter = make(ScriptedTransport(), queue=5000)
        exporter.offer(sized(6000), 3)
        assert check(exporter).dropped[QUEUE_FULL] == 3
        exporter.offer(sized(1000), 1)
        assert settled(exporter).acknowledged == 1

    def test_before_the_start_spans_wait(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport, start=False, batch=1)
        exporter.offer(blob(span(1, 1)), 1)
        assert not exporter.flush(0.0)
        assert not transport.bodies
        exporter.start()
        assert settled(exporter).acknowledged == 1


class Watched(Encoder):
    """Counts how often a whole request is encoded by itself."""

    def __init__(self) -> None:
        super().__init__(Tracing())
        self.times = 0

    def encode(self, made: RequestRecord) -> bytes:
        self.times += 1
        return super().encode(made)


class TestRecords:
    """Spans that are written right into the batch."""

    @given(st.lists(records(), min_size=1, max_size=12), st.integers(1, 8), st.integers(64 * KIB, 70 * KIB))
    @example([record()] * 150, 2048, 64 * KIB)
    @hypothesis_settings(max_examples=30)
    def test_they_are_what_offering_them_would_make(self, made: list[RequestRecord], batch: int, queue: int) -> None:
        found = []
        for direct in (True, False):
            transport = ScriptedTransport()
            settings, encoder = Tracing(batch=batch, queue=queue), Encoder(Tracing())
            exporter = Exporter(settings, transport, resource=RESOURCE, scope=SCOPE, retry=SOON, probe=False)
            for each in made:
                if direct:
                    exporter.record(encoder, each)
                else:
                    exporter.offer(encoder.encode(each), 1 + len(each.attempts))
            exporter.seal()
            counters = check(exporter)
            exporter.start()
            assert exporter.close(PATIENCE)
            found.append((transport.bodies, counters.pending, counters.pending_bytes, counters.dropped))
        assert found[0] == found[1]

    def test_what_the_queue_has_no_room_for_is_not_encoded_twice(self, make: Any) -> None:
        exporter, encoder = make(ScriptedTransport(), start=False, queue=64 * KIB), Watched()
        exporter.record(encoder, record())
        once = encoder.times
        while not check(exporter).dropped[QUEUE_FULL]:
            exporter.record(encoder, record())
        kept, encoder.times = check(exporter).pending, 0
        for _ in range(10):
            exporter.record(encoder, record())
        assert encoder.times == 10 * once
        assert check(exporter).pending == kept

    def test_after_the_end_they_are_counted(self, make: Any) -> None:
        exporter = make(ScriptedTransport())
        assert exporter.close(PATIENCE)
        exporter.record(Encoder(Tracing()), record())
        assert check(exporter).dropped[SHUTDOWN] == 1 + len(record().attempts)


class TestShutdown:
    def test_close_sends_what_is_left(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport)
        exporter.offer(blob(span(1, 1)), 1)
        assert exporter.close(PATIENCE)
        assert check(exporter).acknowledged == 1
        assert transport.closed.is_set()

    def test_what_comes_later_is_counted(self, make: Any) -> None:
        transport = ScriptedTransport()
        exporter = make(transport)
        assert exporter.close(PATIENCE)
        for _ in range(3):
            exporter.offer(blob(span(1, 1)), 1)
            exporter.tick(1e6)
        assert not transport.bodies
        assert check(exporter).dropped[SHUTDOWN] == 3
        assert check(exporter).pending == 0

    def test_a_hanging_collector_does_not_hold_it(self, make: Any, caplog: pytest.LogCaptureFixture) -> None:
        exporter = make(ScriptedTransport(Gate()), batch=1)
        exporter.offer(blob(span(1, 1)), 1)
        exporter.offer(blob(span(1, 2)), 1)
        assert not exporter.flush(0.01)
        assert not exporter.close(0.01)
        assert check(exporter).dropped[SHUTDOWN] == 2
        assert "2 spans could not be exported" in caplog.text

    def test_twice(self, make: Any) -> None:
        exporter = make(ScriptedTransport())
        assert exporter.close(1.0)
        assert exporter.close(1.0)


class TestRingOnly:
    def test_batches_go_to_the_ring_and_nowhere_else(self, make: Any) -> None:
        before = threading.active_count()
        ring = Ring(MIB)
        exporter = make(None, ring=ring, batch=2)
        for number in (1, 2, 3):
            exporter.offer(blob(span(1, number)), 1)
        exporter.tick(1.0)
        assert [len(spans_in(batch)) for batch in ring.since()[1]] == [2]
        exporter.seal()
        assert [len(spans_in(batch)) for batch in ring.since()[1]] == [2, 1]
        counters = check(exporter)
        assert (counters.local, counters.pending, counters.endpoint) == (3, 0, "")
        assert threading.active_count() == before
        assert exporter.flush(0.0)
        assert exporter.close(0.0)
        exporter.offer(blob(span(1, 4)), 1)
        assert check(exporter).dropped[SHUTDOWN] == 1

    def test_with_export_both_get_the_same_bytes(self, make: Any) -> None:
        ring = Ring(MIB)
        transport = ScriptedTransport()
        exporter = make(transport, ring=ring)
        exporter.offer(blob(span(1, 1)), 1)
        settled(exporter)
        assert ring.since()[1] == transport.bodies

    def test_a_small_ring_makes_smaller_batches_rather_than_staying_empty(self, make: Any) -> None:
        ring = Ring(256 * 1024)
        exporter = make(None, ring=ring, batch=100_000)
        for number in range(1, 1001):
            exporter.offer(sized(1000, number), 1)
        exporter.seal()
        assert ring.size > ring.limit // 4
        assert spans_in(ring.since()[1][-1])[-1].span_id == (1000).to_bytes(8, "big")

    def test_a_ring_of_no_bytes(self, make: Any) -> None:
        ring = Ring(0)
        exporter = make(None, ring=ring)
        exporter.offer(blob(span(1, 1)), 1)
        exporter.seal()
        assert ring.since() == (0, [])
        assert check(exporter).local == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_sums_hold_at_every_moment_of_a_wild_ride(make: Any, seed: int) -> None:
    chance = random.Random(seed)

    def moody(_: bytes) -> Outcome:
        kind = chance.randrange(6)
        if kind == 0:
            raise RuntimeError("surprise")
        if kind == 1:
            return REFUSAL
        if kind == 2:
            return BUSY
        return Outcome("accepted", "OK", rejected=chance.randrange(-1, 30)) if kind == 3 else ACCEPTED

    exporter = make(ScriptedTransport(otherwise=moody), batch=20, queue=30_000, ring=Ring(10_000))
    offered = 0
    for number in range(1, 2001):
        spans = 1 + number % 3
        exporter.offer(blob(*(span(number, k) for k in range(1, spans + 1))), spans)
        offered += spans
        if number % 50 == 0:
            exporter.tick(number / 10)
            assert check(exporter).recorded == offered
            time.sleep(0)  # let the sender's thread have its turn
    counters = settled(exporter)
    assert counters.recorded == offered
    assert counters.pending == counters.pending_bytes == 0
    assert counters.acknowledged > 0


class TestRealTransports:
    """The whole way over a socket, with both protocols."""

    def test_grpc(self, make: Any) -> None:
        step = Failure(grpc_code("UNAVAILABLE"), "restarting")
        with GrpcCollector(step) as collector:
            tracing = Tracing(endpoint=collector.url)
            exporter = make(make_transport(tracing))
            exporter.offer(blob(span(1, 1), span(1, 2)), 2)
            counters = settled(exporter)
            assert (counters.acknowledged, counters.retries, counters.protocol) == (2, 1, "grpc")
            assert counters.endpoint == collector.url
            assert [len(spans_in(request)) for request in collector.requests] == [2, 2]
            exporter.close(PATIENCE)

    def test_http(self, make: Any) -> None:
        with HttpCollector(Answer(503)) as collector:
            tracing = Tracing(endpoint=collector.url, protocol="http/protobuf")
            exporter = make(make_transport(tracing))
            exporter.offer(blob(span(1, 1), span(1, 2)), 2)
            counters = settled(exporter)
            assert (counters.acknowledged, counters.retries, counters.protocol) == (2, 1, "http/protobuf")
            assert [len(spans_in(request.message)) for request in collector.requests] == [2, 2]
            exporter.close(PATIENCE)

    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_a_collector_that_comes_late_gets_everything(self, make: Any, protocol: Protocol) -> None:
        port = unused_port()
        tracing = Tracing(endpoint=f"http://127.0.0.1:{port}", protocol=protocol)
        exporter = make(make_transport(tracing))
        exporter.offer(blob(span(1, 1)), 1)
        exporter.seal()
        while exporter.counters().failures == 0:
            time.sleep(0.001)
        exporter.offer(blob(span(1, 2)), 1)
        with (GrpcCollector if protocol == "grpc" else HttpCollector)(port=port):
            assert settled(exporter).acknowledged == 2
            assert check(exporter).reachable is True
            exporter.close(PATIENCE)

    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_a_dead_collector_costs_the_queue_and_no_more(self, make: Any, protocol: Protocol) -> None:
        tracing = Tracing(endpoint=f"http://127.0.0.1:{unused_port()}", protocol=protocol)
        exporter = make(make_transport(tracing), queue=10_000, batch=2)
        for number in range(1, 101):
            exporter.offer(sized(500, number), 1)
            check(exporter)
        assert not exporter.close(0.05)
        counters = check(exporter)
        assert counters.acknowledged == 0
        assert counters.dropped[QUEUE_FULL] + counters.dropped[SHUTDOWN] == 100


class TestMakeTransport:
    def test_off(self) -> None:
        assert make_transport(Tracing()) is None
        assert make_transport(Tracing(endpoint="none")) is None

    def test_by_protocol(self) -> None:
        assert isinstance(make_transport(Tracing(endpoint="http://c:4317")), GrpcTransport)
        http = make_transport(Tracing(endpoint="http://c:4318", protocol="http/protobuf"))
        assert isinstance(http, HttpTransport)

    def test_an_unknown_protocol(self) -> None:
        with pytest.raises(SettingsError, match=r"http/json.*OTEL_EXPORTER_OTLP_PROTOCOL"):
            make_transport(Tracing(endpoint="http://c:4318", protocol="http/json"))  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_neither_grpc_nor_protobuf_is_imported_before_the_thread_runs(protocol: str) -> None:
    # Workers are forked from a process that has made none of these; and the start must stay quick.
    code = (
        "import sys; from proxy.settings import Tracing; from proxy.trace.export import Exporter, make_transport\n"
        f"t = Tracing(endpoint='http://127.0.0.1:1', protocol={protocol!r})\n"
        "e = Exporter(t, make_transport(t), resource=b'', scope=b'')\n"
        "e.offer(b'', 1); e.seal()\n"
        "print(sorted(m for m in ('grpc', 'google.protobuf', 'opentelemetry') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_it_shows_its_state(make: Any) -> None:
    exporter = make(ScriptedTransport())
    exporter.offer(blob(span(1, 1)), 1)
    assert "http://collector.test:4317, 1 spans open" in repr(exporter)
    assert "the ring only" in repr(make(None))


def grpc_code(name: str) -> Any:
    import grpc

    return grpc.StatusCode[name]
