"""The process `spanway wire`: records in, packets in, spans out, on one event loop.

    proxy --(records, unix datagrams)--> Inbox --> Joining --> Exporter --(OTLP)--> collector
    interface --(packet ring)----------> Taps  --^   ^-- Ways: which interfaces a connection passes
    Open vSwitch --(IPFIX, if asked for)--> Proofs --^

A record is due `joining.WAIT_NS` after its attempt has ended, when its last packet is, as a rule, out of the rings;
later where it is not, or the way of its connection is still being found out. What is due is gathered for a moment.
Nothing here waits for anything but the collector, and for that only in the exporter's thread.
"""

from __future__ import annotations

import asyncio
import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy import __version__
from proxy.errors import SettingsError
from proxy.layers import ipfix
from proxy.layers.complaints import Complaints
from proxy.layers.inbox import Inbox
from proxy.layers.joining import BUG, WAIT_NS, Joining, Resolved
from proxy.layers.pages import Pages
from proxy.layers.proofs import Proofs
from proxy.layers.readiness import Readiness
from proxy.layers.resting import Resting
from proxy.layers.ring import NoInterface, TapError
from proxy.layers.select import program
from proxy.layers.switching import Switching
from proxy.layers.tally import Moment, Tally, expose
from proxy.layers.taps import Taps
from proxy.layers.ways import Fixed, Ways, address
from proxy.layers.widening import Widening
from proxy.saying import say
from proxy.trace import resource
from proxy.trace.export import Exporter
from proxy.trace.handover import SIZE, read
from proxy.trace.semconv import SCHEMA_URL

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.layers.find import OpenVSwitch
    from proxy.layers.ways import Look, Way
    from proxy.settings import Address, Tracing
    from proxy.settings_wire import PortRange
    from proxy.trace.handover import Record
    from proxy.trace.transport import Transport

STEP: Final = 0.05  # seconds between two looks at rings, which hold so long 1.8 million packets/s, and what is due
GATHER_NS: Final = 400_000_000
"""So long what is due waits for more of it: to wake for each few costs more than they do."""
MANY: Final = 2048  # records that wait: while there are more to join, taps would not be back in time
SLICE: Final = 0.02  # seconds of joining before records, packets and pages have their turn
TICK: Final = 0.25  # seconds between two looks at the exporter, old packets and the socket's file
LEAVE_OUT: Final = 1.0  # seconds between two looks for packets that are nobody's
LOOK: Final = 5.0  # seconds between two looks at ways and ports that are needed no more
READ: Final = 15.0  # seconds between two looks at the switch's counters, as Prometheus mostly scrapes
STATUS: Final = 10.0  # seconds between two lines about what goes on
LEAVE: Final = 5.0  # seconds for the last spans
RECORDS: Final = 1024  # read at a time, some 5 ms; then packets and pages have their turn
LAST: Final = 64  # times as many at the end
ROUNDS: Final = 16  # of reading much from rings before anything is joined; four empty rings that are full
AHEAD_NS: Final = 1_000_000_000  # an attempt that ends so much later than now is none: it would wait for ever


class Plan(NamedTuple):
    """What `spanway wire` is to do.

    ``ports`` are the local ports of the proxy's connections that packets are taken of, None for any; with ``widen``
    further ones as the proxy tells of them. ``admin`` None is no listener, nor is ``ipfix``; ``switch`` is the node's
    Open vSwitch, if it has one.
    """

    socket: Path
    ports: PortRange | None
    widen: bool
    look: Look
    tracing: Tracing
    transport: Transport | None
    admin: Address | None
    switch: OpenVSwitch | None = None
    ipfix: Address | None = None


