"""What the admin room is told, and by whom: the supervisor implements `Source` and `Running`.

Plain structs without behaviour, so that a worker's sample crosses its process border as msgpack.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

import msgspec

from proxy.admin.cluster import ClusterSample
from proxy.admin.control import ControlSample, Followed
from proxy.route.samples import RouteSample
from proxy.route.spec import TableSpec
from proxy.settings import Address, Settings
from proxy.trace.ledger import ExportCounters


class EndpointSample(msgspec.Struct, frozen=True, array_like=True):
    """One endpoint of one backend, as one worker sees it."""

    backend: str  # BackendSpec.key: namespace/service:port
    host: str
    port: int
    zone: str = ""
    in_flight: int = 0
    connections: int = 0  # open, idle ones included
    idle: int = 0
    requests: int = 0  # attempts since the worker began
    errors: int = 0  # attempts that failed
    ejections: int = 0
    ejected: bool = False
    latency: float = 0.0  # seconds, moving average; 0 when unknown


class WorkerSample(msgspec.Struct, frozen=True, array_like=True):
    """One worker at one moment. Counts are since the worker's start."""

    pid: int
    started: float  # Unix seconds
    generation: int  # of the table it serves; 0 before the first
    connections_open: int = 0
    connections_total: int = 0
    requests_active: int = 0
    upstream_open: int = 0
    upstream_total: int = 0  # upstream connections opened
    loop_lag: float = 0.0  # seconds, the event loop's latest
    memory: int = 0  # bytes resident
    routes: tuple[RouteSample, ...] = ()
    endpoints: tuple[EndpointSample, ...] = ()
    export: ExportCounters = ExportCounters()
    connections_refused: int = 0  # closed at once, a limit being reached
    handshake_failures: int = 0  # TLS handshakes and PROXY protocol headers that came to nothing
    access_log_lost: int = 0  # lines that could not be written
    wire_listening: bool = False
    wire_sent: int = 0  # attempts handed to `spanway wire`
    wire_full: int = 0  # lost, as it did not keep up
    wire_gone: int = 0  # lost, as it had just left
    wire_spared: int = 0  # requests beyond its rate
    wire_outside: int = 0  # of connections whose ports it does not tap
    wire_exhausted: int = 0  # connections that found no free port of their kind


class Readiness(msgspec.Struct, frozen=True):
    """Whether traffic may come, and if not, why: one sentence per reason."""

    ready: bool
    reasons: tuple[str, ...] = ()


class Cursor(msgspec.Struct, frozen=True):
    """How far a reader of recent spans has come: a position in each ring ("pid", or "receiver").

    A ring that is not named is read from its oldest span on.
    """

    positions: dict[str, int] = {}


class Problem(Protocol):
    """Something wrong in the configuration; `control.Problem` is one."""

    @property
    def severity(self) -> str: ...  # "error" | "warning"
    @property
    def kind(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def field(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def hint(self) -> str: ...


class Source(Protocol):
    """Everything the admin room reads. A worker that does not answer in time is left out, never waited for."""

    async def samples(self) -> list[WorkerSample]:
        """One sample per living worker."""
        ...

    async def batches(self) -> list[bytes]:
        """The recent spans of all workers and of the embedded receiver.

        Serialized ``ExportTraceServiceRequest`` messages (opentelemetry/proto/collector/trace/v1), oldest first
        within each ring.
        """
        ...

    async def batches_since(self, cursor: Cursor) -> tuple[Cursor, list[bytes]]:
        """What came after ``cursor`` (as far as the rings still have it), and the cursor to go on with."""
        ...

    def table(self) -> TableSpec:
        """The table that workers serve, or are about to."""
        ...

    def problems(self) -> Sequence[Problem]:
        """What is wrong with the configuration as it was last read."""
        ...

    def cluster(self) -> ClusterSample | None:
        """What a controller counts; None where no cluster is followed."""
        ...

    def control(self) -> ControlSample:
        """What the control plane counts."""
        ...

    def followed(self, trace_id: str) -> Followed | None:
        """What has become of the objects that carried this trace (hex); None if none has come lately."""
        ...

    def exits(self) -> int:
        """Workers that have ended and were replaced."""
        ...

    def readiness(self) -> Readiness:
        """Ready once every worker serves the table, and not while draining."""
        ...


class Running(Protocol):
    """A proxy that serves, as its companions see it."""

    @property
    def source(self) -> Source: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def http(self) -> tuple[Address, ...]:
        """The plain HTTP listeners with their actual ports."""
        ...

    @property
    def admin(self) -> Address | None:
        """The admin listener with its actual port; None when it is off."""
        ...

    def stop(self, code: int = 0) -> None:
        """Drain and end the process with this exit code."""
        ...


Companion: TypeAlias = Callable[[Running], Awaitable[None]]
"""Runs in the supervisor's loop from the moment every worker serves; cancelled when the proxy ends."""
