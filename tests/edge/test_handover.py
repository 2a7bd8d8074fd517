"""What `spanway wire` is told of requests, against every byte between the proxy and its upstreams."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import psutil
import pytest

from proxy.net import ports
from proxy.settings_wire import PORTS
from proxy.trace.handover import CLOSED, FAILED, REUSED, TLS, TUNNEL, Record, address, read
from tests.harness import poll
from tests.harness.certificates import Certificate
from tests.harness.collector import Collector
from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.manifests import site
from tests.harness.traced import Traced
from tests.harness.upstream import OK, Recorder, answer, hang_up, in_turn, silent
from tests.harness.upstream import Exchange as Scripted


class Tap:
    """Between the proxy and an upstream: passes both streams on and keeps them, by the proxy's local port."""

    def __init__(self, port: int) -> None:
        self.out: dict[int, bytearray] = {}
        self.back: dict[int, bytearray] = {}
        self._to = port
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                near, (_, port) = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            self._sockets += [near, far]
            self.out[port], self.back[port] = bytearray(), bytearray()
            for source, sink, kept in ((near, far, self.out[port]), (far, near, self.back[port])):
                thread = threading.Thread(target=self._pass, args=(source, sink, kept), daemon=True)
                self._threads.append(thread)
                thread.start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
        try:
            while data := source.recv(65536):
                kept += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, sink):
                sock.close()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(5)
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for sock in self._sockets:
            sock.close()