class Service:
    """One running `spanway wire`. Raises `SettingsError` where its socket cannot be had."""

    def __init__(self, plan: Plan) -> None:
        self._plan: Final = plan
        self._tally: Final = Tally()
        self._complaints: Final = Complaints()
        self._exporter: Final = Exporter(
            plan.tracing,
            plan.transport,
            resource=resource.encode(resource.build(plan.tracing, version=__version__)),
            scope=resource.encode_scope(__version__),
            schema_url=SCHEMA_URL,
        )
        self._inbox: Final = Inbox(plan.socket)
        self._ways: Final = Ways(plan.look, self._open, self._complaints.make)
        self._switching: Final = None if plan.switch is None else Switching(plan.switch, self._complaints.make)
        self._proofs: Final = None if plan.ipfix is None else Proofs()
        self._collector: ipfix.Collector | None = None
        self._resting: Final = Resting()
        self._joining: Final = Joining(
            self._tally,
            self._resolve,
            lambda slots: self._taps.heard_ns(slots),
            self._exporter.offer,
            self._complaints.make,
            None if self._switching is None else self._switching.describe,
            None if self._proofs is None else self._proofs.of,
            lambda: self._taps.rest(),
            self._resting.covers,
        )
        ports = None if plan.ports is None else (plan.ports.low, plan.ports.high)
        self._taps: Final = Taps(program(ports), self._joining.hear, self._gone)
        self._widening: Final = Widening(plan.ports, plan.widen, lambda chosen: self._taps.select(chosen))
        self._known: dict[tuple[bytes, bytes], Resolved] = {}  # by local and peer address, until packets are heard
        self._stopping: Final = asyncio.Event()
        self._said: dict[str, int] = {}
        self._readiness: Final = Readiness()
        self._counted_ns = time.time_ns()  # when rings were last asked for their drops
        self._code = 0

    def __repr__(self) -> str:
        return f"Service({self._inbox!r}, {self._taps!r}, {self._joining!r})"

    async def run(self) -> int:
        """Work until SIGTERM or SIGINT; the exit code. Raises `SettingsError` for an admin address that is taken."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        pages = None
        try:
            if self._plan.admin is not None:
                pages = Pages(self._plan.admin, self.reasons, self._readiness.broken, self.metrics)
                say(f"admin http://{await pages.start()}")
            if self._plan.ipfix is not None and self._proofs is not None:
                self._collector = await ipfix.listen(self._plan.ipfix, self._proofs.take)
                say(f"ipfix {self._collector.address}")
            self._exporter.start()
            loop.add_reader(self._inbox.fileno(), self._receive)
            if isinstance(self._plan.look, Fixed):
                for way in self._plan.look.every():
                    self._open(way)
            say(f"wire {self._plan.socket}")
            resting = self._resting.keep(self._taps.attend, lambda: not self._taps or self._joining.pending > MANY)
            work = (self._stopping.wait(), self._tick(), self._keep_house(), resting)
            tasks = [loop.create_task(each) for each in work]
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await self._finish(loop)
            await asyncio.gather(*ended)  # whatever ended by itself has failed: better none of it than a part
        finally:
            if pages is not None:
                await pages.stop()
            if self._collector is not None:
                self._collector.close()
            if self._inbox.fileno() >= 0:
                loop.remove_reader(self._inbox.fileno())  # before it is closed: libuv ends a process that does not
                self._inbox.close()
            self._taps.close_all()
        return self._code

    async def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        """Join what is due soon, and send what there is."""
        loop.remove_reader(self._inbox.fileno())
        for _ in range(LAST):
            if not self._receive():
                break
        self._inbox.close()  # from now on the proxy knows that nobody listens
        deadline = loop.time() + WAIT_NS / 1e9 + LEAVE / 2
        while self._joining.pending and loop.time() < deadline:
            self._complaints.guard(self._join)
            await asyncio.sleep(0 if self._joining.due(time.time_ns()) else STEP)
        self._joining.give_up()
        self._ways.close()
        if self._switching is not None:
            self._switching.close()
        if not await asyncio.to_thread(self._exporter.close, LEAVE):
            say("the collector has not taken the last spans; they are lost")
        self._status()

    def _receive(self) -> bool:
        """Take in records, as many as are due at a time; whether there were so many."""
        tally, left = self._tally, RECORDS
        while left > 0:
            datagram = self._inbox.receive()
            if datagram is None:
                return False
            left -= max(1, len(datagram) // SIZE)
            try:
                said, records = read(datagram)
                self._resting.heard(said, bool(records), time.time_ns())
                for record in records:
                    tally.received += 1
                    if not self._complaints.guard(partial(self._take, record)):
                        tally.missing[BUG] += 1
            except ValueError as problem:
                tally.malformed += 1
                self._complaints.make(f"a datagram was no record: {problem}", "malformed")
        return True

    def _take(self, record: Record) -> None:
        if record.end_ns > time.time_ns() + AHEAD_NS:
            self._tally.missing["record"] += 1
        elif self._widening.takes(record):
            self._joining.add(record)
        else:
            self._tally.missing["port"] += 1
            if why := self._widening.refusal(record):
                self._complaints.make(why, "port")

    def _resolve(self, record: Record) -> Resolved | None:
        """The taps that a connection passes, opened where they are not yet, and its way."""
        ends = record.local, record.peer
        if (known := self._known.get(ends)) is not None:
            return known
        way = self._ways.of(address(record.local), address(record.peer), asyncio.get_running_loop().time())
        slots = () if way is None else self._open(way)
        if way is None or not slots:
            return None
        self._known[ends] = known = Resolved(slots, way, self._taps.since_ns(slots))
        return known

    def _open(self, way: Way) -> tuple[int, ...]:
        """The taps of a way; none where one of them cannot be had."""
        now = asyncio.get_running_loop().time()
        try:
            slots = self._taps.use(way.interfaces, now)
        except TapError as problem:
            self._readiness.note(way, now, str(problem))
            self._complaints.make(str(problem))
            if isinstance(problem, NoInterface):
                for interface in way.interfaces:
                    self._ways.forget(interface.name)
            return ()
        self._readiness.note(way, now)
        return slots

    def _gone(self, slot: int, name: str) -> None:
        """A tap is closed."""
        self._tally.closed(name)
        self._known.clear()
        self._joining.closed(slot)
        self._ways.forget(name)
        self._readiness.gone(name)

    async def _tick(self) -> None:
        """Hear packets, and now and then join all that is due, in slices."""
        while True:
            now_ns = time.time_ns()
            if not self._resting.aside or self._joining.due(now_ns):
                self._complaints.guard(self._hear)
            if self._joining.due(now_ns - GATHER_NS):
                while self._joining.due(now_ns) and self._complaints.guard(self._join):  # noqa: ASYNC110 - it does work
                    await asyncio.sleep(0)
            await asyncio.sleep(STEP)

    def _join(self) -> None:
        """Hear packets, and join what is due, for a slice of time."""
        self._hear()
        self._joining.step(time.time_ns(), SLICE)

    def _hear(self) -> None:
        """Take in every packet that there is, and what was lost: before the records of that time, always."""
        self._known.clear()  # so that taps are known to be needed, and ways are looked for anew
        for _ in range(ROUNDS):
            if not self._taps.drain():
                break
            if self._inbox.fileno() >= 0:
                self._receive()  # its socket holds ten datagrams
        now_ns = time.time_ns()
        for slot, name, packets, drops in self._taps.statistics():
            self._tally.packets[name] += packets
            if drops:
                self._tally.drops[name] += drops
                self._joining.dropped(slot, self._counted_ns, now_ns)
        self._counted_ns = now_ns

    async def _keep_house(self) -> None:
        loop = asyncio.get_running_loop()
        next_status = next_look = next_leave = next_read = loop.time()
        while True:
            await asyncio.sleep(TICK)
            now = loop.time()
            self._complaints.guard(partial(self._exporter.tick, now))
            self._complaints.guard(self._look_after)
            if now >= next_leave:
                next_leave = now + LEAVE_OUT
                self._complaints.guard(lambda: self._widening.leave_out(self._joining.strangers))
            if now >= next_look:
                next_look = now + LOOK
                self._readiness.sweep(now)
                self._complaints.guard(self._widening.narrow)
            if self._switching is not None and now >= next_read:
                next_read = now + READ
                self._switching.read()
            if now >= next_status:
                next_status = now + STATUS
                self._status()

    def _look_after(self) -> None:
        """Taps that nobody needs, old packets, the socket's file."""
        self._joining.forget(time.time_ns())
        self._taps.sweep(asyncio.get_running_loop().time())
        state = self._inbox.state()
        if state == "gone":
            asyncio.get_running_loop().remove_reader(self._inbox.fileno())
            try:
                self._inbox.renew()
                say(f"'{self._plan.socket}' had been removed, and is there again")
            except SettingsError as problem:
                self._complaints.make(f"the proxy cannot hand over: {problem}")
            asyncio.get_running_loop().add_reader(self._inbox.fileno(), self._receive)
        elif state == "taken":
            say(f"another process has taken '{self._plan.socket}' over; this one ends")
            self._code = 1
            self._stopping.set()

    def _status(self) -> None:
        line, self._said = self._tally.line(self._said)
        if line:
            say(line)

    def reasons(self) -> tuple[str, ...]:
        """Why nothing can be joined now, one sentence each."""
        return (*(("the process is ending",) if self._stopping.is_set() else ()), *self._readiness.reasons())

    def metrics(self) -> tuple[bytes, str]:
        """The page /metrics."""
        moment = Moment(
            rings=len(self._taps),
            pending=self._joining.pending,
            ready=not self.reasons(),
            ways=self._readiness.states(),
            frames=self._joining.frames,
            rested=self._resting.seconds,
            switch=() if self._switching is None else self._switching.samples,
            ipfix=None if self._collector is None else self._collector.reader,
        )
        return expose(self._tally, self._exporter.counters(), moment)
