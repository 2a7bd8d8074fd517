"""The demo's services as child processes: started, watched, and surely ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Final

import aiohttp

from proxy.demo.service import PEERS, SERVICES
from proxy.settings import Address, Override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LAST_WORDS: Final = 15  # lines of standard error kept of each service
START_S: Final = 30.0  # a cold first import of the OpenTelemetry SDK on a busy machine takes seconds
STOP_S: Final = 5.0  # longer than service.GRACE_S, so that a service ends by itself


class ServiceFailed(Exception):
    """A demo service ended or did not start; the message has its last words."""


class Fleet:
    """The demo's services: ``start``, then ``failed`` beside the rest of the story, then always ``stop``.

    The listening sockets are made here and handed down, so no port is guessed, and a request that comes before its
    service is up waits in the backlog. Each child holds a pipe to this process as standard input and ends with it.
    ``listen`` makes the socket of a service; by default one of the loopback address.
    """

    def __init__(self, listen: Callable[[str], socket.socket] | None = None) -> None:
        self._sockets: Final[dict[str, socket.socket]] = {name: (listen or _loopback)(name) for name in SERVICES}
        self.addresses: Final[dict[str, Address]] = {
            name: Address(*listener.getsockname()[:2]) for name, listener in self._sockets.items()
        }
        self._processes: Final[dict[str, asyncio.subprocess.Process]] = {}
        self._last_words: Final[dict[str, deque[str]]] = {name: deque(maxlen=LAST_WORDS) for name in SERVICES}
        self._readers: Final[list[asyncio.Task[None]]] = []

    def __repr__(self) -> str:
        return f"Fleet({', '.join(f'{name}={address}' for name, address in self.addresses.items())})"

    @property
    def pids(self) -> dict[str, int]:
        """The process id of each service that was started."""
        return {name: process.pid for name, process in self._processes.items()}

    def overrides(self) -> tuple[Override, ...]:
        """Where the Services of the demo's manifests are."""
        return tuple(Override("", name, "", "http", (address,)) for name, address in self.addresses.items())

    async def start(self, receiver: str, environment: Mapping[str, str]) -> None:
        """Start every service and wait until each answers.

        ``receiver`` is the OTLP/HTTP URL its spans go to; ``environment`` is added to this process's own. Raises
        `ServiceFailed` when one ends at once or does not answer within `START_S` seconds.
        """
        for name in SERVICES:
            await self._spawn(name, receiver, {**os.environ, **environment})
        self.close()  # from here on a service that has died refuses connections
        died = asyncio.create_task(self.failed())
        answering = asyncio.create_task(self._answering())
        try:
            await asyncio.wait((died, answering), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
            if died.done():
                died.result()
            if not answering.done():
                raise ServiceFailed(f"the services did not answer within {START_S:.0f} s{self._words()}")
            answering.result()
        finally:
            for task in (died, answering):
                task.cancel()
            await asyncio.gather(died, answering, return_exceptions=True)

    async def failed(self) -> None:
        """Return never; raise `ServiceFailed` as soon as a service ends by itself."""
        waits = {asyncio.create_task(process.wait()): name for name, process in self._processes.items()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            name = waits[done.pop()]
            await asyncio.wait(self._readers, timeout=1.0)  # its last words may still be in the pipe
            code = self._processes[name].returncode
            raise ServiceFailed(f"the service {name!r} ended with exit code {code}{self._words(name)}")
        finally:
            for task in waits:
                task.cancel()

    async def stop(self) -> None:
        """End every service: its pipe closes, it finishes and sends its spans; after `STOP_S` seconds it is killed.

        Cancelled meanwhile, it kills at once.
        """
        self.close()
        for process in self._processes.values():
            if process.stdin is not None:
                process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self._ended()
        except TimeoutError:
            self._kill()
            await self._ended()
        except asyncio.CancelledError:
            self._kill()
            await self._ended()  # at once; the event loop cannot be closed before
            raise

    async def _ended(self) -> None:
        await asyncio.gather(*(process.wait() for process in self._processes.values()))
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _kill(self) -> None:
        for process in self._processes.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()

    def close(self) -> None:
        """Close this process's copies of the listening sockets."""
        for listener in self._sockets.values():
            listener.close()

    async def _spawn(self, name: str, receiver: str, environment: Mapping[str, str]) -> None:
        listener = self._sockets[name].fileno()
        peers = [argument for peer in PEERS[name] for argument in ("--peer", f"{peer}=http://{self.addresses[peer]}")]
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(f"-W{option}" for option in sys.warnoptions),
            *("-m", "proxy.demo.service", name, "--fd", str(listener), "--receiver", receiver),
            *peers,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(listener,),
            env=environment,
        )
        self._processes[name] = process
        if process.stderr is not None:
            self._readers.append(asyncio.create_task(self._listen(name, process.stderr)))

    async def _listen(self, name: str, stream: asyncio.StreamReader) -> None:
        """Drain standard error, so that a chatty service never blocks on a full pipe."""
        while chunk := await stream.read(65536):
            self._last_words[name].extend(chunk.decode(errors="replace").splitlines())

    async def _answering(self) -> None:
        async with aiohttp.ClientSession() as session:
            for address in self.addresses.values():
                while True:
                    try:
                        async with session.get(f"http://{address}/healthz") as answer:
                            await answer.read()
                            break
                    except aiohttp.ClientConnectionError:
                        await asyncio.sleep(0.1)

    def _words(self, name: str = "") -> str:
        lines = [
            f"  {service}: {line}"
            for service in SERVICES
            if name in ("", service)
            for line in self._last_words[service]
        ]
        return "".join(f"\n{line}" for line in lines)


def _loopback(_service: str) -> socket.socket:
    return socket.create_server(("127.0.0.1", 0), backlog=128)
