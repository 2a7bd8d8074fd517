"""Two network namespaces of a test's own with a cable between them; needs root and `ip`."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tests.real.conftest import without

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
_numbers = itertools.count()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


def in_thread(work: Callable[[], T]) -> T:
    """What ``work`` returns or raises, in a thread of its own: namespaces and capabilities are a thread's."""
    made: list[Any] = []

    def run() -> None:
        try:
            made.append((work(), None))
        except BaseException as error:
            made.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = made[0]
    if error is not None:
        raise error
    return result


class Namespace:
    """One network namespace, by its name and its descriptor."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.fd = os.open(Path("/run/netns") / name, os.O_RDONLY)

    def ip(self, *words: str) -> None:
        ip("-n", self.name, *words)

    def run(self, work: Callable[[], T]) -> T:
        """Do ``work`` inside; sockets made there stay there."""

        def enter() -> T:
            assert ctypes.CDLL(None).setns(self.fd, CLONE_NEWNET) == 0
            return work()

        return in_thread(enter)

    def index(self, interface: str) -> int:
        return self.run(lambda: socket.if_nametoindex(interface))

    def ethtool(self, *words: str) -> None:
        command = ["ip", "netns", "exec", self.name, "ethtool", *words]
        subprocess.run(command, check=True, capture_output=True, timeout=10)


@contextlib.contextmanager
def cable() -> Iterator[tuple[Namespace, Namespace]]:
    """Namespaces whose interfaces ``end`` are the two ends of a veth: 192.0.2.1 and .2, 2001:db8::1 and ::2."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("ethtool") is None:
        without("network namespaces need root, iproute2 and ethtool: 'apt-get install iproute2 ethtool'")
    names = [f"taps-{os.getpid()}-{next(_numbers)}" for _ in range(2)]
    made: list[Namespace] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(Namespace(name))
        first, second = made
        first.ip("link", "add", "end", "type", "veth", "peer", "name", "end", "netns", second.name)
        for number, each in enumerate(made, 1):
            each.ip("link", "set", "lo", "up")
            each.ip("address", "add", f"192.0.2.{number}/24", "dev", "end")
            each.ip("address", "add", f"2001:db8::{number}/64", "dev", "end", "nodad")
        for each in made:
            each.ip("link", "set", "end", "up")
        yield first, second
    finally:
        for each in made:
            os.close(each.fd)
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=10, check=False)
