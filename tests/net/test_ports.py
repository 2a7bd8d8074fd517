"""Local ports by what a connection is for, on real sockets."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Iterator

import pytest
import uvloop

from proxy.net import ports
from proxy.net.ports import Ports, kernel_range, rest
from proxy.settings_wire import PORTS, PortRange

needs_kernel = pytest.mark.skipif(not ports.supported(), reason="this kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3)")


@pytest.fixture(params=["127.0.0.1", "::1"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family, backlog=128) as sock:
        yield sock.getsockname()[:2]


def connected(made: Ports, server: tuple[str, int], *kinds: bool, factory=uvloop.new_event_loop) -> list[int]:
    """The local ports of connections of these kinds, all open at once."""

    async def run() -> list[int]:
        loop = asyncio.get_running_loop()
        socks = [await made.connect(loop, *server, tapped) for tapped in kinds]
        found = [sock.getsockname()[1] for sock in socks]
        for sock in socks:
            assert not sock.getblocking()
            sock.close()
        return found

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(run())


@needs_kernel
@pytest.mark.parametrize("factory", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_each_kind_has_its_ports(server: tuple[str, int], factory) -> None:
    made = Ports(PORTS)
    assert made.usable()
    assert made.others is not None
    kinds = [number % 2 == 0 for number in range(20)]
    found = connected(made, server, *kinds, factory=factory)
    assert [PORTS.holds(port) for port in found] == kinds
    assert [made.others.holds(port) for port in found] == [not kind for kind in kinds]
    assert made.exhausted == 0


@needs_kernel
def test_a_range_that_is_used_up_costs_nobody_a_connection(server: tuple[str, int]) -> None:
    few = PortRange(PORTS.high - 1, PORTS.high)
    made = Ports(few)
    assert made.usable()
    found = connected(made, server, *[True] * 6)
    assert len(set(found)) == 6
    assert 4 <= sum(not few.holds(port) for port in found) <= 6
    assert made.exhausted == 1, "not asked again at once"


async def test_a_range_that_is_used_up_for_one_endpoint_is_asked_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int, PortRange | None]] = []

    async def connect(_loop: object, host: str, port: int, among: PortRange | None) -> socket.socket:
        asked.append((host, port, among))
        if host == "full" and among is not None:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return None  # type: ignore[return-value] # nobody looks at it

    class Loop:
        now = 100.0

        def time(self) -> float:
            return self.now

    monkeypatch.setattr(ports, "connect", connect)
    loop = Loop()
    made = Ports(PORTS)
    made.others = PortRange(32768, 57343)

    async def ask(host: str, port: int = 80, *, tapped: bool = True) -> list[PortRange | None]:
        asked.clear()
        await made.connect(loop, host, port, tapped)  # type: ignore[arg-type] # its time is all that is asked for
        return [among for _, _, among in asked]

    assert await ask("full") == [PORTS, None]
    assert await ask("full") == [None], "paused"
    assert await ask("other") == [PORTS], "nobody else is"
    assert await ask("full", 81) == [PORTS, None]
    assert await ask("full", tapped=False) == [made.others, None], "the other kind has other ports"
    assert made.exhausted == 3
    loop.now += 1.0
    assert await ask("full") == [PORTS, None]
    for number in range(3 * ports._PAUSES):
        await ask("full", number)
    assert len(made._paused) == ports._PAUSES


@needs_kernel
def test_what_refuses_is_told(server: tuple[str, int]) -> None:
    made = Ports(PORTS)
    made.usable()
    with socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET) as sock:
        sock.bind((server[0], 0))
        with pytest.raises(ConnectionRefusedError):
            connected(made, sock.getsockname()[:2], True)
    assert made.exhausted == 0


def test_ports_that_the_kernel_does_not_take(caplog: pytest.LogCaptureFixture) -> None:
    made = Ports(PortRange(2000, 2999))
    with caplog.at_level(logging.WARNING):
        assert [made.usable() for _ in range(3)] == [False] * 3
    (line,) = caplog.messages
    assert "wire.ports 2000-2999 is not within net.ipv4.ip_local_port_range" in line


def test_a_kernel_that_knows_no_ranges(
    server: tuple[str, int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(ports, "confine", unknown)
    assert not ports.supported()
    made = Ports(kernel_range())
    with caplog.at_level(logging.WARNING):
        assert not made.usable()
        assert not made.usable()
    assert len(caplog.messages) == 1
    assert "Linux 6.3" in caplog.messages[0]


def test_what_is_left() -> None:
    kernel = PortRange(32768, 60999)
    assert rest(PORTS, kernel) == PortRange(32768, 57343)
    assert rest(PortRange(32768, 33000), kernel) == PortRange(33001, 60999)
    assert rest(PortRange(60999, 60999), kernel) == PortRange(32768, 60998)
    assert rest(kernel, kernel) is None


def test_everything_tapped_is_nothing_to_tell_apart(caplog: pytest.LogCaptureFixture) -> None:
    assert not Ports(kernel_range()).usable()
    assert not caplog.messages
