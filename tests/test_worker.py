from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from proxy.connect.pool import Pool
from proxy.errors import SettingsError
from proxy.net.ports import Ports
from proxy.route.spec import TableSpec
from proxy.settings import Limits, Settings, Tracing
from proxy.settings_wire import PORTS, Wire
from proxy.trace.allowance import BURST
from proxy.trace.encoder import Encoder
from tests.rig import GET, OK, Rig, rig, table
from tests.trace.records import handed


def pool_of(r: Rig, number: int = 0) -> Pool:
    pool = r.endpoints[number].pool
    assert isinstance(pool, Pool)
    return pool


def test_a_new_table_serves_from_the_next_request_on() -> None:
    with rig() as r:
        client = r.client(GET)
        old = r.upstream()
        r.worker.apply(table(2, ports=(9005,)))
        r.send(old, OK)
        r.settle()
        assert old.gone  # no table names it any more
        r.send(client, GET)
        assert r.dials[0].port == 9005
        r.send(r.upstream(), OK)
        assert client.take() == OK * 2


def test_connections_outlive_a_table_that_still_names_their_endpoint() -> None:
    with rig() as r:
        client, upstream = r.exchange(GET)
        r.worker.apply(table(2, ports=(9001, 9002)))
        assert pool_of(r).idle == [upstream.protocol]
        assert len(r.worker.pools) == 1
        client.lose()


def test_an_endpoint_that_comes_back_gets_a_new_pool() -> None:
    with rig() as r:
        r.exchange(GET)
        r.worker.apply(table(2, ports=()))
        r.pass_time(1)
        assert r.worker.pools == []
        assert not r.worker.connector.upstreams
        r.worker.apply(table(3))
        r.exchange(GET)
        assert len(r.worker.pools) == 1


def test_a_table_that_cannot_be_built_changes_nothing() -> None:
    with rig() as r:
        before, endpoints = r.worker.table, r.endpoints
        broken = TableSpec(2, table().routes)  # a route to a backend that is not there
        with pytest.raises(SettingsError, match="default/web:80"):
            r.worker.apply(broken)
        assert r.worker.table is before
        client, _ = r.exchange(GET)
        assert client.take() == OK
        assert r.endpoints == endpoints  # with their health, and what they tell their backends


def test_connections_are_bounded() -> None:
    with rig(Settings(limits=Limits(connections=2))) as r:
        clients = [r.client() for _ in range(3)]
        r.settle()
        assert [client.gone for client in clients] == [False, False, True]
        assert (r.worker.connections, r.worker.refused, len(r.worker.downstreams)) == (3, 1, 2)
        clients[0].lose()
        assert not r.client().closing


def test_a_span_that_cannot_be_written_takes_nothing_down(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Encoder):
        def encode(self, _: object) -> bytes:
            raise ValueError("broken")

    with rig() as r:
        encoder, r.worker.encoder = r.worker.encoder, Broken(r.worker.settings.tracing)
        client, upstream = r.exchange(GET)
        for _ in range(4):
            r.send(client, GET)
            r.send(upstream, OK)
        assert client.take() == OK * 5
        assert [message.split("(")[1] for message in caplog.messages][:2] == ["1 so far)", "2 so far)"]
        assert len(caplog.messages) < len(r.recorded)  # not a line per request
        r.worker.encoder = encoder


def test_drain_closes_the_idle_and_lets_the_busy_finish() -> None:
    with rig() as r:
        idle = r.client()
        busy = r.client(GET * 2)
        upstream = r.upstream()
        r.worker.drain()
        r.settle()
        assert idle.gone
        assert not busy.closing
        r.send(upstream, OK)
        r.settle()
        assert b"Connection: close\r\n" in busy.take()
        assert busy.eof or busy.gone
        assert len(r.recorded) == 1  # the pipelined one was not begun: the client will ask again elsewhere


def test_response_fields_of_our_own() -> None:
    with rig(Settings(via=True, tracing=Tracing(response_header=True))) as r:
        client, _ = r.exchange(GET)
        (recorded,) = r.recorded
        head = client.take()
        assert b"\r\nVia: 1.1 spanway\r\n" in head
        assert (
            b"\r\ntraceresponse: 00-%b-%b-01\r\n" % (recorded.trace_id.hex().encode(), recorded.span_id.hex().encode())
            in head
        )
        other = r.client(b"GET / HTTP/1.1\r\nHost: unknown.test\r\n\r\n")
        assert b"\r\ntraceresponse: 00-" in other.take()


def test_spans_are_counted_with_their_request() -> None:
    with rig(spec=table(ports=(9001, 9002))) as r:
        r.client(GET)
        r.dials[0].fail()
        r.send(r.upstream(), OK)
        r.settle()
        assert [spans for _, spans in r.exporter.blobs] == [3]


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:1", "::ffff:1"),
    ],
)
def test_address_text(peer: str, text: str) -> None:
    with rig() as r:
        assert r.worker.address_text(peer) == text


def test_paths_that_are_not_traced() -> None:
    with rig(Settings(tracing=Tracing(skip_paths=("/healthz",)))) as r:
        client = r.client(b"GET /healthz HTTP/1.1\r\nHost: a.test\r\n\r\n")
        upstream = r.upstream()
        assert b"-00\r\n" in upstream.take().partition(b"traceparent: ")[2]
        r.send(upstream, OK)
        assert r.exporter.blobs == []
        assert len(r.recorded) == 1
        client.lose()


class Together(Ports):
    """All connections in one pool."""

    def usable(self) -> bool:
        return False


def test_beyond_its_rate_the_wire_is_told_of_nothing_and_requests_go_on(tmp_path: Path) -> None:
    path = tmp_path / "wire.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wire:
        wire.bind(str(path))
        wire.setblocking(False)
        with rig(Settings(wire=Wire(socket=str(path), rate=1, kernel="never")), keep=True) as r:
            r.worker.connector.ports = Together(PORTS)
            r.pass_time(2.0)  # it has seen that somebody listens
            client, upstream = r.exchange(GET)
            r.pass_time(0.25)
            assert len(handed(wire)) == 1
            for _ in range(2 * BURST):
                r.worker.allowance.take(time.time_ns())
            r.pass_time(0.25)
            spared = r.worker.allowance.spared
            assert spared >= BURST
            r.send(client, GET)
            r.send(upstream, OK)
            assert client.take() == OK * 2
            with pytest.raises(BlockingIOError):
                handed(wire)
            assert [exchange.watched for exchange in r.worker.kept] == [True, False]
            assert r.worker.allowance.spared == spared + 1
            assert len(r.exporter.blobs) == 2
            r.worker.handover.close()
