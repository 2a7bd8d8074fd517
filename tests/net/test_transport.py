"""Connections on `proxy.net.transport`, in either form: what is told, in which order, and what is left."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from proxy.net.accepting import accept
from proxy.net.transport import adopt
from tests.harness.twins import COMPILED
from tests.net.ends import RESET, End, accepted, adopted, dial, drain, filler, listen, reset, run, take, turns

MIB = 1 << 20

Connect = Callable[..., Coroutine[Any, Any, socket.socket]]

earlier = pytest.mark.skipif(not COMPILED, reason="the loop's transports hear of it with their next write, not before")


@pytest.fixture(params=[accepted, adopted])
def connect(request: pytest.FixtureRequest) -> Connect:
    made: Connect = request.param
    return made


# Who is connected


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize(("host", "to"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "::ffff:127.0.0.1")])
def test_both_ends_know_their_addresses(host: str, to: str, bound: bool) -> None:
    async def main() -> None:
        server, client = End(), End()
        at = {"127.0.0.1": "0.0.0.0", "::1": "::"}.get(host, host) if not bound else host
        with listen(at) as listening:
            accepting = await accept(listening, lambda: server)
            sock = dial((to, *listening.getsockname()[1:]))
            here, there = sock.getsockname(), sock.getpeername()
            await adopt(sock, client)
            await server.after("made")
            for end, own, other in ((client, here, there), (server, there, here)):
                assert end.transport.get_extra_info("sockname") == own
                assert end.transport.get_extra_info("peername") == other
                view = end.transport.get_extra_info("socket")
                assert view.getsockname() == own
                assert view.fileno() > 2
                assert view.family == (socket.AF_INET6 if ":" in host else socket.AF_INET)
                assert view.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert end.transport.get_extra_info("nothing", 7) == 7
            client.transport.write(b"hello")
            await server.has(5)
            server.transport.write(b"there")
            await client.has(5)
            assert (bytes(server.data), bytes(client.data)) == (b"hello", b"there")
            accepting.close()
            client.close()
            await client.after("lost")
            await server.after("lost")
            assert server.calls == ["made", "eof", "lost"]

    run(main)


def test_a_blocking_socket_is_adopted_as_well() -> None:
    async def main() -> None:
        end = End()
        with listen() as listening:
            listening.listen()
            sock = socket.create_connection(listening.getsockname())
            peer, _ = listening.accept()
        await adopt(sock, end)
        assert sock.fileno() != peer.fileno()
        await turns()
        peer.sendall(b"x")
        await end.has(1)
        end.close()
        await end.after("lost")
        peer.close()

    run(main)


def test_a_connection_that_was_reset_before_it_is_adopted_is_lost_and_not_refused() -> None:
    async def main() -> None:
        end = End()
        with listen() as listening:
            listening.listen()
            sock = dial(listening.getsockname())
            reset(listening.accept()[0])
        await adopt(sock, end)
        assert end.transport.get_extra_info("peername", "gone") == "gone"
        await end.after("lost")
        assert isinstance(end.lost_with, ConnectionResetError)

    run(main)


# Reading


def test_many_reads_come_whole_and_in_order(connect: Connect) -> None:
    sent = os.urandom(MIB) * 6

    async def main() -> None:
        end = End()
        peer = await connect(end)
        await asyncio.get_running_loop().sock_sendall(peer, sent)
        peer.close()
        await end.after("lost")
        assert end.data == sent
        assert end.calls == ["made", "eof", "lost"]
        assert end.lost_with is None

    run(main)


@pytest.mark.parametrize("size", [1, 262143, 262144, 262145, 600_000])
@pytest.mark.parametrize("ended", [False, True])
def test_what_came_before_reading_is_told_by_resuming(connect: Connect, size: int, ended: bool) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end, buffers=4 * MIB)
        end.pause()
        peer.sendall(bytes(size))
        if ended:
            peer.shutdown(socket.SHUT_WR)
        await turns()
        assert end.calls == ["made"]
        assert not end.transport.is_reading()
        end.resume()
        end.resume()
        assert not end.data  # in a later step
        await end.has(size)
        if not ended:
            await turns()
            assert end.calls == ["made"]
            peer.close()
        await end.after("lost")
        assert len(end.data) == size
        peer.close()

    run(main)


def test_pausing_within_a_callback_holds_the_rest_and_the_end(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        end.on["data"] = end.pause
        peer = await connect(end, buffers=4 * MIB)
        end.pause()
        peer.sendall(bytes(900_000))
        peer.close()
        await turns()
        while not end.lost:
            reads = len(end.reads)
            end.resume()
            await end.until(lambda: len(end.reads) > reads or end.lost)  # noqa: B023 - awaited here
            await turns()
            assert len(end.reads) <= reads + 1
        assert len(end.data) == 900_000
        assert end.calls == ["made", "eof", "lost"]

    run(main)


def test_pausing_and_resuming_within_a_callback_changes_nothing(connect: Connect) -> None:
    async def main() -> None:
        end = End()

        def blink() -> None:
            for _ in range(2):
                end.pause()
                end.resume()

        end.on["data"] = blink
        peer = await connect(end, buffers=4 * MIB)
        end.pause()
        peer.sendall(bytes(900_000))
        peer.close()
        end.resume()
        await end.after("lost")
        assert len(end.data) == 900_000

    run(main)


def test_another_protocol_hears_the_rest(connect: Connect) -> None:
    async def main() -> None:
        first, second = End(), End()

        def hand_over() -> None:
            second.transport = first.transport
            second.calls.append("made")
            first.transport.set_protocol(second)
            assert first.transport.get_protocol() is second

        first.on["data"] = hand_over
        peer = await connect(first)
        peer.sendall(b"x")
        peer.close()
        await second.after("lost")
        assert first.data == b"x"
        assert first.calls == ["made"]
        assert second.calls == ["made", "eof", "lost"]

    run(main)


def test_bytes_behind_urgent_ones_do_not_wait_for_more(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        for turn in range(1, 3):
            peer.send(b"abc")
            peer.send(b"X", socket.MSG_OOB)
            peer.send(b"def")
            await end.has(6 * turn)
        assert end.data == b"abcdefabcdef"
        end.close()
        await end.after("lost")
        peer.close()

    run(main)


@pytest.mark.skipif(not COMPILED, reason="libuv reads one connection 32 times in a row")
def test_a_busy_connection_leaves_turns_to_the_others() -> None:
    async def main() -> None:
        busy, other = End(), End()
        peers = [await adopted(busy, buffers=4 * MIB), await adopted(other)]
        busy.pause()
        other.pause()
        peers[0].sendall(bytes(2 * MIB))
        peers[1].sendall(b"x")
        await turns()
        seen: list[int] = []
        other.on["data"] = lambda: seen.append(len(busy.data))
        busy.on["data"] = other.resume
        busy.resume()
        await busy.has(2 * MIB)
        assert seen[0] <= MIB
        for end, peer in zip((busy, other), peers, strict=True):
            peer.close()
            await end.after("lost")

    run(main)


# Ends and resets


def test_bytes_before_a_reset_are_told(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        peer.sendall(b"last words")
        reset(peer)
        await end.after("lost")
        assert end.data == b"last words"
        assert isinstance(end.lost_with, ConnectionResetError)
        assert end.calls == ["made", "lost"]

    run(main)


def test_bytes_before_a_reset_are_told_while_others_wait_to_go(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        filler(end)
        await turns()
        peer.sendall(b"413 Content Too Large")
        reset(peer)
        await end.after("lost")
        assert end.data == b"413 Content Too Large"
        assert isinstance(end.lost_with, OSError)

    run(main)


def test_what_came_before_a_write_failed_can_still_be_read(connect: Connect) -> None:
    found = []

    async def main() -> None:
        end = End()
        end.on["lost"] = lambda: found.append(os.read(end.transport.get_extra_info("socket").fileno(), 100))
        peer = await connect(end)
        end.pause()
        peer.sendall(b"413 Content Too Large")
        reset(peer)
        end.transport.write(b"more")
        end.transport.write(b"more")
        await end.after("lost")
        assert isinstance(end.lost_with, OSError)
        assert end.transport.is_closing()
        end.transport.close()

    run(main)
    assert found == [b"413 Content Too Large"]


def test_one_way_may_end_before_the_other(connect: Connect) -> None:
    async def main() -> None:
        end = End(keep=True)
        peer = await connect(end)
        peer.sendall(b"question")
        peer.shutdown(socket.SHUT_WR)
        await end.after("eof")
        await turns()
        assert not end.lost
        assert end.transport.can_write_eof()
        end.transport.write(b"answer")
        end.transport.write_eof()
        end.transport.write_eof()
        assert await drain(peer) == b"answer"
        with pytest.raises(RuntimeError):
            end.transport.write(b"more")
        end.close()
        await end.after("lost")
        assert end.lost_with is None
        peer.close()

    run(main)


def test_our_end_goes_behind_what_waits_and_the_peer_may_go_on(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        written = filler(end)
        end.transport.write_eof()
        assert await drain(peer) == written
        peer.sendall(b"still here")
        await end.has(10)
        peer.close()
        await end.after("lost")
        assert end.calls[-2:] == ["eof", "lost"]
        assert end.lost_with is None

    run(main)


@earlier
@pytest.mark.parametrize("paused", [False, True])
def test_a_reset_is_told_after_the_end_of_the_stream(connect: Connect, paused: bool) -> None:
    async def main() -> None:
        end = End(keep=True)
        peer = await connect(end)
        peer.shutdown(socket.SHUT_WR)
        await end.after("eof")
        if paused:
            end.transport.pause_reading()
        reset(peer)
        await end.after("lost")
        assert isinstance(end.lost_with, OSError)

    run(main)


@earlier
@pytest.mark.parametrize("paused", [False, True])
def test_a_reset_is_told_that_came_with_the_end_of_the_stream(connect: Connect, paused: bool) -> None:
    async def main() -> None:
        end = End(keep=True)
        peer = await connect(end)
        if paused:
            end.pause()
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        reset(peer)
        await turns()
        if paused:
            end.resume()
        await end.after("lost")
        assert end.calls == ["made", "eof", "lost"]
        assert isinstance(end.lost_with, OSError)

    run(main)


# Writing


def test_what_the_kernel_does_not_take_waits_and_goes_in_order(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        end.transport.set_write_buffer_limits(high=0)
        written = filler(end)
        assert end.calls == ["made", "pause"]
        end.transport.write(bytearray(b"second"))
        end.transport.writelines([b"th", b"ird"])
        assert end.transport.get_write_buffer_size() > 0
        got = bytearray()
        while len(got) < len(written) + 11:
            got += take(peer) or b""
            await asyncio.sleep(0)
        assert got == written + b"secondthird"
        await end.after("resume")
        assert end.transport.get_write_buffer_size() == 0
        end.on["resume"] = end.close
        written = filler(end)
        assert await drain(peer) == written
        await end.after("lost")
        assert end.calls == ["made", "pause", "resume", "pause", "resume", "lost"]
        peer.close()

    run(main)


def test_bytes_are_taken_as_they_are_at_the_call(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        data = bytearray(b"one")
        end.transport.write(data)
        end.transport.write(memoryview(b"-two"))
        end.transport.write(b"")
        data[:] = b"xxx"
        for wrong in (5, "text", None, [1]):
            with pytest.raises(TypeError):
                end.transport.write(wrong or 5)  # type: ignore[arg-type]
        end.close()
        assert await drain(peer) == b"one-two"
        await end.after("lost")
        peer.close()

    run(main)


@pytest.mark.parametrize("what", ["write", "close", "abort", "write_eof", "pause"])
def test_room_to_write_may_be_used_at_once(connect: Connect, what: str) -> None:
    async def main() -> None:
        end = End()
        more: list[bytes] = []

        def act() -> None:
            if what == "write":
                if len(more) < 3:
                    more.append(filler(end))
                else:
                    end.close()
            elif what == "pause":
                end.pause()
                end.resume()
                end.close()
            else:
                {"close": end.close, "abort": end.abort, "write_eof": end.transport.write_eof}[what]()

        end.on["resume"] = act
        peer = await connect(end)
        end.transport.set_write_buffer_limits(high=0)
        written = filler(end)
        got = await drain(peer)
        assert got == written + b"".join(more)
        peer.close()
        await end.after("lost")
        assert end.lost_with is None

    run(main)


def test_limits_are_asyncios(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        transport = end.transport
        for limits, both in (
            ({"high": 8}, (2, 8)),
            ({"low": 5}, (5, 20)),
            ({"high": 0}, (0, 0)),
            ({"high": 1 << 30}, (1 << 28, 1 << 30)),
        ):
            transport.set_write_buffer_limits(**limits)
            assert transport.get_write_buffer_limits() == both
        with pytest.raises(ValueError):
            transport.set_write_buffer_limits(high=1, low=2)
        filler(end)
        assert end.calls == ["made"]
        transport.set_write_buffer_limits(high=0)
        assert end.calls == ["made", "pause"]  # what waits is above the new mark
        end.abort()
        await end.after("lost")
        peer.close()

    run(main)


# Closing


def test_what_waits_goes_before_the_connection(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        written = filler(end)
        end.close()
        end.close()
        assert end.transport.is_closing()
        await turns()
        assert not end.lost
        assert await drain(peer) == written
        await end.after("lost")
        assert end.lost_with is None
        peer.close()

    run(main)


def test_a_reset_ends_what_waits_for_the_peer(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        filler(end)
        end.close()
        reset(peer)
        await end.after("lost")
        assert isinstance(end.lost_with, OSError)
        assert end.transport.get_write_buffer_size() == 0

    run(main)


def test_aborting_ends_what_waits_for_a_peer_that_never_reads(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        filler(end)
        end.close()
        await turns()
        end.abort()
        assert not end.lost
        await end.after("lost")
        assert end.lost_with is None
        end.transport.close()
        peer.close()

    run(main)


def test_nothing_is_told_after_closing_but_the_loss(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        peer.sendall(b"x")
        peer.shutdown(socket.SHUT_WR)
        end.close()
        end.transport.resume_reading()
        end.transport.write(b"dropped")
        await end.after("lost")
        await turns()
        assert end.calls == ["made", "lost"]
        peer.close()

    run(main)


@pytest.mark.parametrize("within", ["made", "data", "eof"])
@pytest.mark.parametrize("how", ["close", "abort"])
def test_closing_within_a_callback(connect: Connect, within: str, how: str) -> None:
    if within == "made" and connect is adopted and not COMPILED:
        pytest.skip("uvloop leaves the socket of such a connection to the collector")

    async def main() -> None:
        end = End(keep=True)
        end.on[within] = lambda: getattr(end, how)()
        peer = await connect(end)
        if within != "made":
            peer.sendall(b"x")
            peer.shutdown(socket.SHUT_WR)
        await end.after("lost")
        assert end.calls == {"eof": ["made", "eof", "lost"]}.get(within, ["made", "lost"])
        assert end.lost_with is None
        peer.close()

    run(main)


def test_a_reset_may_be_asked_for(connect: Connect) -> None:
    """As `proxy.connection.Connection.abort` does."""

    async def main() -> None:
        end = End()
        peer = await connect(end)
        end.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        end.abort()
        await end.after("lost")
        await turns()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)
        peer.close()

    run(main)


def test_the_view_of_the_socket_ends_with_the_connection(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        peer = await connect(end)
        end.transport.get_extra_info("socket").getsockname()
        peer.close()
        await end.after("lost")
        await turns()
        if COMPILED:  # uvloop's stays, and may name another connection's descriptor
            assert end.transport.get_extra_info("socket") is None
            assert end.transport.get_protocol() is None
        assert end.transport.is_closing()

    run(main)


# Callbacks that fail


class OddError(BaseException):
    """As a cancellation: no `Exception`."""


@pytest.mark.parametrize("error", [ValueError, OddError, asyncio.CancelledError])
@pytest.mark.parametrize("within", ["data", "eof"])
def test_a_callback_that_fails_costs_its_connection_alone(
    connect: Connect, within: str, error: type[BaseException]
) -> None:
    async def main() -> None:
        ends = [End(keep=True) for _ in range(5)]
        peers = [await connect(end) for end in ends]

        def fail() -> None:
            raise error("on purpose")

        ends[2].on[within] = fail
        for peer in peers:
            peer.sendall(b"x")
            peer.shutdown(socket.SHUT_WR)
        await ends[2].after("lost")
        assert isinstance(ends[2].lost_with, error)
        await turns()
        for end, peer in zip(ends, peers, strict=True):
            assert end.data == b"x"
            assert end is ends[2] or end.calls == ["made", "eof"]
            end.close()
            await end.after("lost")
            peer.close()

    reports = run(main, reports=1)
    assert isinstance(reports[0]["exception"], error)


def test_a_loss_that_fails_leaves_nothing_open(connect: Connect) -> None:
    async def main() -> None:
        end = End()
        end.on["lost"] = lambda: 1 / 0
        peer = await connect(end)
        end.transport.get_extra_info("socket")
        end.close()
        await end.after("lost")
        await turns()
        assert take(peer) is None
        peer.close()

    reports = run(main, reports=1)
    assert isinstance(reports[0]["exception"], ZeroDivisionError)