class Wire:
    """The listener that `spanway wire` is."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(10)
        self._got: list[Record] = []

    def take(self, trace: Traced, count: int = 1) -> list[Record]:
        """The records of a trace, once there are ``count``."""
        trace_id = bytes.fromhex(trace.trace_id)
        while len(found := [each for each in self._got if each.trace_id == trace_id]) < count:
            self._got += read(self.socket.recv(65536))[1]
        assert len(found) == count
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


class Setting:
    """A proxy, its upstreams behind taps, and the listener."""

    def __init__(self, edge: Edge, wire: Wire, taps: dict[str, Tap], recorders: dict[str, Recorder]) -> None:
        self.edge = edge
        self.wire = wire
        self.taps = taps
        self.recorders = recorders

    def told(self, name: str, *raw: Callable[[Traced], bytes], attempts: int = 1) -> list[Record]:
        """The records of some requests on one connection, each in a trace of its own."""
        found: list[Record] = []
        with self.edge.client() as client:
            for make in raw:
                trace = Traced(self.edge.collector)
                client.ask(make(trace))
                found += self.wire.take(trace, attempts)
        assert {record.peer_port for record in found} == {self.taps[name].port}
        return found


VERSIONS = {"tls12": ssl.TLSVersion.TLSv1_2, "tls13": ssl.TLSVersion.TLSv1_3}


@pytest.fixture(scope="module")
def setting(launch: Callable[..., Edge], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("wire")
    recorders = {"plain": Recorder()}
    for name, version in VERSIONS.items():
        context = Certificate("localhost").server_context(folder)
        context.minimum_version = context.maximum_version = version
        recorders[name] = Recorder(tls=context)
    taps = {name: Tap(recorder.port) for name, recorder in recorders.items()}
    extra = []
    for name, tap in taps.items():
        secure = {} if name == "plain" else {"backend-protocol": "HTTPS"}
        extra += site(name, [tap.port], annotations=secure)
    collector = Collector("grpc")
    with Wire(folder / "wire.sock") as wire:
        edge = launch("--wire", str(folder / "wire.sock"), collector=collector, extra=extra)
        poll.until(lambda: _listening(edge, wire), "the proxy to find the listener")
        yield Setting(edge, wire, taps, recorders)
    for tap in taps.values():
        tap.stop()
    for recorder in recorders.values():
        recorder.stop()
    collector.stop()


def _listening(edge: Edge, wire: Wire) -> bool:
    edge.probe()
    wire.socket.settimeout(0.3)
    try:
        wire.socket.recv(65536)
    except TimeoutError:
        return False
    finally:
        wire.socket.settimeout(10)
    return True


def plain(name: str, *lines: str) -> Callable[[Traced], bytes]:
    return lambda trace: request(trace.line, *lines, host=f"{name}.test")


def test_ranges_are_those_of_the_stream(setting: Setting) -> None:
    tap = setting.taps["plain"]
    found = setting.told(
        "plain",
        plain("plain"),
        lambda trace: sized(b"x" * 70_000, trace.line, host="plain.test"),
        lambda trace: chunked(b"abc", b"d" * 9000, lines=[trace.line], host="plain.test"),
        plain("plain"),
    )
    port = found[0].local_port
    assert {record.local_port for record in found} == {port}
    assert [record.flags for record in found] == [0, REUSED, REUSED, REUSED]
    assert {(record.local, record.peer) for record in found} == {(address("127.0.0.1"),) * 2}
    assert len({record.route for record in found}) == 1
    assert found[0].route
    q = p = 0
    for record, method in zip(found, (b"GET", b"POST", b"POST", b"GET"), strict=True):
        assert (record.request_start, record.response_start) == (q, p)
        q, p = record.request_end, record.response_end
        sent = bytes(tap.out[port][record.request_start : q])
        assert sent.startswith(method + b" / HTTP/1.1\r\n")
        assert record.span_id.hex().encode() in sent
        assert bytes(tap.back[port][record.response_start : p]) == OK
        assert record.write_ns <= record.sent_ns <= record.first_byte_ns <= record.end_ns
    assert (q, p) == (len(tap.out[port]), len(tap.back[port]))


def seams(stream: bytes) -> list[int]:
    """Offsets at which TLS records begin, and the end."""
    found = [0]
    while found[-1] < len(stream):
        at = found[-1]
        found.append(at + 5 + int.from_bytes(stream[at + 3 : at + 5], "big"))
    return found


@pytest.mark.parametrize("name", VERSIONS)
def test_ranges_count_ciphertext(setting: Setting, name: str) -> None:
    tap = setting.taps[name]
    found = setting.told(
        name, plain(name), lambda trace: sized(b"x" * 40_000, trace.line, host=f"{name}.test"), plain(name)
    )
    port = found[0].local_port
    out, back = seams(bytes(tap.out[port])), seams(bytes(tap.back[port]))
    assert [record.flags for record in found] == [TLS, TLS | REUSED, TLS | REUSED]
    for record in found:
        assert {record.request_start, record.request_end} <= set(out)
        # One record, of the answer alone: tickets of TLS 1.3 stand before it and count for nobody.
        assert back.index(record.response_end) == back.index(record.response_start) + 1
        assert 5 + len(OK) < record.response_end - record.response_start < 5 + len(OK) + 40
    for one, other in itertools.pairwise(found):
        assert (one.request_end, one.response_end) == (other.request_start, other.response_start)
    assert found[-1].request_end == out[-1]
    assert found[0].request_start > 300, "the handshake stands before"


def test_each_attempt_is_told(setting: Setting) -> None:
    setting.recorders["plain"].reset()
    setting.recorders["plain"].script = in_turn(answer(close=True), hang_up, answer())
    first, second, third = (Traced(setting.edge.collector) for _ in range(3))
    with setting.edge.client() as client:
        assert client.ask(request(first.line, host="plain.test")).status == 200
        setting.wire.take(first)
        assert client.ask(request(second.line, host="plain.test")).status == 200
        cut, whole = setting.wire.take(second, 2)
        assert client.ask(request(third.line, host="plain.test")).status == 200
        setting.wire.take(third)
    assert (cut.flags, cut.first_byte_ns, cut.response_start) == (FAILED, 0, cut.response_end)
    assert cut.request_start < cut.request_end
    assert (whole.flags, whole.request_start) == (0, 0)
    assert whole.local_port != cut.local_port
    assert len(second.attempts()) == 2
    assert {each.span_id for each in second.attempts()} == {cut.span_id.hex(), whole.span_id.hex()}
    setting.recorders["plain"].reset()


def test_a_response_that_ends_with_the_connection(setting: Setting) -> None:
    recorder = setting.recorders["plain"]
    recorder.reset()
    recorder.script = in_turn(answer(b"HTTP/1.1 200 OK\r\n\r\nall there is", close=True), answer())
    ended, other = setting.told("plain", plain("plain"), plain("plain"))
    assert ended.flags & CLOSED
    assert not other.flags & CLOSED
    recorder.reset()


def test_an_abandoned_attempt(setting: Setting) -> None:
    setting.recorders["plain"].script = silent
    trace = Traced(setting.edge.collector)
    with setting.edge.client() as client:
        client.send(request(trace.line, host="plain.test"))
        setting.recorders["plain"].wait(1)
    (record,) = setting.wire.take(trace)
    assert record.flags & FAILED
    assert record.first_byte_ns == 0
    assert record.end_ns > record.sent_ns
    setting.recorders["plain"].reset()


def test_a_tunnel_is_told_at_its_end(setting: Setting) -> None:
    def switch(exchange: Scripted) -> None:
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        while data := exchange.stream.some():
            exchange.send(data)
        exchange.close()

    setting.recorders["plain"].script = switch
    trace = Traced(setting.edge.collector)
    with setting.edge.client() as client:
        assert client.ask(request(trace.line, "Upgrade: echo", "Connection: Upgrade", host="plain.test")).status == 101
        client.send(b"x" * 5000)
        assert client.stream.exactly(5000) == b"x" * 5000
    (record,) = setting.wire.take(trace)
    tap = setting.taps["plain"]
    assert record.flags & TUNNEL
    head = bytes(tap.out[record.local_port][record.request_start : record.request_end])
    assert head.endswith(b"\r\n\r\n")
    poll.until(lambda: record.response_end == len(tap.back[record.local_port]), "the tap")
    assert record.response_end - record.response_start > 5000
    setting.recorders["plain"].reset()


def test_what_is_not_recorded_is_not_told(setting: Setting) -> None:
    unsampled, sampled = Traced(setting.edge.collector), Traced(setting.edge.collector)
    with setting.edge.client() as client:
        client.ask(request(unsampled.line[:-1] + "0", host="plain.test"))
        client.ask(request(sampled.line, host="plain.test"))
    setting.wire.take(sampled)
    assert bytes.fromhex(unsampled.trace_id) not in {each.trace_id for each in setting.wire._got}


def test_recorded_requests_have_ports_of_their_own(setting: Setting) -> None:
    if not ports.supported():
        pytest.skip("this kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3)")
    tap = setting.taps["plain"]
    before = {port: len(stream) for port, stream in tap.out.items()}
    with setting.edge.client() as client:
        for flag in "01" * 10:
            trace = Traced(setting.edge.collector)
            assert client.ask(request(trace.line[:-1] + flag, host="plain.test")).status == 200
            if flag == "1":
                (record,) = setting.wire.take(trace)
                assert PORTS.holds(record.local_port)
    used = {port: bytes(stream[before.get(port, 0) :]) for port, stream in tap.out.items()}
    for port, stream in used.items():
        assert stream.count(b"-00\r\n") == (0 if PORTS.holds(port) else stream.count(b"traceparent: "))
    assert sum(stream.count(b"-00\r\n") for stream in used.values()) == 10
    assert len([stream for stream in used.values() if stream]) == 2, "two connections, each used again and again"
    samples = setting.edge.proxy.metrics()
    assert samples.total("spanway_wire_listening") == 1
    assert samples.total("spanway_wire_attempts_total") >= 10


def test_spans_have_the_kernels_account_meanwhile(setting: Setting) -> None:
    for name in setting.taps:
        trace = Traced(setting.edge.collector)
        with setting.edge.client() as client:
            client.ask(sized(b"x" * 100_000, trace.line, host=f"{name}.test"))
        server, (client_span,) = trace.server(), trace.attempts()
        for span in (server, client_span):
            assert 0 < span.attributes["spanway.tcp.min_rtt.us"] <= span.attributes["spanway.tcp.rtt.us"]
            assert span.attributes["spanway.tcp.segments"] >= 1
        assert (
            trace.attempts()[0].attributes["spanway.tcp.segments"] > trace.server().attributes["spanway.tcp.segments"]
        )


def test_nothing_is_left_open(setting: Setting) -> None:
    parent = psutil.Process(setting.edge.proxy.process.pid)
    family = [parent, *parent.children()]

    def descriptors() -> int:
        return sum(process.num_fds() for process in family)

    def quiet() -> bool:
        setting.edge.reset()
        for recorder in setting.recorders.values():
            recorder.reset()
        return setting.edge.proxy.metrics().total("spanway_upstream_connections") == 0

    poll.until(quiet, "all connections to end")
    before = descriptors()
    for name in (*setting.taps, "plain"):
        with setting.edge.client() as client:
            client.ask(request(Traced(setting.edge.collector).line, host=f"{name}.test"))
    poll.until(quiet, "all connections to end")
    poll.until(lambda: descriptors() <= before, "all descriptors to be closed")
