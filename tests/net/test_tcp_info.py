"""The kernel's account of a connection: bytes of any kernel's struct, and real sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import struct
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.net import tcp_info
from proxy.net.tcp_info import NEEDED, parse
from tests.harness.twins import python_form

TWIN: Any = python_form("proxy.net.tcp_info")
FIELDS = (
    "rtt_us",
    "min_rtt_us",
    "retransmitted",
    "segments",
    "rwnd_limited_us",
    "sndbuf_limited_us",
    "delivery_rate",
)
WORD, WIDE = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 63) - 1)
SIZES = (232, 240, 248, 280)  # Linux 5.4, 6.2, 6.7, 6.18


def figures(reading: Any) -> tuple[int, ...]:
    return tuple(getattr(reading, name) for name in FIELDS)


@given(st.sampled_from(SIZES), WORD, WORD, WORD, WORD, WIDE, WIDE, WIDE)
def test_figures_stand_where_every_kernel_has_them(size, rtt, retrans, least, segments, rate, window, buffer) -> None:
    data = bytearray(os.urandom(size))
    struct.pack_into("=I", data, 68, rtt)
    struct.pack_into("=I", data, 100, retrans)
    struct.pack_into("=I", data, 148, least)
    struct.pack_into("=I", data, 156, segments)
    struct.pack_into("=QxxxxxxxxQQ", data, 160, rate, window, buffer)
    wanted = (rtt, least if least != 0xFFFFFFFF else 0, retrans, segments, window, buffer, rate)
    assert figures(parse(bytes(data))) == figures(TWIN.parse(bytes(data))) == wanted


@pytest.mark.parametrize("size", [0, 1, 104, NEEDED - 1])
def test_an_older_kernel_has_no_account(size: int) -> None:
    assert parse(bytes(size)) is None
    assert TWIN.parse(bytes(size)) is None


class Transport:
    def __init__(self, sock: socket.socket | None) -> None:
        self.sock = sock

    def get_extra_info(self, name: str) -> Any:
        assert name == "socket"
        return self.sock


def owner(sock: socket.socket | None) -> Any:
    return SimpleNamespace(transport=Transport(sock), probe=None)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as one:
        other, _ = server.accept()
        with other:
            yield one, other


@pytest.mark.parametrize("form", [tcp_info, TWIN])
def test_what_a_connection_sends_is_counted(pair: tuple[socket.socket, socket.socket], form: Any) -> None:
    one, other = pair
    mine = owner(one)
    before = form.begin(mine)
    assert before is not None
    assert form.begin(mine).segments == before.segments
    for _ in range(3):
        one.sendall(b"x" * 100)
        other.recv(100)
    after = form.end(mine, before)
    assert after.segments == 3
    assert after.retransmitted == 0
    assert 0 < after.min_rtt_us <= after.rtt_us < 10_000_000
    assert "segments=3" in repr(after)
    mine.probe.close()


@pytest.mark.parametrize("form", [tcp_info, TWIN])
def test_a_receiver_that_does_not_read_shows(pair: tuple[socket.socket, socket.socket], form: Any) -> None:
    one, other = pair
    other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    mine = owner(one)
    before = form.begin(mine)
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            one.send(bytes(1 << 16))
    time.sleep(0.1)  # what is counted are ticks of 1 to 10 ms
    found = form.end(mine, before).rwnd_limited_us
    assert found > 0
    mine.probe.close()


@pytest.mark.parametrize("form", [tcp_info, TWIN])
def test_a_probe_is_made_once_and_closed(pair: tuple[socket.socket, socket.socket], form: Any) -> None:
    one, other = pair
    before = len(os.listdir("/proc/self/fd"))
    mine = owner(one)
    for _ in range(5):
        form.begin(mine)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    # The connection does not end before its probe does.
    reading = form.begin(mine)
    one.close()
    assert form.end(mine, reading) is not None
    other.settimeout(0.05)
    with pytest.raises(TimeoutError):
        other.recv(1)
    mine.probe.close()
    other.settimeout(5)
    assert other.recv(1) == b""
    assert len(os.listdir("/proc/self/fd")) == before - 1
    mine.probe.close()
    assert mine.probe.read() is None
    assert form.end(mine, reading) is None


@pytest.mark.parametrize("form", [tcp_info, TWIN])
def test_what_cannot_be_asked(form: Any) -> None:
    assert form.begin(owner(None)) is None
    assert form.end(owner(None), None) is None
    one, other = socket.socketpair()
    with one, other:
        probe = form.Probe(one.fileno())
        assert probe.read() is None  # no TCP
        probe.close()
    one = socket.socket()
    one.close()
    assert form.begin(owner(one)) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        form.Probe(1 << 20)


@pytest.mark.parametrize("form", [tcp_info, TWIN])
def test_without_a_descriptor_left_there_is_no_account_and_no_failure(pair: Any, form: Any) -> None:
    one, _ = pair
    mine: Any = owner(one)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (one.fileno() + 1, limits[1]))
    spare: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                spare.append(os.dup(one.fileno()))
        assert form.begin(mine) is None
        assert mine.probe is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in spare:
            os.close(descriptor)
    assert form.begin(mine) is not None
    probe: Any = mine.probe
    probe.close()
