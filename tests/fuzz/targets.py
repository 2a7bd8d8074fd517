"""Coverage-guided fuzzing of every parser that reads a stranger's bytes. See README.md beside this file.

A target raises nothing but `Fault`, and checks what must hold of whatever it accepts.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from proxy.accept import proxy_protocol
from proxy.admit.host import parse_host
from proxy.admit.target import absolute, normal_path, split
from proxy.errors import Fault, Kind
from proxy.http1 import strict
from proxy.http1.chunked import ChunkedReader
from proxy.http1.framing import request_framing, response_framing
from proxy.http1.scan import scan_request, scan_response
from proxy.http1.strict import check_partial
from proxy.settings import Tracing
from proxy.trace import encode
from proxy.trace.encoder import Encoder
from proxy.trace.record import AttemptRecord, RequestRecord
from proxy.trace.w3c import members, parse_traceparent, parse_tracestate
from tests.harness.twins import outcome
from tests.trace.records import Route, Upstream, attempt, record

TARGETS: dict[str, Callable[[bytes], None]] = {}


def target(function: Callable[[bytes], None]) -> Callable[[bytes], None]:
    TARGETS[function.__name__] = function
    return function


def accepts(parse: Callable[..., object], *arguments: object) -> bool:
    try:
        parse(*arguments)
    except Fault:
        return False
    return True


@target
def request(data: bytes) -> None:
    """What is accepted is clean, and could not have been refused earlier, as a part."""
    try:
        head = scan_request(data, 8192, 100)
    except Fault as fault:
        assert fault.kind is not Kind.INTERNAL  # noqa: PT017 - no pytest here
        return
    check_partial(data, 0, 8192, len(data))
    for line in head.lines:
        assert not set(line) & set(b"\r\n\0")
        assert b":" in line
    assert not set(head.target) & set(b" \t\r\n\0#")
    accepts(request_framing, head)


@target
def response(data: bytes) -> None:
    try:
        head = scan_response(data, 100)
    except Fault as fault:
        assert fault.kind is Kind.BAD_RESPONSE  # noqa: PT017 - no pytest here
        return
    assert 100 <= head.status <= 999
    accepts(response_framing, head, b"GET")


@target
def chunked(data: bytes) -> None:
    """Whole or byte by byte: the same payload, the same end, the same refusal."""

    def decode(pieces: list[bytes]) -> tuple[bytes, bytes, list[bytes]] | None:
        reader = ChunkedReader(4096)
        payload = rest = b""
        for piece in pieces:
            if reader.done:
                rest += piece
                continue
            try:
                payload += reader.feed(piece)
            except Fault:
                return None
            rest += reader.rest
        return (payload, rest, reader.trailers) if reader.done else (payload, b"", [])

    whole = decode([data])
    assert whole == decode([data[at : at + 1] for at in range(len(data))])


@target
def path(data: bytes) -> None:
    try:
        normal, _, _ = split(b"/" + data)
    except Fault as fault:
        assert fault.kind is Kind.BAD_TARGET  # noqa: PT017 - no pytest here
        return
    assert normal_path(normal) == normal
    assert not {b".", b".."} & set(normal.split(b"/"))
    accepts(absolute, data)


@target
def host(data: bytes) -> None:
    if accepts(parse_host, data):
        name, port = parse_host(data)
        assert parse_host(name) == (name, 0)
        assert 0 <= port < 65536


@target
def tracestate(data: bytes) -> None:
    parsed = parse_tracestate(data)
    assert parse_tracestate(parsed) == parsed
    assert len(parsed) <= 512
    members(data)
    parse_traceparent(data)


@target
def proxy_header(data: bytes) -> None:
    """A header is found at the same place however it comes."""
    try:
        parsed = proxy_protocol.parse(data)
    except Fault as fault:
        assert fault.kind is Kind.BAD_PROXY_HEADER  # noqa: PT017 - no pytest here
        return
    if parsed is not None:
        assert proxy_protocol.parse(data[: parsed[1]]) == parsed
        for end in range(parsed[1]):
            assert proxy_protocol.parse(data[:end]) is None


# The compiled form against the Python one


@target
def twin_request(data: bytes) -> None:
    """The first byte chooses the limits."""
    lines, fields = ((8192, 100), (20, 4), (8192, 5000), (8192, 1022))[data[0] % 4] if data else (8192, 100)
    for underscores in (False, True):
        ours = outcome(scan_request, data[1:], lines, fields, underscores)
        assert ours == outcome(strict.scan_request, data[1:], lines, fields, underscores)


@target
def twin_response(data: bytes) -> None:
    fields = (100, 4, 5000, 1022)[data[0] % 4] if data else 100
    assert outcome(scan_response, data[1:], fields) == outcome(strict.scan_response, data[1:], fields)


ENCODERS = Encoder(Tracing()), encode.Encoder(Tracing())
_NUMBERS = (
    *("start_ns", "admit_ns", "route_ns", "end_ns", "self_ns", "loop_lag_us", "request_body_size", "status", "flags"),
    *("response_body_size", "peer_port", "server_port", "version", "generation"),
)
_TRIED = (
    *("start_ns", "write_ns", "sent_ns", "first_byte_ns", "end_ns", "queue_ns", "dns_ns", "connect_ns", "tls_ns"),
    *("status", "resend", "port", "request_start", "request_end", "response_start", "response_end"),
)
_BYTES = ("method", "host", "path", "query", "user_agent", "tracestate")
_ROUTES = (None, Route(), Route(index=4, path="/other"))
_SMALL = {"status", "flags", "peer_port", "server_port", "version", "resend", "port"}  # C ints of a record


class _Taker:
    """Values cut from the fuzzer's bytes, zeros when these are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]

    def byte(self) -> int:
        return int.from_bytes(self.take(1), "big")

    def text(self) -> bytes:
        """Up to 63 bytes, now and then repeated to some hundreds or thousands."""
        length = self.byte()
        return self.take(length & 63) * (1, 1, 9, 200)[length >> 6]

    def numbers(self, made: RequestRecord | AttemptRecord, names: tuple[str, ...]) -> None:
        """Change some numbers: below 2**30 or, where stamps go, 2**60; those that may be negative sometimes are."""
        for _ in range(self.byte() % 8):
            name = names[self.byte() % len(names)]
            value = int.from_bytes(self.take(self.byte() % 9), "big") & (1 << (30 if name in _SMALL else 60)) - 1
            never = name in ("start_ns", "end_ns") or name in _SMALL
            setattr(made, name, value if never or self.byte() & 3 else -value)


