"""Faults in time: what the truth says of each episode, whoever ends it."""

from __future__ import annotations

import json
import threading

import pytest

from proxy.demo.lab.commands import LabError, missing, run
from proxy.demo.lab.faults import Fault, place_of


class Switch:
    def __init__(self) -> None:
        self.turned: list[bool] = []

    def fault(self) -> Fault:
        return Fault("delay", "switch", lambda: self.turned.append(True), lambda: self.turned.append(False))


def test_each_episode_has_its_truth(tmp_path):
    switch = Switch()
    fault = switch.fault()
    fault.episodes(3, lasting_s=(0.001, 0.002), apart_s=(0.0, 0.001))
    assert switch.turned == [True, False] * 3
    assert len(fault.truth) == 3
    times = [time for each in fault.truth for time in each[2:]]
    assert times == sorted(times)
    fault.write(tmp_path / "truth")
    fault.write(tmp_path / "truth")
    lines = (tmp_path / "truth").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [each._asdict() for each in fault.truth] * 2


def test_turning_it_on_or_off_twice_is_once():
    switch = Switch()
    with switch.fault() as fault:
        fault.on()
        assert "on, 0 episodes" in repr(fault)
    fault.off()
    assert switch.turned == [True, False]
    assert len(fault.truth) == 1


def test_an_event_ends_it_early_and_leaves_it_off():
    switch, event = Switch(), threading.Event()
    fault = switch.fault()
    thread = threading.Thread(
        target=fault.episodes, args=(2,), kwargs={"lasting_s": (60, 60), "apart_s": (0, 0), "stop": event.wait}
    )
    thread.start()
    event.set()
    thread.join(10)
    assert not thread.is_alive()
    assert switch.turned in ([], [True, False])


def test_a_failure_meanwhile_leaves_it_off():
    switch = Switch()
    fault = switch.fault()
    with pytest.raises(ZeroDivisionError), fault:
        raise ZeroDivisionError
    assert switch.turned == [True, False]


def test_places_of_boxes():
    assert [place_of(box) for box in ("proxy", "switch", "app")] == ["proxy link", "switch", "backend link"]


def test_what_is_missing_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name, path: None if name.startswith("ovs") else f"/usr/bin/{name}")
    line = missing(switch=True)
    assert line.endswith("are missing: sudo apt-get install --no-install-recommends openvswitch-switch")
    assert missing(switch=False) == ""
    monkeypatch.setattr("shutil.which", lambda name, path: None if name == "ip" else f"/usr/bin/{name}")
    assert missing(switch=True) == "ip is missing: sudo apt-get install --no-install-recommends iproute2"
    with pytest.raises(LabError, match="ip is missing"):
        run("ip", "link")
