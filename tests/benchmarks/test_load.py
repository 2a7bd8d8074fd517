"""What the load generators print, read exactly; our own ones against servers whose answers are known."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.load import handshakes, websocket
from benchmarks.load.h2load import H2Load
from benchmarks.measure import certificate
from benchmarks.measure.machine import ROOT
from benchmarks.peers.base import HOST
from tests.real import load
from tests.real.process import Process, free_ports

WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 1 connections

{"requests": 1000, "microseconds": 2000000, "bytes": 5, "p50": 150, "p90": 160, "p99": 170, "p999": 180, "max": 900, """
TAIL = '"connect": 0, "read": 2, "write": 0, "timeout": 0, "status": 3}\n'

H2LOAD = """Application protocol: http/1.1
Main benchmark duration is started for thread #0.
Stopped all clients for thread #0

finished in {time}, 1000.00 req/s, 39.06KB/s
requests: 6000 total, 6000 started, 6000 done, {succeeded} succeeded, {failed} failed, {errored} errored, 0 timeout
status codes: {ok} 2xx, {moved} 3xx, 0 4xx, {bad} 5xx
traffic: 234.38KB (240000) total, 87.89KB (90000) headers (space savings 0.00%), 11.72KB (12000) data
                     min         max         mean         sd        +/- sd
time for request:        9us       1.00s      1.78ms     40.81ms    99.83%
"""


def h2load(
    time: str = "6.00s",
    succeeded: int = 6000,
    failed: int = 0,
    errored: int = 0,
    ok: int = 6000,
    moved: int = 0,
    bad: int = 0,
) -> H2Load:
    return H2Load.parse(H2LOAD.format(**locals()))


def test_wrks_report_is_read_exactly() -> None:
    read = load.parse(WRK + TAIL)
    assert (read.requests, read.rate, read.p50, read.p999) == (1000, 500.0, 150, 180)
    assert read.errors == {"read": 2, "status": 3}


def test_a_wrk_that_could_not_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_h2loads_report_is_read_exactly() -> None:
    read = h2load()
    assert (read.requests, read.seconds, read.bytes, read.data) == (6000, 6.0, 240_000, 12_000)
    assert read.rate == 1000.0
    assert read.errors == {}


@pytest.mark.parametrize(("time", "seconds"), [("350.25ms", 0.35025), ("812us", 812e-6), ("1.50m", 90.0)])
def test_h2load_has_many_units_of_time(time: str, seconds: float) -> None:
    assert h2load(time).seconds == pytest.approx(seconds)


def test_every_answer_other_than_2xx_is_an_error() -> None:
    # h2load counts a 3xx as succeeded and a 5xx as failed; neither is a success here.
    read = h2load(succeeded=5990, failed=10, ok=5985, moved=5, bad=10, errored=2)
    assert read.requests == 5985
    assert read.errors == {"status": 15, "errored": 2}


def test_an_h2load_that_could_not_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="Connection refused"):
        H2Load.parse("unable to connect: Connection refused\n")


@contextlib.contextmanager
def tls_server(folder: Path, *, tickets: bool) -> Iterator[tuple[int, Path]]:
    """A server that answers once with 200 and leaves; its port, and the CA."""
    made = certificate.make(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.chain, made.key)
    if not tickets:
        context.num_tickets = 0
    (port,) = free_ports(1)
    loop = asyncio.new_event_loop()
    started = threading.Event()
    stop = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def serve() -> None:
        async with await asyncio.start_server(answer, "127.0.0.1", port, ssl=context):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(10)
    try:
        yield port, made.authority
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_handshakes_are_full_or_resumed(tmp_path: Path) -> None:
    with tls_server(tmp_path, tickets=True) as (port, authority):
        full = handshakes.client(port, 0.3, HOST, str(authority), resumed=False)
        again = handshakes.client(port, 0.3, HOST, str(authority), resumed=True)
    assert (full.errors, again.errors) == ({}, {})
    assert full.connections > 2
    assert full.resumed == 0
    assert again.resumed == again.connections - 1  # the first has no ticket yet
    assert full.protocol == "TLSv1.3"


def test_a_server_that_does_not_resume_is_noticed(tmp_path: Path) -> None:
    with tls_server(tmp_path, tickets=False) as (port, authority):
        found = handshakes.client(port, 0.2, HOST, str(authority), resumed=True)
    assert found.connections > 1
    assert found.resumed == 0


def test_a_certificate_for_another_name_is_an_error(tmp_path: Path) -> None:
    with tls_server(tmp_path, tickets=True) as (port, authority):
        found = handshakes.client(port, 0.1, "other.test", str(authority), resumed=False)
    assert found.connections == 0
    assert found.errors["SSLCertVerificationError"] > 0


def test_clients_add_up() -> None:
    one = handshakes.Result(10, 9, 1.0, "TLSv1.3", {"status": 1})
    other = handshakes.Result(5, 4, 1.5, "TLSv1.3", {"status": 2, "OSError": 1})
    expected = handshakes.Result(15, 13, 1.5, "TLSv1.3", {"status": 3, "OSError": 1})
    assert handshakes.together([one, other]) == expected
    printed = '...\n{"connections": 1, "resumed": 0, "seconds": 1.0, "protocol": "", "errors": {}}'
    assert handshakes.Result.parse(printed).connections == 1
    with pytest.raises(ValueError, match="no result"):
        handshakes.Result.parse("Traceback")


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.load.websocket", "serve", str(port)]
    with Process("echo", command, tmp_path_factory.mktemp("echo") / "log", cwd=ROOT) as process:
        process.until_listening(port)
        yield port


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_messages_are_counted_when_they_are_back_whole(echo: int, size: int) -> None:
    found = websocket.ask(echo, 0.2, 3, size, "bench.test")
    assert found.errors == {}
    assert found.connections == 3
    assert found.echoes > 3


def test_the_opening_handshake_is_checked() -> None:
    # RFC 6455 section 1.3 has this pair.
    assert websocket.accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(("size", "head"), [(5, 6), (126, 8), (65_536, 14)])
def test_a_frame_is_masked_and_has_its_length(size: int, head: int) -> None:
    made = websocket.frame(size)
    assert len(made) == head + size
    assert made[1] & 0x80
    assert made[0] == 0x82
