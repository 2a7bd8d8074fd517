"""`proxy.net.accepting`, and its descriptors: too few of them, used anew, left to the collector."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop

from proxy.net.accepting import accept
from proxy.net.transport import adopt
from tests.harness.twins import COMPILED
from tests.net.ends import End, accepted, adopted, descriptors, dial, listen, reset, run, take, turns

compiled = pytest.mark.skipif(not COMPILED, reason="libuv has its own ways when accepting fails")


class Ends(list[End]):
    """A factory that keeps what it made."""

    def __call__(self) -> End:
        end = End()
        self.append(end)
        return end


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)  # the lowest number that is free, which the next descriptor would have
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def ended(*ends: End) -> None:
    for end in ends:
        end.close()
        await end.after("lost")
    await turns()


def test_what_waits_in_the_queue_is_accepted_and_nothing_after_closing() -> None:
    async def main() -> None:
        ends = Ends()
        with listen() as listening:
            accepting = await accept(listening, ends)
            peers = [dial(listening.getsockname()) for _ in range(200)]
            while len(ends) < 200:
                await turns()
            accepting.close()
            accepting.close()
            peers.append(dial(listening.getsockname()))  # the caller's socket stays, for another holder
            await turns()
            assert len(ends) == 200
        await ended(*ends)
        for peer in peers:
            peer.close()

    run(main)


@pytest.mark.skipif(not COMPILED, reason="uvloop's loop does not end after that")
def test_closing_within_a_callback_leaves_the_rest_of_the_queue() -> None:
    async def main() -> None:
        ends = Ends()
        with listen() as listening:

            def once() -> End:
                accepting.close()
                return ends()

            listening.listen()
            peers = [dial(listening.getsockname()) for _ in range(3)]
            accepting = await accept(listening, once)
            await turns()
            assert len(ends) == 1
            again = await accept(listening, ends)
            await turns()
            assert len(ends) == 3
            again.close()
        await ended(*ends)
        for peer in peers:
            peer.close()

    run(main)


@compiled
@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
def test_a_factory_that_fails_costs_one_connection(error: type[BaseException]) -> None:
    async def main() -> None:
        ends = Ends()
        calls = []

        def factory() -> End:
            calls.append(1)
            if len(calls) == 2:
                raise error("on purpose")
            return ends()

        with listen() as listening:
            accepting = await accept(listening, factory)
            peers = [dial(listening.getsockname()) for _ in range(3)]
            await turns()
            assert len(ends) == 2
            assert [take(peer) for peer in peers] == [b"", None, b""]
            accepting.close()
        await ended(*ends)
        for peer in peers:
            peer.close()

    (report,) = run(main, reports=1)
    assert isinstance(report["exception"], error)


@compiled
def test_a_connection_whose_beginning_fails_is_closed() -> None:
    async def main() -> None:
        end = End()
        end.on["made"] = lambda: 1 / 0
        peer = await accepted(end)
        await end.after("lost")
        await turns()
        assert take(peer) is None
        peer.close()

    (report,) = run(main, reports=1)
    assert isinstance(report["exception"], ZeroDivisionError)


@compiled
def test_short_of_descriptors_it_rests_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        ends = Ends()
        with listen() as listening:
            accepting = await accept(listening, ends)
            peer = dial(listening.getsockname())
            with no_more_descriptors():
                await turns(50)
            assert not ends
            assert len(caplog.records) == 1
            assert "Too many open files" in caplog.text
            while not ends:
                await asyncio.sleep(0.05)
            accepting.close()
        await ended(*ends)
        peer.close()

    run(main)


@compiled
@pytest.mark.parametrize("how", ["close", "shutdown"])
def test_it_may_end_while_it_rests(how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        ends = Ends()
        with listen() as listening:
            accepting = await accept(listening, ends)
            peer = dial(listening.getsockname())
            with no_more_descriptors():
                await turns()
                if how == "close":
                    accepting.close()
                else:
                    listening.shutdown(socket.SHUT_RDWR)
                await turns(50)
            assert len(caplog.records) == 1
            await asyncio.sleep(0.7)  # its rest is over
            accepting.close()
        assert not ends
        peer.close()

    run(main)


@pytest.mark.skipif(not COMPILED, reason="uvloop's loop does not end after that")
def test_another_holder_may_shut_the_socket_down_and_others_are_accepted_still() -> None:
    async def main() -> None:
        ends = Ends()
        with listen() as listening, listen() as other:
            await accept(listening, ends)
            listening.shutdown(socket.SHUT_RDWR)
            await turns()
            accepting = await accept(other, ends)
            peer = dial(other.getsockname())
            await turns()
            assert len(ends) == 1
            accepting.close()
        await ended(*ends)
        peer.close()

    run(main)


# Descriptors


def test_a_connection_that_is_closed_by_another_in_the_same_round_hears_no_more() -> None:
    async def main() -> None:
        first, second, third = End(), End(), End()
        peers = [await accepted(first), await adopted(second)]
        first.on["data"] = second.abort
        peers[0].sendall(b"x")
        peers[1].sendall(b"y")
        peers[1].shutdown(socket.SHUT_WR)
        await second.after("lost")
        assert second.calls == ["made", "lost"]
        assert not second.data
        peers.append(await adopted(third))
        await turns()
        peers[2].sendall(b"z")
        await third.has(1)
        assert third.calls == ["made"]
        await ended(first, third)
        for peer in peers:
            peer.close()

    run(main)


@compiled
def test_a_number_that_is_used_anew_in_the_same_round_takes_no_harm() -> None:
    """In one round a connection closes an acceptor whose event is to come, and what is accepted has its number."""

    async def main() -> None:
        first, ends, none = End(), Ends(), Ends()
        with listen() as kept, listen() as closing:
            accepting = await accept(kept, ends)
            peers = [await adopted(first)]
            before = descriptors()
            doomed = await accept(closing, none)
            ((number, _),) = descriptors() - before
            first.on["data"] = doomed.close
            peers[0].sendall(b"x")
            peers.append(dial(kept.getsockname()))
            peers.append(dial(closing.getsockname()))
            await turns()
            assert not none
            (end,) = ends
            assert end.transport.get_extra_info("socket").fileno() == number
            assert end.calls == ["made"]
            peers[1].sendall(b"y")
            await end.has(1)
            accepting.close()
        await ended(first, end)
        for peer in peers:
            peer.close()

    run(main)


def test_all_may_go_and_others_come_in_one_round() -> None:
    async def main() -> None:
        for _ in range(3):
            end, other = End(), End()
            peer = await adopted(end)
            with listen() as listening:
                listening.listen()
                sock = dial(listening.getsockname())
                far, _ = listening.accept()
                end.close()
                while not end.lost:
                    await asyncio.sleep(0)
                await adopt(sock, other)  # the loop watches nothing else by now
            far.sendall(b"x")
            await other.has(1)
            await ended(other)
            far.close()
            peer.close()

    run(main)


@compiled
def test_a_duplicate_of_its_descriptor_tells_nothing_after_the_end() -> None:
    async def main() -> None:
        end = End()
        peer = await accepted(end)
        duplicate = os.dup(end.transport.get_extra_info("socket").fileno())
        end.abort()
        await end.after("lost")
        await turns()
        peer.sendall(b"x")
        await turns()
        assert os.read(duplicate, 10) == b"x"
        os.close(duplicate)
        peer.close()

    run(main)


@compiled
@pytest.mark.parametrize("asked", [False, True])
def test_a_loop_that_ends_leaves_nothing_open(asked: bool) -> None:
    def lives() -> list[socket.socket]:
        peers: list[socket.socket] = []

        async def main() -> None:
            for connect in (accepted, adopted):
                end = End()
                peers.append(await connect(end))
                if asked:
                    end.transport.get_extra_info("socket")
            await accept(listening, End)

        with listen() as listening, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())
        return peers

    run(turns)
    before = descriptors()
    peers = lives()
    gc.collect()
    kept = descriptors() - before
    assert {number for number, _ in kept} == {peer.fileno() for peer in peers}
    for peer in peers:
        assert take(peer) is None
        peer.close()


def test_many_connections_come_and_go() -> None:
    async def main() -> None:
        ends = Ends()
        with listen() as listening:
            accepting = await accept(listening, ends)
            leave: list[Callable[[socket.socket], object]] = [reset, socket.socket.close]
            for turn in range(300):
                peer = dial(listening.getsockname())
                peer.sendall(b"x")
                leave[turn % 2](peer)
                if turn % 7 == 0:
                    await turns(2)
            while not all(end.lost for end in ends) or len(ends) < 300:
                await asyncio.sleep(0)
            accepting.close()
        assert all(end.data == b"x" for end in ends)

    run(main)