@target
def twin_encoder(data: bytes) -> None:
    """Any record: the same bytes, whatever both encoders' caches hold by now."""
    taker = _Taker(data)
    made = record()
    taker.numbers(made, _NUMBERS)
    for _ in range(taker.byte() % 8):
        setattr(made, _BYTES[taker.byte() % len(_BYTES)], taker.text())
    chosen = taker.byte()
    made.route = _ROUTES[chosen % 3]
    made.parent_id = b"parent01" if chosen & 4 else b""
    made.outcome = ("", "client_gone", "upgraded", "")[chosen >> 3 & 3]
    made.error_type = ("", "client_gone", "upstream_timeout", "")[chosen >> 5 & 3]
    tried = []
    for _ in range(taker.byte() % 5):
        each = attempt(connection=Upstream() if chosen & 128 else None)
        taker.numbers(each, _TRIED)
        each.host = taker.text().decode("latin-1")
        tried.append(each)
    made.attempts = tried
    wanted = ENCODERS[1].encode(made)
    assert ENCODERS[0].encode(made) == wanted
    assert ENCODERS[0].encode(made) == wanted


def main(arguments: list[str]) -> int:
    if len(arguments) < 2 or arguments[1] not in TARGETS:
        sys.stderr.write(f"usage: targets.py {'|'.join(TARGETS)} [--replay FILE.. | libFuzzer arguments]\n")
        return 2
    run = TARGETS[arguments[1]]
    if "--replay" in arguments:
        for name in arguments[arguments.index("--replay") + 1 :]:
            run(Path(name).read_bytes())
        return 0
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        sys.stderr.write("atheris is not installed; see tests/fuzz/README.md\n")
        return 1
    atheris.instrument_all()
    atheris.Setup([arguments[0], *arguments[2:]], run)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
