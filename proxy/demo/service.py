"""One demo service as a process: `python -m proxy.demo.service NAME --port PORT --peer stock=http://127.0.0.1:4003`.

Started by `demo.fleet` it gets a listening socket instead of a port (so that no port is guessed), and a pipe as
standard input that closes when its parent is gone, however that died.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proxy.demo import cart, shop, stock, telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SERVICES: Final[Mapping[str, Callable[[Mapping[str, str]], web.Application]]] = {
    "shop": shop.application,
    "cart": cart.application,
    "stock": stock.application,
}
PEERS: Final[Mapping[str, tuple[str, ...]]] = {"shop": ("cart", "stock"), "cart": ("stock",), "stock": ()}
GRACE_S: Final = 4.0  # for open requests and waiting spans after the end has come; then the process is gone anyway


async def serve(application: web.Application, listener: socket.socket, parent: int | None) -> None:
    """Answer on ``listener`` until SIGTERM, SIGINT (not as a child: its parent says when) or the end of ``parent``.

    ``parent`` is the file descriptor of a pipe; its end of file is the parent's death.
    """
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    if parent is None:
        loop.add_signal_handler(signal.SIGINT, end.set)
    else:
        # Ctrl-C in a terminal reaches the whole process group; the parent then stops its services in order.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        loop.add_reader(parent, _on_parent, parent, end)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        await end.wait()
    finally:
        watchdog = threading.Timer(GRACE_S, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        if parent is not None:
            loop.remove_reader(parent)
        await runner.cleanup()


def _on_parent(parent: int, end: asyncio.Event) -> None:
    if not os.read(parent, 4096):
        end.set()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one service to its end; 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m proxy.demo.service", description="one service of the demo shop")
    parser.add_argument("name", choices=sorted(SERVICES))
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--port", type=int, help="listen on this port")
    place.add_argument("--fd", type=int, help="listen on this inherited socket, and end when standard input closes")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="of --port [default %(default)s]")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=URL", help="where another service is")
    parser.add_argument("--receiver", default="", metavar="URL", help="OTLP/HTTP URL that gets the spans")
    options = parser.parse_args(arguments)
    peers = dict(peer.split("=", 1) for peer in options.peer if "=" in peer)

    for peer in PEERS[options.name]:
        if peer not in peers:
            parser.error(f"{options.name} calls {peer}: say where that is with --peer {peer}=URL")

    parent = None if options.fd is None else sys.stdin.fileno()
    with _listener(options.host, options.port, options.fd) as listener:
        provider = telemetry.set_up(options.name, options.receiver)
        application = SERVICES[options.name](peers)
        application.router.add_get(telemetry.HEALTH, _healthy)
        try:
            asyncio.run(serve(application, listener, parent))
        finally:
            provider.shutdown()
    return 0


async def _healthy(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


def _listener(host: str, port: int, fd: int | None) -> socket.socket:
    if fd is None:
        return socket.create_server((host, port), backlog=128)
    return socket.socket(fileno=fd)


if __name__ == "__main__":
    sys.exit(main())
