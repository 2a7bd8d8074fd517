"""Faults of a lab, turned on and off, each with the truth of when and where: what a verdict is held against."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

from proxy.demo.lab.commands import LabError, run
from proxy.demo.lab.lab import Boxed, Lab

BURST_BYTES: Final = 16_384  # of tbf: ten full frames, the least that a 40 Mbit/s link needs at 250 Hz (tc-tbf(8))
QUEUE_MS: Final = 400  # of tbf, after which it drops


class Truth(NamedTuple):
    """One episode of a fault, in Unix nanoseconds.

    A request that overlaps ``on_ns .. off_ns`` at the place met the fault; one that does not overlap
    ``begin_ns .. end_ns`` did not, unless it waited in a queue that the fault left behind.
    """

    fault: str
    place: str  # "proxy", "proxy link", "switch", "backend link", "backend"
    begin_ns: int  # before it was turned on
    on_ns: int  # after
    off_ns: int  # before it was turned off
    end_ns: int  # after


class Fault:
    """Something to turn on and off; inside of it as a context manager it is on. ``truth``: its ended episodes."""

    def __init__(self, name: str, place: str, turn_on: Callable[[], object], turn_off: Callable[[], object]) -> None:
        self.name: Final = name
        self.place: Final = place
        self.truth: Final[list[Truth]] = []
        self._turn_on: Final = turn_on
        self._turn_off: Final = turn_off
        self._since: tuple[int, int] | None = None

    def __repr__(self) -> str:
        state = "off" if self._since is None else "on"
        return f"Fault({self.name} at the {self.place}, {state}, {len(self.truth)} episodes)"

    def on(self) -> None:
        """Turn it on; nothing when it is."""
        if self._since is None:
            begin = time.time_ns()
            self._turn_on()
            self._since = begin, time.time_ns()

    def off(self) -> None:
        """Turn it off; nothing when it is."""
        if self._since is not None:
            off = time.time_ns()
            self._turn_off()
            self.truth.append(Truth(self.name, self.place, *self._since, off, time.time_ns()))
            self._since = None

    def __enter__(self) -> Self:
        self.on()
        return self

    def __exit__(self, *_: object) -> None:
        self.off()

    def episodes(
        self,
        count: int,
        *,
        lasting_s: tuple[float, float],
        apart_s: tuple[float, float],
        seed: int = 0,
        stop: Callable[[float], bool] | None = None,
    ) -> None:
        """Turn it on ``count`` times, each for a random time in a range, another range apart; it is off afterwards.

        ``stop`` is `threading.Event.wait` of one that ends it early; without it this thread sleeps.
        """
        chance = random.Random(seed)
        wait = stop or _sleep
        try:
            for _ in range(count):
                if wait(chance.uniform(*apart_s)):
                    return
                self.on()
                ended = wait(chance.uniform(*lasting_s))
                self.off()
                if ended:
                    return
        finally:
            self.off()

    def write(self, path: Path) -> None:
        """Append the truth to a file: one JSON object a line."""
        with path.open("a", encoding="utf-8") as log:
            log.writelines(json.dumps(each._asdict()) + "\n" for each in self.truth)


def delay(lab: Lab, box: str, microseconds: int) -> Fault:
    """Each direction of a link is longer. ``box``: a key of `Lab.boxes`, as the lab was made with."""
    there = _box(lab, box)
    return Fault("delay", place_of(box), lambda: there.set(delay_us=microseconds), there.set)


def loss(lab: Lab, box: str, ratio: float, seed: int = 1) -> Fault:
    """A share of the TCP segments with payload is lost; which, is in the box's own truth (`Boxed.events`)."""
    there = _box(lab, box)
    return Fault("loss", place_of(box), lambda: there.set(loss=ratio, seed=seed), there.set)


def shape(interface: str, namespace: str | None, place: str, mbit: int) -> Fault:
    """What leaves through an interface is held to a rate, by a queue that is before any tap of that interface."""
    rate = (f"{mbit}mbit", "burst", str(BURST_BYTES), "latency", f"{QUEUE_MS}ms")
    device = ("dev", interface, "root")
    return Fault(
        "shaping",
        place,
        lambda: run("tc", "qdisc", "replace", *device, "tbf", "rate", *rate, namespace=namespace),
        lambda: run("tc", "qdisc", "delete", *device, namespace=namespace),
    )


def stall(pids: Sequence[int], place: str) -> Fault:
    """Processes are stopped (SIGSTOP) and continued: a loop that does not come round."""

    def send(number: signal.Signals) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    return Fault("stall", place, lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))


def switch_stall(lab: Lab) -> Fault:
    """The daemon that forwards in user space is stopped; raises `LabError` in a lab without one."""
    if lab.switch is None:
        raise LabError("this lab has no switch in user space to stop")
    return stall((lab.switch.pid,), "switch")


def place_of(box: str) -> str:
    """What the truth calls the place of a box."""
    return {"proxy": "proxy link", "switch": "switch"}.get(box, "backend link")


def _box(lab: Lab, name: str) -> Boxed:
    if name not in lab.boxes:
        raise LabError(f"this lab has no box {name!r}; it has {', '.join(lab.boxes) or 'none'}")
    return lab.boxes[name]


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False
