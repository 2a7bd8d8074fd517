"""Each fault of a lab does to requests what it says, for as long as it says."""

from __future__ import annotations

import json
import os
import socket
import time
from typing import NamedTuple

import pytest

from proxy.demo.lab import faults
from proxy.demo.lab.commands import LabError
from proxy.demo.lab.lab import Lab
from tests.harness.namespaces import Backend, backend, laboratory

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

PREFIX = "labf"
MS = 1_000_000


class Answer(NamedTuple):
    begin: int
    end: int
    read: int
    written: int
    size: int


def ask(lab: Lab, to: Backend, query: str = "", body: int = 0) -> Answer:
    """One request on a connection of its own, from the proxy's namespace."""
    with lab.within():
        connection = socket.create_connection((to.host, to.port), timeout=20)
    with connection:
        head = f"POST /?{query} HTTP/1.1\r\nhost: app\r\ncontent-length: {body}\r\n\r\n"
        begin = time.time_ns()
        connection.sendall(head.encode() + bytes(body))
        data = b""
        while b"\r\n\r\n" not in data:
            data += connection.recv(65536)
        head, _, rest = data.decode("latin-1").partition("\r\n\r\n")
        fields = dict(line.split(": ") for line in head.split("\r\n")[1:])
        left = int(fields["content-length"]) - len(rest)
        while left:
            left -= len(connection.recv(65536))
        return Answer(begin, time.time_ns(), int(fields["in"]), int(fields["out"]), int(fields["content-length"]))


def test_the_backend_says_what_was_its_own_part() -> None:
    with laboratory(PREFIX, "veth") as lab, backend(lab) as there:
        answer = ask(lab, there, "think_us=20000&bytes=70000", body=30_000)
        assert answer.begin <= answer.read <= answer.written <= answer.end
        assert answer.written - answer.read >= 20 * MS
        assert answer.size == 70_000


def test_a_stopped_switch_holds_everything() -> None:
    with laboratory(PREFIX, "ovs") as lab, backend(lab) as there:
        ask(lab, there)
        fault = faults.switch_stall(lab)
        fault.on()
        with lab.within():
            connection = socket.socket()
        connection.settimeout(0.3)
        with connection, pytest.raises(TimeoutError):
            connection.connect((there.host, there.port))
        fault.off()
        (truth,) = fault.truth
        assert truth.place == "switch"
        assert truth.off_ns - truth.on_ns >= 300 * MS
        ask(lab, there)


def test_a_stopped_backend_is_late_by_its_own_clock() -> None:
    with laboratory(PREFIX, "bridge") as lab, backend(lab) as there:
        with faults.stall((there.pid,), "backend") as fault:
            with lab.within():
                connection = socket.create_connection((there.host, there.port), timeout=20)
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            time.sleep(0.2)
        with connection:
            head = connection.recv(4096).decode()
        read = int(head.split("\r\nin: ")[1].split("\r\n")[0])
        assert read > fault.truth[0].off_ns
        with pytest.raises(LabError, match="no switch in user space"):
            faults.switch_stall(lab)


def test_delay_and_loss_at_each_box() -> None:
    with laboratory(PREFIX, "ovs", boxes=("proxy", "switch", "backend")) as lab, backend(lab) as there:
        for box in lab.boxes:
            with faults.delay(lab, box, 20_000) as fault:
                answer = ask(lab, there)
            assert answer.end - answer.begin >= 40 * MS, "there and back"
            assert fault.truth[0].place == faults.place_of(box)
            before = len(lab.boxes[box].events())
            with faults.loss(lab, box, 0.2):
                ask(lab, there, "bytes=70000")
            dropped = [event for event in lab.boxes[box].events()[before:] if event.act == "drop"]
            assert dropped
        with pytest.raises(LabError, match="no box 'moon'; it has proxy, switch, app"):
            faults.delay(lab, "moon", 1)


@pytest.mark.parametrize("kind", ["ovs", "veth"])
def test_shaping_holds_to_a_rate(kind: str) -> None:
    with laboratory(PREFIX, "ovs" if kind == "ovs" else "veth") as lab, backend(lab) as there:
        # The best of some: a switch in user space that stands still for a moment costs a retransmission.
        quick = min((ask(lab, there, body=200_000) for _ in range(5)), key=lambda one: one.end - one.begin)
        with faults.shape("eth0", lab.proxy.namespace, "proxy", 20):
            slow = ask(lab, there, body=200_000)
        least = (200_000 - faults.BURST_BYTES) * 8 / 20e6  # seconds
        assert (slow.end - slow.begin) / 1e9 >= least * 0.95
        assert quick.end - quick.begin < slow.end - slow.begin


def test_a_backend_that_does_not_read_says_so() -> None:
    with laboratory(PREFIX, "ovs") as lab, backend(lab, receive_buffer=16_384) as there:
        answer = ask(lab, there, "unread_ms=100", body=300_000)
        assert answer.end - answer.begin >= 100 * MS
        (entry,) = [json.loads(line) for line in there.unread.read_text().splitlines()]
        assert entry["fault"] == "not reading"
        assert answer.begin <= entry["begin_ns"] <= entry["end_ns"] - 100 * MS <= answer.end
        assert os.path.exists(f"/proc/{there.pid}")
