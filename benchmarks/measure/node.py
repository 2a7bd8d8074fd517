"""A node in small: the proxy in a network namespace, the upstream in another, a switch between their links' ends here.

That is where `spanway wire` is used: its taps are the two ends in this namespace. The load and a collector are in the
proxy's namespace, so that what passes the taps is the proxy's upstream traffic alone.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from benchmarks.measure.collector import Sink
from benchmarks.measure.machine import Unfit
from benchmarks.peers import upstream
from proxy.demo.lab.commands import LabError
from proxy.demo.lab.lab import Lab
from proxy.demo.lab.plan import Kind

EVERYWHERE: Final = "0.0.0.0"
PATIENCE_S: Final = 60.0  # for another lab with Open vSwitch


class Node:
    """Made at once, until `close`. Raises `Unfit` where it cannot be had."""

    def __init__(self, folder: Path, kind: Kind, cpu: int) -> None:
        if os.geteuid() != 0:
            raise Unfit("network namespaces need root")
        self._ends: Final = contextlib.ExitStack()
        try:
            self._lab = self._ends.enter_context(Lab(f"bench{kind[0]}", kind, patience_s=PATIENCE_S))
            with self._lab.within(self._lab.backends["app"]):
                self._upstream = upstream.start(folder / "upstream", cpu, host=EVERYWHERE)
            self._ends.callback(self._upstream.stop)
            with self._lab.within():
                self.collector: Final = Sink(folder / "collector", cpu)
            self._ends.callback(self.collector.stop)
        except LabError as error:
            self._ends.close()
            raise Unfit(str(error)) from error
        except BaseException:
            self._ends.close()
            raise

    def __repr__(self) -> str:
        return f"Node({self._lab!r})"

    @property
    def host(self) -> str:
        """The upstream's address, as the proxy has it."""
        return self._lab.backends["app"].address

    @property
    def port(self) -> int:
        """The upstream's port."""
        return self._upstream.port

    @property
    def taps(self) -> tuple[str, ...]:
        """The interfaces of this namespace that a request passes, from the proxy to the upstream."""
        return tuple(name for name, namespace in self._lab.plan.on_the_way("app") if namespace is None)

    def within(self) -> contextlib.AbstractContextManager[None]:
        """This thread, and what it starts, is in the proxy's namespace meanwhile."""
        return self._lab.within()

    def close(self) -> None:
        """Remove all of it."""
        self._ends.close()
