"""A lab: the proxy's end and the backends', joined by a real switch, with boxes where faults can be had."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

import proxy
from proxy.demo.lab import links
from proxy.demo.lab.box import Event, Setting, events
from proxy.demo.lab.commands import LabError, entered, missing, run
from proxy.demo.lab.plan import Kind, Plan, Pod, Spot, plan
from proxy.demo.lab.state import DIRECTORY, State
from proxy.demo.lab.switch import OpenVSwitch

ANSWER_S: Final = 20.0  # a box's first answer: an interpreter's start on a busy machine


class Boxed:
    """The handle of a running `box`."""

    def __init__(self, child: subprocess.Popen[bytes], truth: Path) -> None:
        if child.stdin is None or child.stdout is None:
            raise ValueError("a box is started with pipes")
        self._child: Final = child
        self._control: Final = child.stdin
        self._answers: Final = child.stdout
        self._truth: Final = truth
        self.setting = Setting()

    def __repr__(self) -> str:
        return f"Boxed(pid {self._child.pid}, {self.setting})"

    @property
    def pid(self) -> int:
        """The process that passes the frames on."""
        return self._child.pid

    def set(self, *, delay_us: int = 0, loss: float = 0.0, data_only: bool = True, seed: int = 0) -> int:
        """Set what happens to frames, see `Setting`; the Unix time in nanoseconds from which it holds."""
        if not 0 <= delay_us <= 10_000_000 or not 0.0 <= loss <= 1.0:
            raise ValueError(f"delay_us {delay_us}: 0 to 10,000,000; loss {loss}: 0 to 1")
        self.setting = Setting(delay_us, loss, data_only, seed)
        return self._tell(self.setting._asdict())

    def _tell(self, wanted: object) -> int:
        try:
            self._control.write(json.dumps(wanted).encode() + b"\n")
            self._control.flush()
        except OSError as error:
            raise LabError(f"the box {self._child.pid} has ended: {error.strerror}") from error
        return self.answer()

    def answer(self) -> int:
        """Wait for its next answer: a Unix time in nanoseconds."""
        if not select.select([self._answers], [], [], ANSWER_S)[0]:
            raise LabError(f"the box {self._child.pid} does not answer")
        line = self._answers.readline()
        if not line:
            raise LabError(f"the box {self._child.pid} has ended with {self._child.wait(1)}")
        return int(json.loads(line)["at"])

    def events(self) -> list[Event]:
        """Every frame that it has touched so far, or passed where all are logged; it is asked to write them out."""
        self._tell(self.setting._asdict())
        return events(self._truth.read_bytes())

    def forget(self) -> None:
        """Begin a new truth."""
        self._tell(None)


class Lab:
    """A context manager: everything is made on entry and removed on exit, whatever happens.

    Needs root, iproute2, and openvswitch-switch for the kind "ovs". Enter it in a thread that lives as long as the
    lab, since its processes are killed with that thread. What a run that was killed has left is removed when the next
    lab of that prefix is made.

    Args:
        prefix: names everything; two labs at once need two.
        kind: "ovs" (Open vSwitch, userspace datapath), "bridge" (Linux), or "veth" (nothing between).
        backends: their names; each is a network namespace with an address of its own.
        boxes: where delay and loss can be had; each costs every packet some 50 us.
        log_all: boxes also log the frames that they merely pass on, see `box`.
        proxy_here: the proxy's end stays in the namespace of the caller, who is then the proxy. Otherwise it is a
            namespace of its own, and the node (the caller's) has an address on the switch.
        patience_s: how long to wait for a lab that is in the way: of the same prefix, or with Open vSwitch too.

    Raises LabError on entry, with the next step in its message.
    """

    def __init__(
        self,
        prefix: str,
        kind: Kind = "ovs",
        backends: Sequence[str] = ("app",),
        *,
        boxes: Sequence[Spot] = (),
        log_all: bool = False,
        proxy_here: bool = False,
        patience_s: float = 0.0,
        directory: Path = DIRECTORY,
    ) -> None:
        self.plan: Final[Plan] = plan(prefix, kind, tuple(backends), boxes=frozenset(boxes), proxy_here=proxy_here)
        self.state: Final = State(prefix, directory)
        self._patience_s: Final = patience_s
        self._logged: Final = "all" if log_all else "touched"
        self.proxy: Final = self.plan.proxy
        self.backends: Final = {pod.name: pod for pod in self.plan.backends}
        self.boxes: Final[dict[str, Boxed]] = {}  # "proxy", "switch", or a backend's name
        self.switch: OpenVSwitch | None = None

    def __repr__(self) -> str:
        return f"Lab({self.plan.prefix}, {self.plan.kind}, {', '.join(self.backends)})"

    def __enter__(self) -> Self:
        absent = missing(switch=self.plan.kind == "ovs")
        if absent:
            raise LabError(absent)
        self.state.acquire(self.plan, self._patience_s)
        try:
            self._make()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything; idempotent."""
        self.boxes.clear()
        self.switch = None
        self.state.release()

    def _make(self) -> None:
        links.make(self.plan)
        if self.plan.kind == "bridge":
            links.linux_bridge(self.plan)
        elif self.plan.kind == "ovs":
            self._open_vswitch()
        for name, ends in self._boxed():
            truth = self.state.directory / f"box-{name}.truth"
            child = self.state.start(
                f"box-{name}",
                [sys.executable, "-m", "proxy.demo.lab.box", *ends, str(truth), self._logged],
                environ={"PYTHONPATH": str(Path(proxy.__file__).parents[1])},
                pipes=True,
            )
            self.boxes[name] = Boxed(child, truth)
        for box in self.boxes.values():
            box.answer()

    def _open_vswitch(self) -> None:
        self.switch = OpenVSwitch(self.state)
        self.switch.start()
        pods = {pod.port: pod for pod in (self.plan.proxy, *self.plan.backends)}
        for bridge in self.plan.bridges:
            self.switch.bridge(bridge)
        for bridge, port in links.ports(self.plan):
            self.switch.port(bridge, port, pods.get(port))
        links.node_address(self.plan)
        self.switch.deepen()

    def _boxed(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """The left and right end of each box."""
        if self.proxy.boxed is not None:
            yield "proxy", self.proxy.boxed
        if self.plan.trunk is not None:
            yield "switch", self.plan.trunk[1:3]
        for pod in self.plan.backends:
            if pod.boxed is not None:
                yield pod.name, pod.boxed

    def run(self, *argv: str, pod: Pod | None = None) -> str:
        """Standard output of a program in a pod's namespace (None: the proxy's); raises `LabError` if it fails."""
        return run(*argv, namespace=(pod or self.proxy).namespace)

    def start(
        self, name: str, argv: Sequence[str], *, pod: Pod | None = None, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a program in a pod's namespace (None: the proxy's); it ends with the lab. Its log: `log`."""
        return self.state.start(name, argv, namespace=(pod or self.proxy).namespace, environ=environ)

    def log(self, name: str) -> Path:
        """Where the output of a started program is."""
        return self.state.directory / f"{name}.log"

    @contextlib.contextmanager
    def within(self, pod: Pod | None = None) -> Iterator[None]:
        """This thread is in a pod's network namespace (None: the proxy's) meanwhile; sockets stay where they began."""
        with entered((pod or self.proxy).namespace):
            yield

    def listener(self, backend: str, port: int = 0, backlog: int = 128) -> socket.socket:
        """A socket that listens in a backend's namespace, to be handed to a process of any namespace."""
        pod = self.backends[backend]
        with entered(pod.namespace):
            return socket.create_server((pod.address, port), backlog=backlog)

    def ifindex(self, interface: str, namespace: str | None = None) -> int:
        """An interface's number in its namespace."""
        with entered(namespace):
            return socket.if_nametoindex(interface)
