"""`spanway demo`: the services, the proxy before them, traffic, and each trace drawn as it happens."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

from rich.console import Console, RenderableType
from rich.text import Text

from proxy.admin.columns import DIM, ERROR
from proxy.admin.departed import add_exports
from proxy.admin.live import POLL_S, Live, terminal
from proxy.admin.source import Companion, Running
from proxy.demo.collector import environment, printable
from proxy.demo.fleet import Fleet, ServiceFailed
from proxy.demo.layers import Layers
from proxy.demo.summary import Tally, closing, opening
from proxy.demo.traffic import AT_ONCE, MIX, Traffic
from proxy.errors import SettingsError
from proxy.route.spec import TableSpec
from proxy.settings import Address, Settings
from proxy.trace.ledger import ExportCounters
from proxy.trace.receive import PATH

MANIFESTS: Final = Path(__file__).parent / "manifests"
RATE: Final = 4.0  # requests a second
EVERY_S: Final = 2.0  # a waterfall: time to read it
BURST: Final = 2
SILENCE_S: Final = 20.0  # without any trace, after which something is wrong
LAST_S: Final = 3.0  # for the last traces to come in, beyond the exporter's own delay


class Run(Protocol):
    """`app.run`, which is above this room and so is handed in."""

    def __call__(
        self, settings: Settings, *, table: TableSpec | None = None, companions: Sequence[Companion] = ()
    ) -> int:
        """Serve until told to stop; the exit code."""
        ...


class DemoFailed(Exception):
    """The demo does not show what it should; the message says what and where to look."""


def demo(
    settings: Settings, seconds: float | None, run: Run, console: Console | None = None, *, layers: Layers | None = None
) -> int:
    """Run the demo for ``seconds`` (None: until Ctrl-C) and return the exit code: 0, or 1 if something failed.

    ``settings`` are the user's; what is served is the demo's own. A listener whose port is taken gets another.
    ``layers``: the services are in network namespaces behind a switch, which `spanway wire` listens to.
    """
    console = console or terminal()
    fleet = Fleet(None if layers is None else layers.listener)
    try:
        if layers is not None:
            settings = layers.wire(settings)
        chosen = settings.replace(
            ingress=(MANIFESTS,),
            ingress_class="",
            upstream=fleet.overrides(),
            http=tuple(_free(address, console) for address in settings.http[:1] or (Address("127.0.0.1", 0),)),
            https=(),
            proxy_protocol=False,
            admin=_free(settings.admin or Address("127.0.0.1", 0), console),
        )
        return run(chosen, companions=(Story(fleet, seconds, console, layers),))
    finally:
        fleet.close()


def _free(address: Address, console: Console) -> Address:
    """The address, or another port of it where that one is taken: a demo should start wherever it is tried."""
    try:
        with socket.create_server((address.host, address.port), family=_family(address)):
            return address
    except OSError as error:
        if address.port == 0:
            raise SettingsError(f"cannot listen on {address.host}: {error.strerror}") from error
    console.print(Text(f"port {address.port} is taken; another is used", DIM))
    return Address(address.host, 0)


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def reachable(address: Address) -> Address:
    """Where a listener is reached from this machine: a wildcard address also by loopback."""
    return Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port)  # noqa: S104 - compared


class Story:
    """The companion that tells the demo from start to end."""

    def __init__(self, fleet: Fleet, seconds: float | None, console: Console, layers: Layers | None = None) -> None:
        self._fleet: Final = fleet
        self._layers: Final = layers
        self._seconds: Final = seconds
        self._console: Final = console
        self._tally: Final = Tally()

    def __repr__(self) -> str:
        return f"Story({self._fleet!r}, {self._tally!r})"

    async def __call__(self, running: Running) -> None:
        """Tell it, and stop the proxy when it has ended."""
        admin = running.admin
        if admin is None:
            raise SettingsError("the demo needs the admin listener, which receives the services' spans")
        layers = self._layers
        mix, rate, at_once = (MIX, RATE, AT_ONCE) if layers is None else (layers.mix, layers.rate, layers.at_once)
        traffic = Traffic(reachable(running.http[0]), rate, lambda: running.source.readiness().ready, mix, at_once)
        more = f"http://{reachable(admin)}/traces"
        live = Live(running.source, self._console, every=EVERY_S, burst=BURST, more=more, on_trace=self._tally.add)
        code = 0
        try:
            await self._tell(running, reachable(admin), traffic, live)
        except (ServiceFailed, DemoFailed) as failure:
            self._say(Text(f"demo: {failure}", ERROR))
            code = 1
        except asyncio.CancelledError:  # Ctrl-C: what is known is said, nothing is waited for
            live.finish()
            self._say(closing(self._tally, traffic))
            self._blame()
            raise
        finally:
            await self._fleet.stop()  # before the proxy stops, which ends this task
        running.stop(code)

    async def _tell(self, running: Running, admin: Address, traffic: Traffic, live: Live) -> None:
        await self._fleet.start(f"http://{admin}{PATH}", environment(running.settings.tracing))
        self._say(opening(running, self._fleet, self._seconds))
        tasks = [
            asyncio.create_task(each) for each in (traffic.run(), live.run(), self._fleet.failed(), self._silence())
        ]
        if self._layers is not None:
            self._say(self._layers.opening())
            tasks.append(asyncio.create_task(self._layers.faults(self._fleet.pids)))
        try:
            done, _ = await asyncio.wait(tasks, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        # The last spans: the services send theirs as they end, the proxy its own within its delay.
        await self._fleet.stop()
        export = await self._last(running, traffic, live)
        live.finish()
        self._say(closing(self._tally, traffic, export, printable(running.settings.tracing)))
        self._blame()
        self._judge(traffic, running)

    def _blame(self) -> None:
        if self._layers is not None:
            self._say(self._layers.closing(self._tally.waits))

    async def _last(self, running: Running, traffic: Traffic, live: Live) -> ExportCounters:
        """Wait until every answered request has its trace and a collector that answers has the spans; their account."""
        deadline = time.monotonic() + running.settings.tracing.delay + LAST_S
        while True:
            await live.step(time.monotonic())
            export = add_exports([sample.export for sample in await running.source.samples()])
            whole = self._tally.traces + live.growing >= traffic.answered
            if (whole and not (export.pending and export.reachable)) or time.monotonic() >= deadline:
                return export
            await asyncio.sleep(POLL_S)

    async def _silence(self) -> None:
        """Raise `DemoFailed` when no trace comes; return never."""
        await asyncio.sleep(SILENCE_S)
        if not self._tally.traces:
            raise DemoFailed(f"no trace was seen for {SILENCE_S:.0f} s, though requests were sent")
        await asyncio.Event().wait()

    def _judge(self, traffic: Traffic, running: Running) -> None:
        if not traffic.answered:
            raise DemoFailed(f"the proxy answered none of the requests ({_counts(traffic.failures)})")
        if not self._tally.joined:
            raise DemoFailed(
                f"of {self._tally.traces} traces none has spans of both the proxy and a service; "
                f"is {running.settings.tracing.sampler} sampling set?"
            )

    def _say(self, *parts: RenderableType) -> None:
        self._console.print(*parts, sep="\n")


def _counts(failures: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in failures.items()) or "none was sent"
