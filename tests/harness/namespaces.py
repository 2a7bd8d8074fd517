"""Labs for tests: network namespaces joined by a real switch, see `proxy.demo.lab`.

    with laboratory("join", "ovs", boxes=("backend",)) as lab:
        listener = lab.listener("app", 8080)         # in the backend's namespace, whoever serves it
        with lab.within():                           # this thread is in the proxy's namespace
            ...

Every test names its own prefix, so that a crashed run of one is swept by its next run and by nobody else. Labs with
Open vSwitch exclude each other on a machine and wait for each other.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from proxy.demo.lab.commands import missing
from proxy.demo.lab.lab import Lab
from proxy.demo.lab.plan import Kind, Spot
from tests.harness.proxy import ROOT
from tests.real.process import Process

PATIENCE_S: Final = 240.0  # for another test's lab with Open vSwitch


class Backend(NamedTuple):
    """A running `tests.harness.lab_backend`."""

    host: str
    port: int
    pid: int
    unread: Path  # a JSON object a line: every time that it did not read


def cannot(kind: Kind = "ovs") -> str:
    """Why no lab can be made here, in one line; empty when it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return missing(switch=kind == "ovs")


@contextlib.contextmanager
def laboratory(
    prefix: str,
    kind: Kind = "ovs",
    backends: Sequence[str] = ("app",),
    *,
    boxes: Sequence[Spot] = (),
    log_all: bool = False,
    proxy_here: bool = False,
) -> Iterator[Lab]:
    """A `Lab`, see there; skips the test with one line where none can be made or, with CI=true, fails it."""
    reason = cannot(kind)
    if reason:
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with Lab(prefix, kind, backends, boxes=boxes, log_all=log_all, proxy_here=proxy_here, patience_s=PATIENCE_S) as lab:
        yield lab


@contextlib.contextmanager
def backend(lab: Lab, name: str = "app", *, receive_buffer: int = 0) -> Iterator[Backend]:
    """`tests.harness.lab_backend` on a port of a backend's namespace, as a process of this namespace.

    ``receive_buffer``: bytes of SO_RCVBUF of its connections, 0 for the system's own; a small one is what makes a
    backend that does not read felt by the proxy.
    """
    log = lab.log(f"backend-{name}-unread")
    with lab.listener(name) as listener:
        if receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        command = [sys.executable, "-m", "tests.harness.lab_backend", str(listener.fileno()), str(log)]
        with Process(
            f"backend-{name}", command, lab.log(f"backend-{name}"), cwd=ROOT, pass_fds=(listener.fileno(),)
        ) as (process):
            host, port = listener.getsockname()
            yield Backend(host, port, process.pid, log)
