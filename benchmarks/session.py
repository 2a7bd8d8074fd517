"""A run: every chosen scenario at every point, its peers in turn, round by round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.lab import Lab
from benchmarks.measure.machine import Unfit
from benchmarks.measure.samples import Reading, Sample
from benchmarks.peers.base import Peer
from benchmarks.peers.catalogue import DIRECT, VARIANTS
from benchmarks.scenarios.base import Level, Point, Scenario

START: Final = 3.0  # seconds to start a peer and warm it up, about


@dataclass(frozen=True, slots=True)
class Session:
    """What is measured. ``variants`` are those that can run here, in order; ``say`` is told what happens now, and how
    many seconds of the whole plan that takes. ``explicit`` variants were asked for by name: they are measured wherever
    they can be, the others where a scenario wants them. ``rounds`` are of the core scenarios, ``minor`` of the others.
    """

    scenarios: Sequence[Scenario]
    variants: Sequence[str]
    level: Level
    rounds: int
    minor: int
    explicit: bool
    say: Callable[[str, float], None]
    leave_out: Callable[[str], None]

    def plan(self, seconds: float) -> float:
        """About how many seconds all of it takes."""
        return sum(
            len(self._names(scenario, point)) * (START + self._rounds(scenario) * scenario.lasts(seconds, point))
            for scenario in self.scenarios
            for point in scenario.points(self.level)
        )

    def run(self, lab: Lab) -> Iterator[Sample]:
        """Measure; a peer that cannot be started is left out and said."""
        for scenario in self.scenarios:
            for point in scenario.points(self.level):
                yield from (self._fresh if scenario.fresh else self._standing)(lab, scenario, point)

    def _standing(self, lab: Lab, scenario: Scenario, point: Point) -> Iterator[Sample]:
        """All peers run from the first round to the last, and take turns."""
        running: dict[str, Peer] = {}
        try:
            for name in self._names(scenario, point):
                self._say(scenario, point, f"starting {name}", START)
                try:
                    with scenario.within(lab, point):
                        running[name] = lab.start(name, **scenario.place(lab, point))
                        scenario.warm(lab, running[name], point)
                except Unfit as error:
                    self.leave_out(f"{scenario.name} {point.label}: {error}")
                    running.pop(name, None)
            for number, name in self._turns(list(running), self._rounds(scenario)):
                self._say(scenario, point, f"round {number + 1}, {name}", scenario.lasts(lab.seconds, point))
                yield self._sample(lab, scenario, point, running[name], name, number)
        finally:
            for name, peer in running.items():
                if name != DIRECT:
                    peer.stop()

    def _fresh(self, lab: Lab, scenario: Scenario, point: Point) -> Iterator[Sample]:
        """A new peer for every measurement, and no other beside it."""
        names = self._names(scenario, point)
        for number, name in self._turns(names, self._rounds(scenario)):
            self._say(scenario, point, f"round {number + 1}, {name}", START + scenario.lasts(lab.seconds, point))
            try:
                peer = lab.start(name, **scenario.place(lab, point))
            except Unfit as error:
                if number == 0:
                    self.leave_out(f"{scenario.name} {point.label}: {error}")
                continue
            try:
                yield self._sample(lab, scenario, point, peer, name, number)
            finally:
                peer.stop()

    def _sample(self, lab: Lab, scenario: Scenario, point: Point, peer: Peer, name: str, number: int) -> Sample:
        try:
            reading = scenario.measure(lab, peer, VARIANTS[name], point)
        except Exception as error:
            # Whatever it is, it spoils this figure, not an hour of others.
            self.leave_out(f"{scenario.name} {point.label}: {name} failed: {type(error).__name__}: {error}")
            reading = Reading({}, {"measurements that failed": 1})
        return Sample(scenario.name, point.label, name, number, reading)

    def _names(self, scenario: Scenario, point: Point) -> list[str]:
        return [
            name
            for name in self.variants
            if (self.explicit or name in scenario.variants) and scenario.suits(VARIANTS[name], point)
        ]

    def _rounds(self, scenario: Scenario) -> int:
        rounds = self.rounds if scenario.quick else self.minor
        return min(rounds, scenario.rounds or rounds)

    @staticmethod
    def _turns(names: list[str], rounds: int) -> Iterator[tuple[int, str]]:
        """Round by round; who goes first rotates."""
        for number in range(rounds):
            turn = number % max(1, len(names))
            for name in [*names[turn:], *names[:turn]]:
                yield number, name

    def _say(self, scenario: Scenario, point: Point, doing: str, seconds: float) -> None:
        at = f" {point.label}" if point.label else ""
        self.say(f"{scenario.name}{at}: {doing}", seconds)
