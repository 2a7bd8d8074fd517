"""The run: peers in turn within each round, what fails spoils itself only; and the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks import cli
from benchmarks.lab import Lab
from benchmarks.measure.machine import Unfit
from benchmarks.measure.samples import Reading, Samples
from benchmarks.peers.base import Peer, Variant
from benchmarks.report import store
from benchmarks.scenarios.base import Level, Metric, Point, Scenario
from benchmarks.scenarios.catalogue import SCENARIOS, chosen
from benchmarks.session import Session
from tests.benchmarks.samples import cost


class StandIn:
    """A peer that notes what is done to it."""

    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self._events = events

    def stop(self) -> None:
        self._events.append(f"stop {self.name}")


class FakeLab:
    """Starts stand-ins; HAProxy does not start."""

    seconds = 1.0

    def __init__(self) -> None:
        self.events: list[str] = []

    def start(self, name: str, **changes: Any) -> StandIn:
        if name == "haproxy":
            raise Unfit("haproxy does not serve: a reason")
        self.events.append(f"start {name} {changes}")
        return StandIn(name, self.events)


class Asked(Scenario):
    """Measures nothing, and fails on Spanway's second round."""

    name: ClassVar = "asked"
    title: ClassVar = "What is asked"
    what: ClassVar = "Nothing."
    metrics: ClassVar = (Metric("cpu", "CPU", "us", main=True),)
    variants: ClassVar = ("nginx", "haproxy", "spanway")

    def points(self, level: Level) -> Sequence[Point]:
        return (Point("a", 1.0), Point("b", 2.0)) if level else (Point("a", 1.0),)

    def place(self, _lab: Lab, point: Point) -> Mapping[str, Any]:
        return {"rules": int(point.value)}

    def warm(self, _lab: Lab, peer: Peer, _point: Point) -> None:
        peer._events.append(f"warm {peer.name}")  # type: ignore[attr-defined] # a stand-in

    def measure(self, _lab: Lab, peer: Peer, variant: Variant, _point: Point) -> Reading:
        events = peer._events  # type: ignore[attr-defined] # a stand-in
        events.append(f"measure {variant.name}")
        if events.count("measure spanway") == 2 and variant.name == "spanway":
            raise ValueError("wrk printed no summary")
        return Reading({"cpu": 1.0})


class AskedAfresh(Asked):
    fresh: ClassVar = True


def session(scenario: Scenario, left_out: list[str], *names: str, explicit: bool = False, rounds: int = 3) -> Session:
    return Session([scenario], names, Level.QUICK, rounds, rounds, explicit, lambda *_: None, left_out.append)


def test_peers_stand_and_take_turns() -> None:
    lab, left_out = FakeLab(), list[str]()
    samples = list(session(Asked(), left_out, "nginx", "haproxy", "spanway", "caddy").run(lab))  # type: ignore[arg-type] # a stand-in
    assert lab.events == [
        "start nginx {'rules': 1}",
        "warm nginx",
        "start spanway {'rules': 1}",
        "warm spanway",
        *("measure nginx", "measure spanway"),
        *("measure spanway", "measure nginx"),  # who goes first changes
        *("measure nginx", "measure spanway"),
        "stop nginx",
        "stop spanway",
    ]
    assert [(each.variant, each.round) for each in samples] == [
        ("nginx", 0), ("spanway", 0), ("spanway", 1), ("nginx", 1), ("nginx", 2), ("spanway", 2),
    ]  # fmt: skip
    assert left_out[0] == "asked a: haproxy does not serve: a reason"
    assert samples[2].reading.faults == {"measurements that failed": 1}
    assert Samples(samples).faults("asked", "a", "spanway")
    assert "wrk printed no summary" in left_out[1]


