"""What a request costs the kernel: a worker reads and writes each message once, and waits no more than it must."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from proxy import PURE
from tests.harness import manifests
from tests.harness.client import Client
from tests.harness.collector import CLIENT, SERVER, Collector
from tests.real.conftest import StartNginx, StartSpanway, without
from tests.real.process import Process, ProcessFailed, free_ports

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

COUNT = 200  # requests
WARM = 5  # requests before, for which connections are opened

SWEEP = 10
"""Calls at most that the worker's sweep makes: it writes the access log, wakes the exporter, looks for a wire."""
SWEEPS = 4  # a second

_CALL = re.compile(r"^(\w+)\((?:\d+<TCP:\[(\S+)->(\S+)\]>)?")
_READS = {"read", "recv", "recvfrom", "recvmsg", "readv"}
_WRITES = {"write", "send", "sendto", "sendmsg", "writev"}
_WAITS = {"epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select", "pselect6"}

_IN_VAIN = re.compile(r", 0, NULL, 8\) = 0$")  # it does not sleep, and nothing has come

REQUESTS = {
    "GET": b"GET /some/path?page=2 HTTP/1.1\r\nHost: files.test\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n",
    "POST": b"POST /form HTTP/1.1\r\nHost: files.test\r\nContent-Length: 400\r\n\r\n" + b"x" * 400,
}


def attached(strace: Path, pid: int, log: Path) -> Process:
    """strace on the main thread of ``pid`` alone (no -f); the exporter's thread is another."""
    tracer = Process("strace", [strace, "-yy", "-p", str(pid), "-o", log], log.with_suffix(".said"))
    try:
        tracer.expect("attached")
    except ProcessFailed as failed:
        tracer.stop()
        without(f"strace may not look at another process here: {str(failed).splitlines()[-1]}")
    return tracer


@pytest.mark.parametrize("message", REQUESTS.values(), ids=REQUESTS)
def test_one_read_and_one_write_per_message_on_each_side(
    message: bytes, strace: Path, start_nginx: StartNginx, start_spanway: StartSpanway, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    answers = 'return 200 "a body of some bytes\\n";'
    start_nginx(f"server {{ listen 127.0.0.1:{port}; keepalive_requests 100000; location / {{ {answers} }} }}", port)
    collector = Collector("grpc")
    try:
        site = manifests.documents(*manifests.site("files", [port]))
        proxy = start_spanway(site, "--otlp", collector.url, "--otlp-protocol", "grpc")
        (worker,) = proxy.workers()
        log = tmp_path / "calls"
        with Client(proxy.address) as client:
            for _ in range(WARM):
                assert client.ask(message).status == 200
            with attached(strace, worker, log) as tracer:
                began = time.monotonic()
                for _ in range(COUNT):
                    assert client.ask(message).status == 200
                tracer.signal(signal.SIGINT)
                tracer.wait()
                swept = SWEEPS * (time.monotonic() - began) + 1  # on a busy machine strace alone takes seconds
            ours = f"127.0.0.1:{client.port}"
        # Every one of them was traced, and the spans are out.
        for kind in (SERVER, CLIENT):
            collector.wait(lambda span, kind=kind: span.kind == kind, WARM + COUNT, "spans of one kind")  # type: ignore[misc] # a default binds it
    finally:
        collector.stop()

    calls: Counter[tuple[str, str]] = Counter()
    for line in log.read_text().splitlines():
        if (match := _CALL.match(line)) is None:
            continue
        name, _, peer = match.groups()
        where = {ours: "client", f"127.0.0.1:{port}": "upstream"}.get(peer, "else")
        what = "read" if name in _READS else "write" if name in _WRITES else "wait" if name in _WAITS else name
        if what == "wait" and _IN_VAIN.search(line):
            what = "look"
        calls[what, where] += 1
    of_messages = {key: count for key, count in calls.items() if key[1] != "else"}
    assert of_messages == {
        ("read", "client"): COUNT,
        ("write", "upstream"): COUNT,
        ("read", "upstream"): COUNT,
        ("write", "client"): COUNT,
    }
    # Each message wakes the loop, which then, compiled, asks the connections' own epoll: here for one of them, where a
    # busy worker takes what many have said.
    waits = calls.pop(("wait", "else"))
    assert waits <= (2 if PURE else 4) * COUNT + SWEEP * swept, calls
    # A client that is alone is awaited without sleeping, so long as it is quick: under strace hardly ever.
    assert calls.pop(("look", "else"), 0) <= (0 if PURE else 8 * COUNT) + SWEEP * swept, calls
    # Of all else next to nothing.
    assert sum(calls.values()) - 4 * COUNT <= COUNT // 8 + SWEEP * swept, calls
