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
from collections.abc import Iterator, Sequence
from typing import Final

import pytest

from proxy.demo.lab.commands import missing
from proxy.demo.lab.lab import Lab
from proxy.demo.lab.plan import Kind, Spot

PATIENCE_S: Final = 240.0  # for another test's lab with Open vSwitch


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
    proxy_here: bool = False,
) -> Iterator[Lab]:
    """A `Lab`, see there; skips the test with one line where none can be made or, with CI=true, fails it."""
    reason = cannot(kind)
    if reason:
        if os.environ.get("CI") == "true":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with Lab(prefix, kind, backends, boxes=boxes, proxy_here=proxy_here, patience_s=PATIENCE_S) as lab:
        yield lab
