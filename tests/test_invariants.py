"""Whatever happens in whatever order, each request ends in exactly one record, and nothing of it stays behind."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from proxy.exchange import Exchange
from proxy.settings import Limits, Settings
from tests.rig import Rig, Wire, table

LIMITS = Limits(request_line=256, head=1024, fields=20, pipelined=1024)
HEAD = b" HTTP/1.1\r\nHost: a.test\r\n"


def get(n: int) -> bytes:
    return b"GET /r%d" % n + HEAD + b"\r\n"


def head_only(n: int) -> bytes:
    return b"HEAD /r%d" % n + HEAD + b"\r\n"


def old(n: int) -> bytes:
    return b"GET /r%d HTTP/1.0\r\n\r\n" % n


def closing(n: int) -> bytes:
    return b"GET /r%d" % n + HEAD + b"Connection: close\r\n\r\n"


def post(n: int) -> bytes:
    return b"POST /r%d" % n + HEAD + b"Content-Length: 7\r\n\r\n1234567"


def expecting(n: int) -> bytes:
    return b"POST /r%d" % n + HEAD + b"Expect: 100-continue\r\nContent-Length: 7\r\n\r\n"


def put_chunks(n: int) -> bytes:
    return b"PUT /r%d" % n + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"


def upgrade(n: int) -> bytes:
    return b"GET /r%d" % n + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def unrouted(n: int) -> bytes:
    return b"GET /r%d HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n" % n


def malformed(n: int) -> bytes:
    return b"GET /r%d HTTP/1.1\r\nHost : a.test\r\n\r\n" % n


def too_large(n: int) -> bytes:
    return b"POST /r%d" % n + HEAD + b"Content-Length: 999999999\r\n\r\n"


def bad_chunk(n: int) -> bytes:
    return b"PUT /r%d" % n + HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n"


REQUESTS = [
    get, head_only, old, closing, post, expecting, put_chunks, upgrade, unrouted, malformed, too_large, bad_chunk,
]  # fmt: skip


def sized(n: int) -> bytes:
    body = b"<r%d>" % n
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(n: int) -> bytes:
    body = b"<r%d>" % n
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def until_close(n: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\n\r\n<r%d>" % n


def last(n: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


def interim(n: int) -> bytes:
    return b"HTTP/1.1 100 Continue\r\n\r\n"


def switching(n: int) -> bytes:
    return b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello"


def too_much(n: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n<r%d000>" % n


def nonsense(n: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"


def large(n: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"400\r\n%b\r\n" % (b"x" * 1024)


RESPONSES = [sized, chunked, until_close, last, interim, switching, too_much, nonsense, large]


class AnyOrder(RuleBasedStateMachine):
    clients: Bundle[Wire] = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(
            Settings(limits=LIMITS, upstream_connections=3, upstream_idle_connections=2, eject_after=1000),
            table(ports=(9001, 9002), body_limit=1000),
            keep=True,
        )
        self.seen: list[Exchange] = []  # identity counts: an exchange has no equality of its own
        self.number = 0
        self.generation = 1
        self.asked: dict[int, bytes] = {}  # the id of an upstream wire: what came in on it
        self.got: list[tuple[Wire, bytes]] = []

    # The client's side.

    @rule(target=clients)
    def connect(self) -> Wire:
        return self.rig.client()

    @rule(client=clients, kind=st.sampled_from(REQUESTS), cut=st.integers(1, 40), whole=st.booleans())
    def ask(self, client: Wire, kind: Any, cut: int, whole: bool) -> None:
        self.number += 1
        data = kind(self.number)
        self.feed(client, data if whole else data[:-cut])
        if not whole and cut % 2:
            self.feed(client, data[-cut:])

    @rule(client=clients, kinds=st.lists(st.sampled_from(REQUESTS), min_size=2, max_size=4))
    def pipeline(self, client: Wire, kinds: list[Any]) -> None:
        data = b""
        for kind in kinds:
            self.number += 1
            data += kind(self.number)
        self.feed(client, data)

    @rule(
        client=clients,
        data=st.sampled_from([b"1234567", b"\r\n", b"\r\n\r\n", b"3\r\nabc\r\n0\r\n\r\n", b"\0", b"x" * 3000]),
    )
    def say(self, client: Wire, data: bytes) -> None:
        self.feed(client, data)

    @rule(client=clients)
    def client_ends(self, client: Wire) -> None:
        if not client.gone and not client.ended:
            client.end()
            self.settle()

    @rule(client=clients, error=st.sampled_from([None, ConnectionResetError(104, "reset")]))
    def client_leaves(self, client: Wire, error: Exception | None) -> None:
        if not client.gone:
            client.lose(error)
            self.settle()

    @rule(client=clients)
    def client_stops_reading(self, client: Wire) -> None:
        client.full = True

    @rule(client=clients)
    def client_reads_on(self, client: Wire) -> None:
        client.flush()
        self.settle()

    # The upstreams' side.

    @precondition(lambda self: self.rig.dials)
    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.rig.dials)).accept()
        self.settle()

    @precondition(lambda self: self.rig.dials)
    @rule(data=st.data(), dies=st.booleans())
    def refuse(self, data: st.DataObject, dies: bool) -> None:
        dial = data.draw(st.sampled_from(self.rig.dials))
        if dies:  # open and lost within one round of the loop
            wire = dial.accept()
            wire.lose()
        else:
            dial.fail()
        self.settle()

    @precondition(lambda self: self.open())
    @rule(data=st.data(), kind=st.sampled_from(RESPONSES), cut=st.integers(0, 30))
    def answer(self, data: st.DataObject, kind: Any, cut: int) -> None:
        wire = data.draw(st.sampled_from(self.open()))
        asked = re.findall(rb"/r(\d+) HTTP/1.1\r\n", self.asked.get(id(wire), b"") + bytes(wire.sent))
        response = kind(int(asked[-1]) if asked else 0)
        self.feed(wire, response[:-cut] if cut else response)
        if cut and cut % 2:
            self.feed(wire, response[-cut:])

    @precondition(lambda self: self.open())
    @rule(data=st.data(), what=st.sampled_from(["end", "lose", "reset", "full", "flush", "say"]))
    def upstream_event(self, data: st.DataObject, what: str) -> None:
        wire = data.draw(st.sampled_from(self.open()))
        if what == "end" and not wire.ended:
            wire.end()
        elif what == "lose":
            wire.lose()
        elif what == "reset":
            wire.lose(ConnectionResetError(104, "reset"))
        elif what == "full":
            wire.full = True
        elif what == "flush":
            wire.flush()
        elif what == "say":
            wire.feed(b"x" * 10)
        self.settle()

    # Time, configuration, the end.

    @rule(seconds=st.sampled_from([0.25, 3.0, 6.0, 61.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.rig.pass_time(seconds)
        self.settle()

    @rule(ports=st.sampled_from([(9001,), (9002,), (9001, 9002), (9003,), ()]))
    def configure(self, ports: tuple[int, ...]) -> None:
        self.generation += 1
        self.rig.worker.apply(table(self.generation, ports=ports, body_limit=1000))
        self.settle()

    def open(self) -> list[Wire]:
        return [wire for wire in self.rig.loop.wires if not wire.gone and not wire.closing]

    def feed(self, wire: Wire, data: bytes) -> None:
        if data and not wire.gone and not wire.ended:
            wire.feed(data)
        self.settle()

    def settle(self) -> None:
        self.rig.settle()
        for client in self.rig.clients:
            exchange = client.protocol.exchange
            if exchange is not None and not any(each is exchange for each in self.seen):
                self.seen.append(exchange)

    @invariant()
    def consistent(self) -> None:
        self.rig.check()
        kept = self.rig.worker.kept
        assert len({id(each) for each in kept}) == len(kept), "an exchange was recorded twice"
        for wire in [*self.rig.clients, *self.rig.loop.wires]:
            assert not wire.late or wire.aborted or wire.ended or wire.eof or wire.closing

    @invariant()
    def nothing_waits_for_ever(self) -> None:
        """Every request under way has a time by which something happens, though nobody sends another byte."""
        never = float("inf")
        queued = [entry[0] for pool in self.rig.worker.pools for entry in pool.waiting]
        for client in self.rig.clients:
            exchange = client.protocol.exchange
            if exchange is None or client.gone or client.protocol.deadline != never:
                continue
            attempt = exchange.attempt
            assert attempt is not None, exchange
            if attempt.upstream is not None:
                assert not attempt.abandoned, (exchange, "is over, and waits for the client alone")
                assert attempt.upstream.deadline != never, (exchange, attempt.upstream)
            else:
                assert self.rig.dials or attempt in queued, exchange

    def teardown(self) -> None:
        try:
            for client in self.rig.clients:
                if not client.gone:
                    client.lose()
            self.settle()
            self.rig.pass_time(1000.0)
            for dial in self.rig.dials:
                dial.fail()
            for wire in self.rig.loop.wires:
                wire.flush()
            self.settle()
            self.rig.check(at_rest=True)
            kept = {id(each) for each in self.rig.worker.kept}
            assert not [each for each in self.seen if id(each) not in kept], "an exchange was never recorded"
            assert not self.rig.worker.downstreams
            for endpoint in self.rig.endpoints:
                pool = endpoint.pool
                assert pool is None or not pool.waiting or all(entry[0].abandoned for entry in pool.waiting)
            for client in self.rig.clients:
                self.answers_match(client)
        finally:
            self.rig.close()

    def answers_match(self, client: Wire) -> None:
        """The answers on one connection are those of its own requests, in order."""
        numbers = [int(number) for number in re.findall(rb"<r(\d+)>", bytes(client.sent))]
        assert numbers == sorted(numbers), numbers


AnyOrderTest = AnyOrder.TestCase
AnyOrderTest.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
