"""`spanway demo --layers`: the services in namespaces behind a real Open vSwitch, `spanway wire` beside, one fault."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from rich.console import Group, RenderableType
from rich.text import Text

import proxy
from proxy.admin.columns import DIM
from proxy.admin.units import duration
from proxy.demo import wire
from proxy.demo.lab import faults
from proxy.demo.lab.commands import LabError
from proxy.demo.lab.faults import Fault
from proxy.demo.lab.lab import Lab
from proxy.demo.lab.plan import Spot
from proxy.demo.service import SERVICES
from proxy.demo.summary import Wait
from proxy.demo.traffic import Step
from proxy.errors import SettingsError
from proxy.settings import Address, Settings

PREFIX: Final = "demo"
PORT: Final = 8080  # of each service, in a namespace of its own
SLOW_MS: Final = 40  # by which a link is longer, each way
LOST: Final = 0.04  # of segments with payload
SMALL_BUFFER: Final = 16_384  # bytes a service's kernel takes without the service reading
UPLOAD: Final = 700_000  # bytes of a request's body, below the proxy's limit of 1 MiB
WORST: Final = 5  # percent of the waits that the closing words are about
FAULTS: Final[Mapping[str, str]] = {
    "none": "nothing is wrong",
    "slow-app": "the service stock stops for 0.3 s now and then",
    "slow-link": f"the proxy's link to the switch is {SLOW_MS} ms longer each way, now and then",
    "switch-stall": "Open vSwitch stops for 0.2 s now and then",
    "loss": f"the proxy's link to the switch loses {LOST:.0%} of the segments",
    "proxy-stall": "the proxy's worker stops for 0.2 s now and then",
    "backend-not-reading": "the service cart stops while 700 kB are sent to it, and its kernel takes only 16 kB",
}
# Requests that the services answer at once: what takes long is then the fault's doing, not a checkout's.
QUICK: Final = (
    Step("GET", "/api/cart/grace"),
    Step("GET", "/api/stock/lantern"),
    Step("POST", "/api/cart/ada/items", {"item": "teapot", "quantity": 1}),
    Step("GET", "/products/teapot"),
    Step("GET", "/api/stock/kettle"),
)
UPLOADS: Final = (Step("POST", "/api/cart/ada/items", {"item": "teapot", "quantity": 1, "note": "x" * UPLOAD}),)
# The proxy can only stop in the middle of a wait where somebody waits most of the time: these take two services.
PAGES: Final = tuple(Step("GET", f"/products/{item}") for item in ("teapot", "lantern", "kettle", "tent"))
# What stops is the service that is sent to: it gets nothing else, as a short request would only be answered late.
BESIDE: Final = tuple(step for step in QUICK if "/cart/" not in step.path)
# The services call each other by the same link and switch: slow is the network alone where none is called.
ALONE: Final = (
    Step("GET", "/api/cart/grace"),
    Step("GET", "/api/stock/lantern"),
    Step("GET", "/api/cart/ada"),
    Step("GET", "/api/stock/kettle"),
)
MIXES: Final[Mapping[str, tuple[Step, ...]]] = {
    **dict.fromkeys(("slow-link", "switch-stall", "loss"), ALONE),
    "proxy-stall": PAGES,
    "backend-not-reading": (*UPLOADS, *BESIDE),
}
RATE: Final = 40.0  # requests a second: some at every moment, so that a short fault meets one
AT_ONCE: Final = 3  # requests under way: more after a stop would keep the services busy, who would then be to blame
CALM_S: Final = 3.0  # before the first fault, in which what is usual on each route becomes known
_BOXES: Final[Mapping[str, tuple[Spot, ...]]] = {"slow-link": ("proxy",), "loss": ("proxy",)}
_LASTING: Final = {"slow-link": (0.4, 0.8), "loss": (1.5, 2.5), "slow-app": (0.25, 0.35)}
_SHORT: Final = (0.15, 0.25)
_APART: Final = (0.6, 1.2)  # seconds without the fault, more than with it: what is usual stays what it was


class Layers:
    """A lab of the demo's services and the process that listens to it; a context manager that removes all of it."""

    def __init__(self, fault: str) -> None:
        self.fault: Final = fault
        self.mix: Final = MIXES.get(fault, QUICK)
        self._lab: Final = Lab(PREFIX, "ovs", tuple(SERVICES), boxes=_BOXES.get(fault, ()), proxy_here=True)
        self.rate: Final = RATE
        self.at_once: Final = AT_ONCE
        self._parent: Final = os.getpid()

    def __repr__(self) -> str:
        return f"Layers({self.fault}, {self._lab!r})"

    def __enter__(self) -> Self:
        try:
            self._lab.__enter__()
        except LabError as error:
            raise SettingsError(f"--layers: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() == self._parent:
            self._lab.close()

    def listener(self, service: str) -> socket.socket:
        """A service's listening socket, in its namespace; the service itself sends its spans from this one."""
        listener = self._lab.listener(service, PORT)
        if self.fault == "backend-not-reading":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        return listener

    def wire(self, settings: Settings) -> Settings:
        """Start `spanway wire`; the settings with which the proxy finds it, and it the proxy's receiver."""
        admin = settings.admin or Address("127.0.0.1", 0)
        if _taken(admin):
            with socket.create_server((admin.host, 0), family=_family(admin)) as probe:
                admin = Address(admin.host, probe.getsockname()[1])
        path = self._lab.state.directory / "wire.sock"
        host = f"[{admin.host}]" if ":" in admin.host else admin.host
        run_directory = str(self._lab.switch.run_directory) if self._lab.switch else ""
        places = None
        if self._lab.boxes:  # they are not to be found by asking the kernel: what is joined to what is written down
            places = self._lab.state.directory / "places.yaml"
            places.write_text(json.dumps({"ways": list(self._ways())}), encoding="utf-8")
        environ = {"OVS_RUNDIR": run_directory, "PYTHONPATH": str(Path(proxy.__file__).parents[1])}
        environ |= wire.told(path, places, f"http://{host}:{admin.port}", settings.tracing)
        self._lab.state.start("wire", [sys.executable, "-m", "proxy.demo.wire"], environ=environ)
        return settings.replace(admin=admin, wire=replace(settings.wire, socket=str(path)))

    def _ways(self) -> Iterator[dict[str, object]]:
        """As `spanway wire --places` reads them; JSON is YAML."""
        near, bridge = self._lab.proxy, self._lab.plan.bridges[0]
        for pod in self._lab.plan.backends:
            taps = [near.interface, near.port, pod.port]
            yield {"peers": [f"{pod.address}/32"], "taps": taps, "between": ["link", f"ovs {bridge}"]}

    async def faults(self, services: Mapping[str, int]) -> None:
        """Turn the fault on and off until cancelled. ``services``: their process ids."""
        fault = self._fault(services)
        if fault is None:
            await asyncio.Event().wait()
            return
        await asyncio.sleep(CALM_S)
        stop = threading.Event()
        lasting = _LASTING.get(self.fault, _SHORT)
        episodes = asyncio.create_task(
            asyncio.to_thread(fault.episodes, 1_000_000, lasting_s=lasting, apart_s=_APART, stop=stop.wait)
        )
        try:
            await asyncio.shield(episodes)
        finally:
            stop.set()
            with contextlib.suppress(LabError):
                await episodes

    def _fault(self, services: Mapping[str, int]) -> Fault | None:
        make: Mapping[str, Callable[[], Fault]] = {
            "slow-app": lambda: faults.stall((services["stock"],), "backend"),
            "slow-link": lambda: faults.delay(self._lab, "proxy", SLOW_MS * 1000),
            "switch-stall": lambda: faults.switch_stall(self._lab),
            "loss": lambda: faults.loss(self._lab, "proxy", LOST),
            "proxy-stall": lambda: faults.stall(_workers(self._parent, self._lab.state.pids), "proxy"),
            "backend-not-reading": lambda: faults.stall((services["cart"],), "backend"),
        }
        return make[self.fault]() if self.fault in make else None

    def opening(self) -> RenderableType:
        """What lies between the proxy and its services, and what is wrong with it."""
        bridge = self._lab.plan.bridges[0]
        addresses = ", ".join(f"{pod.name} {pod.address}" for pod in self._lab.plan.backends)
        return Group(
            Text(f"Between the proxy and them: a link, Open vSwitch's bridge {bridge}, and a namespace each.", "bold"),
            Text(f"  behind it  {addresses}"),
            Text(f"  fault      {self.fault}: {FAULTS[self.fault]}"),
            "",
        )

    def closing(self, waits: Iterable[Wait]) -> RenderableType:
        """Who was to blame for the longest waits, as `spanway wire` has judged them."""
        known = sorted(waits, key=lambda wait: wait.excess_ns, reverse=True)
        if not known:
            words = self._lab.state.words("wire")
            return Text(f"  the wire   divided no wait{': ' + words if words else ''}", DIM)
        longest = known[: max(1, len(known) * WORST // 100)]
        blamed: Counter[str] = Counter()
        for wait in longest:
            blamed[wait.verdict] += wait.excess_ns
        told = ", ".join(f"{verdict} for {duration(ns)}" for verdict, ns in blamed.most_common())
        whole = duration(blamed.total())
        return Group(
            Text(f"  the wire   divided {len(known)} waits; {len(longest)} of them took {whole} beyond the usual"),
            Text(f"  {'spent in' if self.fault == 'none' else 'to blame'}   {told}", "bold"),
            Text(f"  the fault  was {self.fault}: {FAULTS[self.fault]}", DIM),
        )


def _workers(parent: int, others: Iterable[int]) -> tuple[int, ...]:
    """The proxy's workers: children of ``parent`` that are neither this process nor ``others``."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split()
    return tuple(pid for pid in map(int, children) if pid != os.getpid() and pid not in set(others))


def _taken(address: Address) -> bool:
    if address.port == 0:
        return True
    try:
        socket.create_server((address.host, address.port), family=_family(address)).close()
    except OSError:
        return True
    return False


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET
