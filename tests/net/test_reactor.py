"""One client by turns with its upstream, and nobody else: what comes next is awaited without sleeping, and nothing else
of the loop waits for long. (The pure form has uvloop's own transports, and keeps to the same.)"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from tests.net.ends import End, accepted, run

LONELY = 2000  # messages: it takes some to be believed that nobody else is there
IN_A_ROW = 64  # `reactor.IN_A_ROW`


ECHO = """
import socket, sys
peer = socket.socket(fileno=int(sys.argv[1]))
peer.settimeout(10.0)
while data := peer.recv(1 << 16):
    peer.sendall(data)
"""


def echo(peer: socket.socket) -> subprocess.Popen[bytes]:
    """Give a peer to a process that sends back what comes. (A thread would wait for this one's interpreter.)"""
    with peer:
        return subprocess.Popen([sys.executable, "-c", ECHO, str(peer.fileno())], pass_fds=[peer.fileno()])


class Player(End):
    """Answers each message with the next, ``left`` times; at every tenth it asks the loop for a turn."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left
        self.waited: list[int] = []  # messages that came before the turn did

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.left % 10 == 0:
            asyncio.get_running_loop().call_soon(self._turn, self.left)
        self.left -= 1
        if self.left > 0:
            self.transport.write(b"%d" % (self.left % 10))
        elif self.left == 0:
            self.close()

    def _turn(self, then: int) -> None:
        self.waited.append(then - self.left)


@pytest.mark.parametrize("others", [0, 1])
def test_by_turns_for_long(others: int) -> None:
    async def main() -> None:
        players = [Player(LONELY) for _ in range(1 + others)]
        peers = []
        for player in players:
            peers.append(echo(await accepted(player)))
            player.transport.write(b"x")
        for player in players:
            await player.after("lost")
        assert [await asyncio.to_thread(peer.wait, 10.0) for peer in peers] == [0] * len(peers)
        for player in players:
            assert player.lost_with is None
            assert bytes(player.data) == b"x" + b"".join(b"%d" % (left % 10) for left in range(LONELY - 1, 0, -1))
            assert len(player.waited) == LONELY // 10
            assert max(player.waited) <= 2 * IN_A_ROW

    run(main)


def test_one_that_begins_anew_after_others_is_served_as_before() -> None:
    async def main() -> None:
        for _ in range(3):
            alone = Player(300)
            peers = [echo(await accepted(alone))]
            alone.transport.write(b"x")
            await alone.until(lambda alone=alone: alone.left < 150)  # type: ignore[misc]
            pair = [Player(50), Player(50)]
            peers += [echo(await accepted(each)) for each in pair]
            for each in pair:
                each.transport.write(b"x")
            for each in (alone, *pair):
                await each.after("lost")
                assert each.lost_with is None
                assert each.left == 0
            assert [await asyncio.to_thread(peer.wait, 10.0) for peer in peers] == [0, 0, 0]

    run(main)
