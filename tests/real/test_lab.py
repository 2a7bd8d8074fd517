"""Labs as root: frames pass, faults are where they were asked for, and nothing stays, however a lab ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from proxy.demo.lab.commands import LabError
from proxy.demo.lab.lab import Lab
from proxy.demo.lab.plan import Kind
from tests.harness import poll
from tests.harness.namespaces import laboratory
from tests.harness.proxy import ROOT

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

KINDS: Final[tuple[Kind, ...]] = ("ovs", "bridge", "veth")
PREFIX: Final = "labt"
HALF: Final = 20_000  # bytes each way: several frames


@contextlib.contextmanager
def echo(lab: Lab, backend: str = "app") -> Iterator[tuple[str, int]]:
    """Something in the backend's namespace that sends back what it gets."""
    listener = lab.listener(backend)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                while data := connection.recv(65536):
                    connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        listener.close()


def trip(lab: Lab, address: tuple[str, int], patience: float = 10.0) -> float:
    """Seconds for some bytes to the backend and back, from the proxy's namespace."""
    with lab.within():
        connection = socket.create_connection(address, timeout=patience)
    with connection:
        begin = time.monotonic()
        connection.sendall(bytes(HALF))
        left = HALF
        while left:
            left -= len(connection.recv(65536))
        return time.monotonic() - begin


def remains(prefix: str = PREFIX) -> list[str]:
    """What is left of a lab: interfaces, namespaces, processes, files."""
    found = [path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith(f"{prefix}-")]
    found += [f"namespace {path.name}" for path in Path("/run/netns").glob(f"{prefix}-*")]
    found += [str(path) for path in Path("/run/spanway").glob(f"lab-{prefix}*")]
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"/lab-{prefix}/".encode() in path.read_bytes():
                found.append(f"process {path.parent.name}")
    return found


@pytest.mark.parametrize("here", [False, True], ids=["namespace", "here"])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_pass_and_nothing_stays(kind: Kind, here: bool) -> None:
    with laboratory(PREFIX, kind, ("app", "more"), proxy_here=here) as lab:
        for backend in lab.backends:
            with echo(lab, backend) as address:
                assert address[0] == lab.backends[backend].address
                trip(lab, address)
        for backend in lab.backends:
            for interface, namespace in lab.plan.on_the_way(backend):
                assert lab.ifindex(interface, namespace) > 0
        assert remains() != []
    assert remains() == []


@pytest.mark.parametrize("kind", ["ovs", "bridge"])
def test_each_box_delays_and_says_what(kind: Kind) -> None:
    with laboratory(PREFIX, kind, boxes=("proxy", "switch", "backend")) as lab, echo(lab) as address:
        assert set(lab.boxes) == {"proxy", "switch", "app"}
        trip(lab, address)
        for name, box in lab.boxes.items():
            since = box.set(delay_us=30_000)
            assert trip(lab, address) >= 0.060
            until = box.set()
            events = box.events()
            assert events, name
            assert {event.act for event in events} == {"delay"}
            # What had come in and was not looked at yet is held as well, and what comes in behind such a frame waits.
            assert all(since < event.gone_ns and event.at_ns <= until + 30_000_000 for event in events)
            assert all(event.at_ns <= event.gone_ns <= event.left_ns for event in events)
            assert all(event.gone_ns - event.at_ns >= 30_000_000 for event in events if event.at_ns < until)
            there = [event for event in events if event.destination_port == address[1]]
            assert sum(event.length for event in there) == HALF, "sent once, and all of it was touched"
            assert {event.toward for event in there} == {"left" if name == "app" else "right"}


def test_boxes_that_log_all_know_the_same_frames() -> None:
    with laboratory(PREFIX, "bridge", boxes=("proxy", "backend"), log_all=True) as lab, echo(lab) as address:
        trip(lab, address)
        boxes = lab.boxes["proxy"], lab.boxes["app"]

        def heads() -> list[list[bytes]]:
            return [sorted(event.head for event in box.events()) for box in boxes]

        poll.until(lambda: (found := heads())[0] == found[1], "both to have passed the same frames")
        near = boxes[0].events()
        assert {event.act for event in near} == {"pass"}
        assert len({event.head for event in near}) == len(near), "no two of them are the same"
        assert sum(event.length for event in near) == 2 * HALF
        boxes[0].forget()
        trip(lab, address)
        after = boxes[0].events()
        assert not {event.head for event in near} & {event.head for event in after}
        assert sum(event.length for event in after) == 2 * HALF


def test_a_box_loses_what_it_says() -> None:
    with laboratory(PREFIX, "ovs", boxes=("switch",)) as lab, echo(lab) as address:
        lab.boxes["switch"].set(loss=0.1, seed=3)
        for _ in range(10):
            trip(lab, address, patience=40.0)  # a segment lost again and again waits twice as long each time
        lab.boxes["switch"].set()
        dropped = lab.boxes["switch"].events()
        assert dropped
        assert {event.act for event in dropped} == {"drop"}
        assert all(event.length > 0 for event in dropped)


def test_ports_of_the_switch_have_room_for_a_burst() -> None:
    with laboratory(PREFIX, "ovs") as lab:
        assert lab.switch is not None
        assert lab.switch.deepen() >= 2


def test_the_same_prefix_twice_is_refused() -> None:
    with laboratory(PREFIX, "veth"):
        with pytest.raises(LabError, match=rf"a lab '{PREFIX}' is running \(process \d+\); stop it first"):
            Lab(PREFIX, "veth").__enter__()
        assert remains() != [], "the first one stays"
    assert remains() == []


def test_two_open_vswitches_exclude_each_other() -> None:
    with (
        laboratory(PREFIX, "ovs"),
        pytest.raises(LabError, match="another lab with Open vSwitch is running"),
    ):
        Lab("labu", "ovs").__enter__()
    assert remains("labu") == []


def test_what_is_no_labs_own_is_not_touched() -> None:
    with laboratory(PREFIX, "veth"):
        pass  # skips where no lab can be made
    stranger = f"{PREFIX}-app0"
    subprocess.run(["ip", "link", "add", stranger, "type", "bridge"], check=True, timeout=10)
    try:
        with pytest.raises(LabError, match=f"{stranger} exist and are not of a lab"):
            Lab(PREFIX, "veth", proxy_here=True).__enter__()
        assert Path("/sys/class/net", stranger).exists()
    finally:
        subprocess.run(["ip", "link", "delete", stranger], check=True, timeout=10)
    assert remains() == []


LASTING = """
import sys, time
from proxy.demo.lab.lab import Lab
with Lab({prefix!r}, "ovs", boxes=("backend",), patience_s=240) as lab:
    print("made", flush=True)
    time.sleep(60)
"""


def lasting() -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", LASTING.format(prefix=PREFIX)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line == "made\n", child.communicate()[1]
    return child


def test_ctrl_c_leaves_nothing() -> None:
    with laboratory(PREFIX, "ovs"):
        pass  # skips where no lab can be made
    child = lasting()
    assert remains() != []
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGINT)  # an impatient user
    output = child.communicate(timeout=20)
    assert "KeyboardInterrupt" in output[1]
    assert remains() == []


def test_the_next_lab_removes_what_a_killed_one_left() -> None:
    with laboratory(PREFIX, "ovs"):
        pass
    child = lasting()
    child.kill()
    child.communicate(timeout=20)
    assert remains() != []
    with laboratory(PREFIX, "bridge") as lab, echo(lab) as address:
        trip(lab, address)
    assert remains() == []
    assert not Path("/sys/class/net/ovs-netdev").exists()


def test_an_exception_inside_leaves_nothing() -> None:
    with pytest.raises(ZeroDivisionError), laboratory(PREFIX, "veth"):
        raise ZeroDivisionError
    assert remains() == []
