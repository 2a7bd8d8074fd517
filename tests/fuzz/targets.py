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
from proxy.http1.chunked import ChunkedReader
from proxy.http1.framing import request_framing, response_framing
from proxy.http1.scan import scan_request, scan_response
from proxy.http1.strict import check_partial
from proxy.trace.w3c import members, parse_traceparent, parse_tracestate

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