def test_fresh_peers_stand_alone() -> None:
    lab, left_out = FakeLab(), list[str]()
    list(session(AskedAfresh(), left_out, "nginx", "spanway", rounds=1).run(lab))  # type: ignore[arg-type] # a stand-in
    names = ("nginx", "spanway")
    assert lab.events == [
        event for name in names for event in (f"start {name} {{'rules': 1}}", f"measure {name}", f"stop {name}")
    ]


def test_who_is_named_is_measured_where_no_scenario_wants_it() -> None:
    lab, left_out = FakeLab(), list[str]()
    found = list(session(Asked(), left_out, "caddy", explicit=True, rounds=1).run(lab))  # type: ignore[arg-type] # a stand-in
    assert [each.variant for each in found] == ["caddy"]


def test_peers_end_when_a_run_is_stopped() -> None:
    lab, left_out = FakeLab(), list[str]()
    running = session(Asked(), left_out, "nginx", "spanway").run(lab)  # type: ignore[arg-type] # a stand-in
    next(running)
    running.close()  # type: ignore[attr-defined] # a generator
    assert lab.events[-2:] == ["stop nginx", "stop spanway"]


def test_the_levels_nest() -> None:
    quick, normal, full = (chosen(level, []) for level in Level)
    assert {each.name for each in quick} == {"cost", "latency", "rate", "bodies"}
    assert set(quick) < set(normal) <= set(full) == set(SCENARIOS.values())
    assert [each.name for each in chosen(Level.QUICK, ["churn", "cost"])] == ["cost", "churn"]


def test_the_quick_level_takes_about_four_minutes() -> None:
    seconds, rounds = cli.SECONDS[Level.QUICK], cli.ROUNDS[Level.QUICK]
    whole = Session(
        chosen(Level.QUICK, []),
        cli.PEERS[Level.QUICK],
        Level.QUICK,
        rounds,
        rounds,
        False,
        lambda *_: None,
        lambda _: None,
    )
    assert whole.plan(seconds) <= 280


def test_every_scenario_has_one_picture_and_a_plan() -> None:
    for scenario in SCENARIOS.values():
        assert any(metric.main for metric in scenario.metrics)
        for level in Level:
            for point in scenario.points(level):
                assert 0 < scenario.lasts(3.0, point) < (700 if scenario.full_only else 300)
        if scenario.curve:
            assert all(float(point.label.replace(",", "")) == point.value for point in scenario.points(Level.FULL))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--peers", "iis"], "no such peer: iis; there are direct, nginx"),
        (["--only", "speed"], "no such scenario: speed; there are cost"),
        (["--check", "cpu,speed"], "no such bar: speed; there are cpu"),
        (["--quick", "--full"], "not allowed with"),
        (["--seconds", "0.5"], "at least 1 round of 1 second"),
        (["--rounds", "0"], "at least 1 round"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_the_list_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--list"]) == 0
    printed = capsys.readouterr().out
    for words in ("handshakes", "at least 0.8 x", "envoy-traced", "websocket"):
        assert words in printed


def test_a_comparison_ends_with_one_for_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, figures in (("a", [10.0, 10.1, 10.2]), ("b", [13.0, 13.1, 13.2])):
        store.of({}, cost(spanway=figures), [], [], True).write(tmp_path / f"{name}.json")
    before, after = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    assert cli.main(["--compare", before, after]) == 1
    assert "worse" in capsys.readouterr().out
    assert cli.main(["--compare", after, before]) == 0
    assert cli.main(["--compare", before, before]) == 0
    assert cli.main(["--compare", before, str(tmp_path / "none.json")]) == 2
    assert "none.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "kept", "status"),
    [([], False, 0), (["--check"], False, 1), (["--check"], True, 0), (["--check", "p50"], False, 0)],
)
def test_check_decides_how_it_ends(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], kept: bool, status: int
) -> None:
    found = store.Run({}, Samples(), [{"name": "cpu", "kept": kept}], [], True)
    monkeypatch.setattr(cli, "_measure", lambda *_: found)
    assert cli.main([*arguments, "--output", str(tmp_path / "run.json")]) == status
