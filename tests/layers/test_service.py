"""The process `spanway wire` from the inside: what it takes in, which packets it asks for, how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.layers import ipfix, service, widening
from proxy.layers.find import Interface
from proxy.layers.ipfix import KNOWN
from proxy.layers.ring import NoInterface
from proxy.layers.select import MOST_PEERS, program
from proxy.layers.service import Plan, Service
from proxy.layers.taps import Taps
from proxy.layers.ways import Address, NoWay, Way
from proxy.settings import Address as Endpoint
from proxy.settings import Tracing
from proxy.settings_wire import PortRange
from proxy.trace.handover import SIZE, Head, Record, head, pack
from tests.layers.path import Ask, Hop, Net
from tests.layers.test_ipfix import message, record

PORTS = PortRange(57344, 60999)
WORKER = head(Head(b"worker 1"))
(RECORD,) = Net([Hop(), Hop(), Hop()]).run([Ask()])


def nowhere(_local: Address, peer: Address) -> Way:
    raise NoWay(f"nobody knows {peer}")


def plan(folder: Path, *, widen: bool = True) -> Plan:
    return Plan(
        socket=folder / "wire.sock", ports=PORTS, widen=widen, look=nowhere, tracing=Tracing(endpoint="none"),
        transport=None, admin=None,
    )  # fmt: skip


@pytest.fixture
async def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Service, list[bytes]]]:
    monkeypatch.setattr(widening, "SETTLE_NS", 0)
    one = Service(plan(tmp_path))
    chosen: list[bytes] = []
    monkeypatch.setattr(one._taps, "select", chosen.append)
    yield one, chosen
    one._inbox.close()
    one._ways.close()


def of(port: int, peer_port: int = 8000) -> Record:
    return RECORD._replace(local_port=port, peer_port=peer_port, write_ns=time.time_ns(), end_ns=time.time_ns())


async def test_where_everything_is_recorded_the_backends_ports_choose(made: tuple[Service, list[bytes]]) -> None:
    one, chosen = made
    one._take(of(40_000))
    one._take(of(40_001))
    one._take(of(40_002, 8001))
    assert chosen == [program(None, {8000}), program(None, {8000, 8001})]
    assert one._joining.pending == 3


async def test_a_stray_connection_does_not_widen_the_filter(made: tuple[Service, list[bytes]]) -> None:
    one, chosen = made
    for port in range(58_000, 58_010):
        one._take(of(port))
    one._take(of(40_000))
    assert chosen == []
    assert one._joining.pending == 10
    assert one._tally.missing["port"] == 1


async def test_an_attempt_from_before_the_proxy_knew_does_not_widen_the_filter(tmp_path: Path) -> None:
    one = Service(plan(tmp_path))
    one._take(of(40_000))
    assert (one._widening.peers, one._tally.missing["port"]) == (set(), 1)
    one._take(of(40_000)._replace(write_ns=time.time_ns() + widening.SETTLE_NS))
    assert (one._widening.peers, one._joining.pending) == ({8000}, 1)
    one._inbox.close()
    one._ways.close()


async def test_the_filter_narrows_again(made: tuple[Service, list[bytes]]) -> None:
    one, chosen = made
    one._take(of(40_000))
    for port in range(58_000, 58_100):
        one._take(of(port))
    one._widening.narrow()
    assert chosen == [program(None, {8000}), program((PORTS.low, PORTS.high))]
    one._widening.narrow()
    assert len(chosen) == 2


async def test_ports_that_were_asked_for_are_kept_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Service(plan(tmp_path, widen=False))
    one._take(of(40_000))
    one._take(of(40_000))
    assert one._tally.missing["port"] == 2
    said = capsys.readouterr().err
    assert said.count("not within 57344-60999: their packets are not looked at") == 1  # not for each
    one._inbox.close()


async def test_work_that_fails_ends_it_and_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Service(plan(tmp_path))

    async def fail() -> None:
        raise KeyError("not thought of")

    monkeypatch.setattr(one, "_keep_house", fail)
    with pytest.raises(KeyError, match="not thought of"):
        await asyncio.wait_for(one.run(), 10.0)
    assert not (tmp_path / "wire.sock").exists()


async def test_records_come_in_by_the_socket_and_what_is_none_is_counted(tmp_path: Path) -> None:
    one = Service(plan(tmp_path))
    ending = asyncio.create_task(one.run())
    await asyncio.sleep(0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect(str(tmp_path / "wire.sock"))
        out.send(WORKER + pack(of(58_000)) + pack(of(58_001)))
        out.send(b"nonsense")
        await asyncio.sleep(0.05)
    assert (one._tally.received, one._tally.malformed) == (2, 1)
    assert one.reasons() == ()
    body, _ = one.metrics()
    assert b"spanway_wire_records_received_total 2.0" in body
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(ending, 10.0) == 0
    assert one._tally.missing["no-tap"] == 2  # tried before the end
    assert not (tmp_path / "wire.sock").exists()


async def test_taps_are_set_aside_while_the_proxy_rests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Service(plan(tmp_path))
    said: list[bool] = []

    async def attend(attending: bool) -> None:
        said.append(attending)

    monkeypatch.setattr(one._taps, "attend", attend)
    monkeypatch.setattr(Taps, "__len__", lambda _: 1)
    ending = asyncio.create_task(one.run())
    await asyncio.sleep(0.05)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect(str(tmp_path / "wire.sock"))
        out.send(head(Head(b"worker 2", time.time_ns() + 1_000_000_000)))
        await asyncio.sleep(1.2)
        first = said.count(False)
        assert said == [False, True] * first  # once more where they were put back very early
        assert first
        assert b"spanway_wire_rested_seconds_total 0.0\n" not in one.metrics()[0]
        out.send(head(Head(b"worker 2", time.time_ns() + 1_000_000_000)))
        out.send(WORKER)  # another one, without traffic
        await asyncio.sleep(1.2)
        second = said.count(False)
        assert second > first
        out.send(head(Head(b"worker 2", time.time_ns() + 1_000_000_000)))
        out.send(WORKER + pack(of(58_000)))  # it shows something
        await asyncio.sleep(0.8)
    assert said == [False, True] * second
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(ending, 10.0) == 0
    assert (one._tally.received, one._tally.malformed) == (1, 0)


async def test_records_are_read_between_two_parts_of_a_long_reading_of_rings(
    made: tuple[Service, list[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, _ = made
    seen: list[int] = []

    def drain() -> bool:
        seen.append(one._tally.received)
        return len(seen) < 3

    monkeypatch.setattr(one._taps, "drain", drain)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect(str(tmp_path / "wire.sock"))
        out.send(WORKER + pack(of(58_000)))
        one._hear()
    assert seen == [0, 1, 1]
    monkeypatch.setattr(service, "ROUNDS", 2)
    one._inbox.close()  # as at the end
    del seen[:]
    one._hear()
    assert seen == [1, 1]


async def test_an_attempt_of_the_future_does_not_wait_for_it(made: tuple[Service, list[bytes]]) -> None:
    one, _ = made
    for _ in range(10):
        one._take(of(58_000)._replace(end_ns=(1 << 64) - 1))
    assert (one._joining.pending, one._tally.missing["record"]) == (0, 10)
    one._take(of(58_000))
    assert one._joining.pending == 1


async def test_ports_of_no_backend_do_not_change_the_filter_for_ever(made: tuple[Service, list[bytes]]) -> None:
    one, chosen = made
    for port in range(1, 1000):
        one._take(of(40_000, port))
    assert chosen[-1] == program(None, ())
    assert len(chosen) == len(one._widening.peers) == MOST_PEERS + 1


def test_datagrams_that_are_none_are_one_complaint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = Service(plan(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect(str(tmp_path / "wire.sock"))
        for number in range(9):
            out.send(bytes([number]) * SIZE)
            assert not one._receive()
    assert one._tally.malformed == 9
    assert capsys.readouterr().err.count("a datagram was no record") == 1
    one._inbox.close()


async def test_what_fails_within_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "TICK", 0.01)
    one = Service(plan(tmp_path))
    tries: list[int] = []

    def fail(*_: object) -> None:
        tries.append(1)
        raise RuntimeError("not thought of")

    monkeypatch.setattr(one._joining, "due", lambda now_ns: True)
    monkeypatch.setattr(one._joining, "step", fail)
    ending = asyncio.create_task(one.run())
    async with asyncio.timeout(10.0):
        while len(tries) < 3:
            await asyncio.sleep(0.01)
        one._stopping.set()
        assert await ending == 0
    said = capsys.readouterr().err
    assert said.count("a bug, please report it") == said.count("RuntimeError: not thought of") == 1


async def test_a_path_that_another_has_taken_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "TICK", 0.01)
    one = Service(plan(tmp_path))
    ending = asyncio.create_task(one.run())
    await asyncio.sleep(0.05)
    (tmp_path / "wire.sock").unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(tmp_path / "wire.sock.new"))
        (tmp_path / "wire.sock.new").rename(tmp_path / "wire.sock")
        code = await asyncio.wait_for(ending, 10.0)
    # Between the two steps it may have made the file again, which the other then took.
    assert code == 1
    assert (tmp_path / "wire.sock").exists()


async def test_records_are_taken_in_a_bounded_number_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "RECORDS", 100)
    one = Service(plan(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
        out.connect(str(tmp_path / "wire.sock"))
        for _ in range(5):  # of as many as fit: what another version might send
            out.send(WORKER + pack(of(58_000)) * 60)
        out.send(b"")
        out.send(WORKER + pack(of(58_000)))
    taken = []
    while one._receive():
        taken.append(one._tally.received)
    assert taken == [120, 240]
    assert (one._tally.received, one._tally.malformed) == (301, 1)
    one._inbox.close()
    one._ways.close()


async def test_a_broken_interface_beside_a_working_one_does_not_make_it_unready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Service(plan(tmp_path))

    def use(interfaces: Sequence[Interface], _now: float) -> tuple[int, ...]:
        if interfaces[0].name == "veth-b":
            raise NoInterface("there is no interface veth-b")
        return (0,)

    monkeypatch.setattr(one._taps, "use", use)
    good, bad = (Way((Interface(name, 7),), ()) for name in ("veth-a", "veth-b"))
    assert one._open(bad) == ()
    assert one.reasons() == ("there is no interface veth-b",)
    for _ in range(5):
        assert one._open(good) == (0,)
        assert one.reasons() == ()
        assert one._open(bad) == ()
        assert one.reasons() == ()
    body, _ = one.metrics()
    assert b'spanway_wire_way_up{interfaces="veth-b"} 0.0' in body
    assert b'spanway_wire_way_up{interfaces="veth-a"} 1.0' in body
    assert b"spanway_wire_ready 1.0" in body
    assert capsys.readouterr().err.count("there is no interface veth-b") == 1
    one._inbox.close()
    one._ways.close()


async def test_samples_of_the_switch_come_in_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Service(plan(tmp_path)._replace(ipfix=Endpoint("127.0.0.1", 0)))
    ending = asyncio.create_task(one.run())
    await asyncio.sleep(0.05)
    assert one._collector is not None
    assert one._proofs is not None
    address = one._collector.address
    assert f"ipfix {address}" in capsys.readouterr().err
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.sendto(message((280, record(KNOWN[280]))), (address.host, address.port))
        out.sendto(b"nonsense", (address.host, address.port))
    await asyncio.sleep(0.05)
    assert len(one._proofs) == 1
    body, _ = one.metrics()
    assert b"spanway_wire_ipfix_samples_total 1.0" in body
    assert b"spanway_wire_ipfix_malformed_total 1.0" in body
    with pytest.raises(SettingsError, match=rf"cannot have {address} \(UDP\): .*--ipfix \[HOST:\]PORT"):
        await ipfix.listen(address, print)
    one._stopping.set()
    assert await asyncio.wait_for(ending, 10.0) == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind((address.host, address.port))
