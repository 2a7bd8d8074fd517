"""A lab with everything in it: proxy, `spanway wire`, a backend, and a collector of the wire's spans."""

from __future__ import annotations

import itertools
import json
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import yaml

from proxy.demo.lab.commands import inside
from proxy.demo.lab.lab import Lab
from proxy.settings import Address
from tests.harness import manifests, prometheus
from tests.harness.certificates import Certificate
from tests.harness.collector import Collector, Span
from tests.harness.proxy import ROOT, unsettled
from tests.real.process import Process, free_ports

BACKEND_PORT: Final = 8000
SPANWAY: Final = str(Path(sys.executable).with_name("spanway"))
SETTLE: Final = 30.0  # seconds for the last spans of a load; joining may be behind it


class Answered(NamedTuple):
    """One request of a load: its trace, its status, and when the backend worked on it (Unix nanoseconds)."""

    trace: str
    status: int
    begun_ns: int
    ended_ns: int


class Wired:
    """What runs in a lab: ``backend``, ``proxy`` and ``wire`` as processes, and ``collector``, which the wire's spans
    go to. ``interfaces`` None: a file of places as the lab has them. ``six`` and ``tls``: how the proxy reaches the
    backend. ``rate``: requests a second that the wire is told of, by default as good as all."""

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        *,
        interfaces: str | None = None,
        otlp: str | None = None,
        sampler: str = "parentbased_always_on",
        proxy_flags: Sequence[str] = (),
        command: Sequence[str] = (SPANWAY,),
        flags: Sequence[str] = (),
        places_of: Mapping[str, Any] | None = None,
        six: bool = False,
        tls: bool = False,
        rate: int = 1_000_000,
    ) -> None:
        self.lab: Final = lab
        self.folder: Final = folder
        self.socket: Final = folder / "wire.sock"
        self.admin_port, self.port = free_ports(2)
        self.collector: Final = Collector()
        self.otlp: Final = otlp or self.collector.url
        self._command: Final = command
        self._flags: Final = flags
        self._sampler: Final = sampler
        self._proxy_flags: Final = proxy_flags
        places = folder / "places.yaml"
        places.write_text(yaml.safe_dump({"ways": [places_of or way(lab)]}))
        self.where: Final = ("--places", str(places)) if interfaces is None else ("--interfaces", interfaces)
        self.pod: Final = lab.backends["app"]
        self._six: Final = six
        self._rate: Final = rate
        self._certificate: Final = Certificate("wire.test").files(folder) if tls else ()
        self.backend = self.start_backend()
        self.wire = self.start_wire()
        self.proxy = self.start_proxy()

    @property
    def address(self) -> str:
        """The backend's."""
        return self.pod.address6 if self._six else self.pod.address

    def _within(self, name: str, namespace: str | None, *command: str) -> Process:
        environ = {**unsettled(), "PYTHONPATH": str(ROOT), "SPANWAY_WIRE_RATE": str(self._rate)}
        if self.lab.switch is not None:
            environ["OVS_RUNDIR"] = str(self.lab.switch.run_directory)
        return Process(name, [*inside(namespace), *command], self.folder / f"{name}.log", environ=environ)

    def start_backend(self, receive: int = 0) -> Process:
        """Start the backend, or another one after it; ``receive`` is its receive buffer in bytes, 0 the kernel's."""
        self.backend = self._within(
            "backend", self.pod.namespace,
            sys.executable, "-m", "tests.real.wire_backend", self.address, str(BACKEND_PORT), str(receive),
            *map(str, self._certificate),
        )  # fmt: skip
        self.backend.expect("listening", within=20.0)
        return self.backend

    def start_wire(self) -> Process:
        """Start `spanway wire`, or another one after it."""
        self.wire = self._within(
            "wire", None,
            *self._command, "wire", *self.where, "--socket", str(self.socket),
            "--otlp", self.otlp, "--otlp-protocol", "http/protobuf", "--admin", str(self.admin_port), *self._flags,
        )  # fmt: skip
        self.wire.expect(f"spanway: wire {self.socket}", within=20.0)
        return self.wire

    def start_proxy(self, *, upstream: str = "", run_by: Sequence[str] = ()) -> Process:
        """Start the proxy, or another one after it; it has looked for the wire when this returns.

        ``upstream`` is another address that it knows the backend by, ``run_by`` a command that starts it.
        """
        site = self.folder / "site.yaml"
        site.write_text(manifests.documents(*manifests.site("wire", [1])))
        target = f"{'https://' if self._certificate else ''}{Address(upstream or self.address, BACKEND_PORT)}"
        self.proxy = self._within(
            "proxy", self.lab.proxy.namespace,
            *run_by, SPANWAY, "serve", "--ingress", str(site),
            "--upstream", f"default/wire={target}",
            "--http", f"127.0.0.1:{self.port}", "--admin", "off", "--access-log", "off",
            "--wire", str(self.socket), "--sampler", self._sampler, *self._proxy_flags,
        )  # fmt: skip
        self.proxy.expect("spanway: ready", within=30.0)
        time.sleep(1.5)  # it looks once a second whether somebody listens
        return self.proxy

    def begin_load(self, count: int, connections: int, kind: str, mark: int) -> Process:
        """Begin to make requests; see `tests.real.wire_load`, and `answers`."""
        numbers = (str(number) for number in (self.port, count, connections, mark))
        out = str(self.folder / f"load-{mark}.json")
        command = (sys.executable, "-m", "tests.real.wire_load", *numbers, kind, out)
        return self._within("load", self.lab.proxy.namespace, *command)

    def begin_pace(self, rate: int, seconds: int) -> Process:
        """Begin to make requests at a rate, each when it is due; see `benchmarks.load.pacer`."""
        numbers = (str(number) for number in (self.port, rate, seconds, 0, 16))
        command = (sys.executable, "-m", "benchmarks.load.pacer", *numbers, "wire.test", "/")
        return self._within("pace", self.lab.proxy.namespace, *command)

    def answers(self, load: Process, mark: int) -> list[Answered]:
        """Wait for the end of a load; every request of it must have been answered."""
        with load:
            load.until(lambda: not load.running, "to end", within=120.0)
        out = self.folder / f"load-{mark}.json"
        assert out.exists(), load.tail()
        answered = [Answered(*each) for each in json.loads(out.read_text())]
        assert {each.status for each in answered} == {200}
        return answered

    def load(self, count: int, connections: int, kind: str, mark: int) -> list[Answered]:
        """Make requests, all of which must be answered; see `tests.real.wire_load`."""
        return self.answers(self.begin_load(count, connections, kind, mark), mark)

    def counts(self) -> Mapping[str, float]:
        """The wire's counters by name, or ``name/label``."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=10) as page:
            text = page.read().decode()
        counts = {}
        for sample in prometheus.parse(text):
            label = next(iter(sample.labels.values()), "")
            counts[f"{sample.name.removeprefix('spanway_wire_').removesuffix('_total')}{label and '/'}{label}"] = (
                sample.value
            )
        return counts

    def settled(self, received: int) -> Mapping[str, float]:
        """The counters once the wire has received so many records and waits for none."""
        found: Mapping[str, float] = {}

        def done() -> bool:
            nonlocal found
            found = self.counts()
            return found["records_received"] >= received and not found["records_pending"]

        self.wire.until(done, f"to have joined {received} records", SETTLE)
        return found

    def spans(self, mark: int, joined: int) -> tuple[dict[str, Span], dict[str, list[Span]]]:
        """The wire spans of a load by trace id, and the children by the id of theirs, once there are ``joined``."""
        head = f"{mark:016x}"

        def of_load() -> list[Span]:
            return self.collector.find(lambda span: span.trace_id.startswith(head))

        self.wire.until(
            lambda: sum(span.name == "wire" for span in of_load()) >= joined, f"to export {joined} spans", SETTLE
        )
        wires = {span.trace_id: span for span in of_load() if span.name == "wire"}
        children: dict[str, list[Span]] = {}
        for span in of_load():
            if span.name != "wire":
                children.setdefault(span.parent_id, []).append(span)
        return wires, children

    def stop(self) -> None:
        """End everything."""
        for process in (self.proxy, self.wire, self.backend):
            process.stop()
        self.collector.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def way(lab: Lab) -> dict[str, Any]:
    """The way to the backend as a file of places has it: what is in the wire's namespace, and what lies between."""
    plan = lab.plan
    taps = [name for name, namespace in plan.on_the_way("app") if namespace is None]
    boxes = {
        frozenset(lab.proxy.boxed or ()): "link proxy",
        frozenset((plan.trunk or ())[1:3]): "ovs trunk",
        frozenset(lab.backends["app"].boxed or ()): "link app",
    }
    ports = {lab.proxy.port, lab.backends["app"].port, *(plan.trunk or ())}
    between = []
    for pair in itertools.pairwise(taps):
        bridge = plan.bridges[-1 if lab.backends["app"].port in pair else 0] if set(pair) <= ports else ""
        between.append(boxes.get(frozenset(pair)) or (f"{plan.kind} {bridge}" if bridge else " to ".join(pair)))
    return {"taps": taps, "between": between}
