"""Whatever both ends of a connection do, in whatever order: what must arrive does, and nothing is told out of turn."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.twins import COMPILED
from tests.net.ends import End, accepted, adopted, reset, run, take, turns

pytestmark = pytest.mark.timeout(600)

BUFFERS = st.sampled_from([1 << 13, 1 << 16, 1 << 20])
SIZES = st.sampled_from([1, 100, 5_000, 70_000, 262_144, 400_000])
PATIENCE = 10.0  # seconds after which what moves by itself has moved
PATTERN = bytes(range(251)) * 8192

Step = tuple[str, int]

OURS = ("write", "pause", "resume", "write_eof", "close", "abort", "limit", "socket")
THEIRS = ("send", "read", "shut", "leave", "reset")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "send", "read", "send", "write"]), SIZES),
        st.tuples(st.sampled_from([*OURS, *THEIRS]), SIZES),
        st.tuples(st.just("turns"), st.integers(1, 4)),
    ),
    max_size=25,
)
REACTIONS = st.dictionaries(
    st.sampled_from(["made", "data", "eof", "pause", "resume", "lost"]),
    st.lists(st.tuples(st.sampled_from(OURS), SIZES), max_size=3),
    max_size=3,
)


class Pair:
    """One of our transports and its raw peer, and what each has said and heard."""

    def __init__(self, keep: bool, reactions: dict[str, list[Step]]) -> None:
        self.end = End(keep=keep)
        self.peer: socket.socket | None = None
        self.written = bytearray()  # by us, as far as the transport took it
        self.sent = bytearray()  # by the peer, as far as its kernel took it
        self.got = bytearray()  # by the peer
        self.heard_end = False  # by the peer
        self.finished = False
        self.cut = False  # somebody has ended it other than by the end of both streams
        self.shut = False  # the peer has ended its way
        self._budget = 12
        for call, steps in reactions.items():
            if call == "made" and not COMPILED:
                continue  # uvloop reads on after a pause there, and leaves a closed socket to the collector
            self.end.on[call] = self._reaction(steps)

    def _reaction(self, steps: list[Step]) -> Callable[[], None]:
        def act() -> None:
            for step in steps:
                if self._budget:
                    self._budget -= 1
                    self.ours(*step)

        return act

    def ours(self, what: str, size: int) -> None:
        end, transport = self.end, self.end.transport
        if end.lost and not COMPILED and what != "abort":
            return  # uvloop's transports raise then
        if what == "write" and not self.finished and not transport.is_closing():
            at = len(self.written) % 251
            data = PATTERN[at : at + size]
            self.written += data  # before it: writing may call back, and write
            transport.write(data)
        elif what == "pause" and not end.closed:
            end.pause()
        elif what == "resume" and not end.closed and (COMPILED or "eof" not in end.calls):  # uvloop tells the end anew
            end.resume()
        elif what == "write_eof" and not transport.is_closing():
            self.finished = True
            transport.write_eof()
        elif what == "close":
            self.cut = True
            end.close()
        elif what == "abort" and (COMPILED or not end.lost):
            self.cut = True
            end.abort()
        elif what == "limit" and not transport.is_closing():
            transport.set_write_buffer_limits(high=size % 5_000)
        elif what == "socket" and not end.lost:
            assert transport.get_extra_info("socket").fileno() > 2

    def theirs(self, what: str, size: int) -> None:
        peer = self.peer
        if peer is None:
            return
        try:
            if what == "send" and not self.shut:
                at = len(self.sent) % 251
                self.sent += PATTERN[at : at + peer.send(PATTERN[at : at + size])]
            elif what == "read":
                self.read(size)
            elif what == "shut" and not self.shut:
                self.shut = True
                peer.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return
        except OSError:  # ours was the reset
            self.cut = True
        if what in ("leave", "reset"):
            self.cut = True
            self.peer = None
            reset(peer) if what == "reset" else peer.close()

    def read(self, size: int) -> None:
        assert self.peer is not None
        data = take(self.peer, size)
        if data is None:
            self.heard_end = True
        else:
            self.got += data

    def __repr__(self) -> str:
        end = self.end
        return (
            f"Pair({end.transport!r}, told {end.calls}, heard {len(end.data)} of {len(self.sent)}, said "
            f"{len(self.got)} of {len(self.written)}, cut {self.cut}, shut {self.shut}, finished {self.finished}, "
            f"full {end.full}, closed {end.closed}, peer heard the end {self.heard_end}, peer {self.peer})"
        )

    def missed(self) -> int:
        """What the kernel would let our transport do at once, and it does not, as poll(2) has it."""
        end = self.end
        if end.lost:
            return 0
        poll = select.poll()
        wanted = (0 if end.closed or "eof" in end.calls else select.POLLIN) | (select.POLLOUT if end.full else 0)
        poll.register(end.transport.get_extra_info("socket").fileno(), wanted)
        return sum(events for _, events in poll.poll(0))

    def _open(self) -> bool:
        return not (self.cut or self.end.lost)

    async def settle(self) -> None:
        """Each reads what there is and ends its way: with that everything is over."""
        end = self.end
        end.on.clear()
        self._budget = 0
        limit = asyncio.get_running_loop().time() + PATIENCE

        async def turn() -> None:
            # A kernel with little room drops what it has no room for, and sends it again after ever longer whiles.
            late = asyncio.get_running_loop().time() > limit
            await asyncio.sleep(0.05 if late else 0)
            assert not (late and self.missed()), f"nobody takes what has come: {self!r}"

        # What is on its way arrives by itself: nothing that happens now would wake a connection that has missed it.
        self.ours("resume", 0)
        while self._open() and "eof" not in end.calls and len(end.data) < len(self.sent):
            await turn()
        while self._open() and not self.heard_end and len(self.got) < len(self.written):
            self.theirs("read", 1 << 20)
            await turn()
        while not end.lost:
            if not end.full:
                self.ours("write_eof", 0)
            self.theirs("read", 1 << 20)
            if not end.transport.get_write_buffer_size():
                self.theirs("shut", 0)
            if "eof" in end.calls and self.finished and not end.closed and (self.heard_end or self.cut):
                end.close()
            await turn()
        for _ in range(3):
            self.theirs("read", 1 << 20)
            await turn()
        if self.peer is not None:
            self.peer.close()


def check(pair: Pair) -> None:
    end = pair.end
    assert pair.sent.startswith(end.data)
    assert pair.written.startswith(pair.got)
    assert end.calls.count("lost") == end.calls.count("made") == 1
    assert end.calls.count("eof") <= 1
    if not pair.cut:
        assert end.data == pair.sent
        assert pair.got == pair.written
        assert pair.heard_end
        assert end.lost_with is None
        assert end.calls.count("eof") == 1


@pytest.mark.parametrize("connect", [accepted, adopted])
@given(buffers=BUFFERS, steps=STEPS, keep=st.booleans(), reactions=REACTIONS)
@settings(max_examples=150)
def test_any_sequence(
    connect: Callable[..., object], buffers: int, steps: list[Step], keep: bool, reactions: dict[str, list[Step]]
) -> None:
    pair = Pair(keep, reactions)

    async def main() -> None:
        pair.peer = await connect(pair.end, buffers=buffers)  # type: ignore[misc]
        for what, size in steps:
            if what == "turns":
                await turns(size)
            elif what in OURS:
                pair.ours(what, size)
            else:
                pair.theirs(what, size)
        await pair.settle()

    run(main)
    check(pair)
