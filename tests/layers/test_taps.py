"""Rings that open when they are needed, and close when they are not."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.layers import taps
from proxy.layers.find import Interface
from proxy.layers.ring import InterfaceDown, NoInterface, NotPermitted, TapError
from proxy.layers.taps import MOST, Taps


class Pipe:
    """A ring whose blocks are what is written into a pipe."""

    def __init__(self, ifindex: int, *, program: bytes) -> None:
        self.ifindex = ifindex
        self.program = program
        self.read, self.write = os.pipe2(os.O_NONBLOCK)
        self.problem: Exception | None = None
        self.held: int | None = None
        self.full = False
        self.closed = False
        self.attended: list[bool] = []
        self.refusal: Exception | None = None

    def fileno(self) -> int:
        return self.read

    def blocks(self) -> Iterator[memoryview]:
        while True:
            try:
                yield memoryview(os.read(self.read, 4))
            except BlockingIOError:
                break
        if self.problem is not None:
            problem, self.problem = self.problem, None
            raise problem

    def filling(self) -> bool:
        return self.full

    def held_ns(self) -> int | None:
        return self.held

    def statistics(self) -> tuple[int, int]:
        return 3, 1

    def select(self, program: bytes) -> None:
        self.program = program

    def attend(self, attending: bool) -> None:
        self.attended.append(attending)
        if self.refusal is not None:
            raise self.refusal

    def close(self) -> None:
        self.closed = True
        os.close(self.read)
        os.close(self.write)


class Bench:
    def __init__(self) -> None:
        self.heard: list[tuple[int, bytes]] = []
        self.gone: list[tuple[int, str]] = []
        self.rings: dict[int, Pipe] = {}
        self.taps = Taps(
            b"program", lambda slot, block: self.heard.append((slot, bytes(block))), self._gone, open_ring=self._open
        )

    def _gone(self, slot: int, name: str) -> None:
        self.gone.append((slot, name))

    def _open(self, ifindex: int, **options: Any) -> Pipe:
        self.rings[ifindex] = ring = Pipe(ifindex, **options)
        return ring


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.taps.close_all()
    assert all(ring.closed for ring in made.rings.values())


def interface(number: int) -> Interface:
    return Interface(f"veth{number}", number)


def test_what_a_ring_has_is_heard_with_its_slot(bench: Bench) -> None:
    assert bench.taps.use([interface(7), interface(9)], 0.0) == (0, 1)
    assert bench.taps.use([interface(9)], 1.0) == (1,)
    assert len(bench.taps) == 2
    os.write(bench.rings[9].write, b"abcdefgh")
    bench.taps.drain()
    assert bench.heard == [(1, b"abcd"), (1, b"efgh")]
    os.write(bench.rings[7].write, b"ijkl")
    bench.taps.drain()
    assert bench.heard[-1] == (0, b"ijkl")
    assert list(bench.taps.statistics()) == [(0, "veth7", 3, 1), (1, "veth9", 3, 1)]
    bench.taps.select(b"other")
    assert {ring.program for ring in bench.rings.values()} == {b"other"}
    bench.taps.use([interface(11)], 1.0)
    assert bench.rings[11].program == b"other"


def test_up_to_when_everything_has_been_heard(bench: Bench) -> None:
    slots = bench.taps.use([interface(7), interface(9)], 0.0)
    assert bench.taps.heard_ns(slots) == 0
    before_ns = time.time_ns()
    bench.taps.drain()
    assert before_ns <= bench.taps.heard_ns(slots) <= time.time_ns()
    bench.rings[9].held = before_ns - 5
    bench.taps.drain()
    assert bench.taps.heard_ns(slots) == before_ns - 5
    assert bench.taps.heard_ns(slots[:1]) >= before_ns
    bench.rings[9].held = 1 << 62  # what came after the look
    bench.taps.drain()
    assert before_ns <= bench.taps.heard_ns(slots) <= time.time_ns()


def test_a_ring_that_holds_much_is_read_in_turns(bench: Bench) -> None:
    slots = bench.taps.use([interface(7), interface(9)], 0.0)
    os.write(bench.rings[7].write, b"".join(b"%04d" % number for number in range(70)))
    os.write(bench.rings[9].write, b"last")
    assert bench.taps.drain()
    assert [block for slot, block in bench.heard if slot == slots[0]] == [b"%04d" % number for number in range(64)]
    assert bench.heard[-1] == (slots[1], b"last")
    assert not bench.taps.drain()
    assert bench.heard[-1] == (slots[0], b"0069")


def test_it_rests_after_a_stint_unless_a_ring_is_filling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    worked_ns, rests = 1, 0

    def sleep(_: float) -> None:
        nonlocal rests
        rests += 1

    monkeypatch.setattr(time, "thread_time_ns", lambda: worked_ns)
    monkeypatch.setattr(time, "sleep", sleep)
    bench.taps.use([interface(7), interface(9)], 0.0)
    assert bench.taps.rest()
    assert rests == 0
    worked_ns += taps.STINT_NS
    assert bench.taps.rest()
    assert bench.taps.rest()
    assert rests == 1
    bench.rings[9].full = True
    worked_ns += taps.STINT_NS
    assert not bench.taps.rest()
    bench.rings[9].full = False
    worked_ns += taps.STINT_NS
    os.write(bench.rings[9].write, b"abcdefgh")
    bench.taps.drain()  # between two blocks
    assert rests == 2


def test_rings_are_bounded_and_the_longest_unused_gives_way(bench: Bench) -> None:
    for number in range(MOST):
        bench.taps.use([interface(number)], float(number))
    with pytest.raises(TapError, match="veth99 is not listened to: 8 interfaces are"):
        bench.taps.use([interface(99)], 1.0)
    bench.taps.use([interface(0)], 100.0)
    assert bench.taps.use([interface(99)], 100.0) == (1,)
    assert bench.gone == [(1, "veth1")]
    assert len(bench.taps) == MOST


def test_what_nobody_needs_is_closed(bench: Bench) -> None:
    bench.taps.use([interface(1)], 0.0)
    bench.taps.use([interface(2)], 10.0)
    bench.taps.sweep(20.0)
    for _ in range(taps.LOOKS - 1):  # it was stopped until now: who needs the taps has still to say so
        bench.taps.sweep(taps.UNUSED_S + 1)
        assert not bench.gone
    bench.taps.sweep(taps.UNUSED_S + 1)
    assert bench.gone == [(0, "veth1")]


def test_an_interface_that_goes_away(bench: Bench) -> None:
    bench.taps.use([interface(1), interface(2)], 0.0)
    bench.rings[1].problem = InterfaceDown("veth1 is down")
    bench.rings[2].problem = NoInterface("veth2 is gone")
    bench.taps.drain()
    assert bench.gone == [(1, "veth2")]
    assert len(bench.taps) == 1
    assert bench.taps.use([interface(2)], 1.0) == (1,)


def test_what_cannot_be_opened_is_said(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Pipe:
        raise NotPermitted("needs CAP_NET_RAW")

    monkeypatch.setattr(bench.taps, "_open_ring", refuse)
    with pytest.raises(NotPermitted):
        bench.taps.use([interface(1)], 0.0)
    assert len(bench.taps) == 0


def test_a_loopback_that_cannot_be_told_apart_leaves_no_ring(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(errno.ENOPROTOOPT, "Protocol not available")

    monkeypatch.setattr(taps, "_once", refuse)
    with pytest.raises(TapError, match=r"lo shows each packet twice.*Linux 4\.20"):
        bench.taps.use([Interface("lo", 1)], 0.0)
    assert len(bench.taps) == 0
    assert bench.rings[1].closed


async def test_all_are_set_aside_and_put_back(bench: Bench) -> None:
    await bench.taps.attend(False)  # none
    bench.taps.use([interface(1), interface(2)], 0.0)
    await bench.taps.attend(False)
    await bench.taps.attend(True)
    assert [ring.attended for ring in bench.rings.values()] == [[False, True]] * 2


async def test_one_that_cannot_be_put_back_is_closed_and_the_others_are(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.taps.use([interface(number) for number in (1, 2, 3, 4)], 0.0)
    bench.rings[1].refusal = NoInterface("there is no interface 1")
    bench.rings[2].refusal = InterfaceDown("interface 2 is down")
    bench.rings[4].refusal = RuntimeError("can't start new thread")
    with caplog.at_level("WARNING"):
        await bench.taps.attend(True)
    assert bench.gone == [(0, "veth1"), (3, "veth4")]
    assert (bench.rings[1].closed, bench.rings[2].closed) == (True, False)
    assert bench.rings[3].attended == [True]
    assert sorted(caplog.messages) == [
        "veth1: there is no interface 1", "veth2: interface 2 is down", "veth4: can't start new thread",
    ]  # fmt: skip
