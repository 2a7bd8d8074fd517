"""The counts of workers that are gone.

A counter must not fall, or Prometheus takes the fall for a restart and adds everything else again (`rate`). So when a
worker has died, what it last said stays in the sums.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from proxy.admin.source import EndpointSample, WorkerSample
from proxy.route.samples import RouteSample, merge
from proxy.trace.ledger import ExportCounters

_IDLE: Final = {"connections": 0, "idle": 0, "in_flight": 0, "ejected": False, "latency": 0.0}


def merge_endpoints(samples: Sequence[EndpointSample]) -> list[EndpointSample]:
    """What several workers say of each endpoint, added up; ``ejected`` where any has ejected it.

    The latency is the mean of those that know one, weighted by their requests.
    """
    merged: dict[tuple[str, str, int], list[EndpointSample]] = {}
    for sample in samples:
        merged.setdefault(_place(sample), []).append(sample)
    return [_endpoint(group) for group in merged.values()]


def _endpoint(group: list[EndpointSample]) -> EndpointSample:
    first = group[0]
    weights = [(sample.latency, max(sample.requests, 1)) for sample in group if sample.latency > 0]
    return EndpointSample(
        backend=first.backend,
        host=first.host,
        port=first.port,
        zone=first.zone,
        in_flight=sum(sample.in_flight for sample in group),
        connections=sum(sample.connections for sample in group),
        idle=sum(sample.idle for sample in group),
        requests=sum(sample.requests for sample in group),
        errors=sum(sample.errors for sample in group),
        ejections=sum(sample.ejections for sample in group),
        ejected=any(sample.ejected for sample in group),
        latency=sum(value * weight for value, weight in weights) / (sum(weight for _, weight in weights) or 1),
    )


def add_exports(samples: Sequence[ExportCounters]) -> ExportCounters:
    """The export counters of several workers added up; the collector is reachable if all that tried reach it."""
    dropped: dict[str, int] = {}
    for sample in samples:
        for reason, spans in sample.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + spans
    tried = [sample.reachable for sample in samples if sample.reachable is not None]
    latest = max(samples, key=lambda sample: sample.last_error_ns, default=ExportCounters())
    return ExportCounters(
        **{field: sum(getattr(sample, field) for sample in samples) for field in _EXPORT_SUMS},
        dropped=dropped,
        endpoint=next((sample.endpoint for sample in samples if sample.endpoint), ""),
        protocol=next((sample.protocol for sample in samples if sample.protocol), ""),
        reachable=all(tried) if tried else None,
        last_error=latest.last_error,
        last_error_ns=latest.last_error_ns,
    )


_EXPORT_SUMS: Final = (
    "recorded",
    "acknowledged",
    "rejected",
    "local",
    "pending",
    "pending_bytes",
    "limit_bytes",
    "sent",
    "calls",
    "retries",
    "failures",
)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class Departed:
    """Remembers the last sample of every worker, and one sum of those that have ended.

    The sum is bounded by the table: counts of routes and endpoints that living
    workers no longer have are dropped, as living workers drop them. ``alive`` tells whether a process id still runs.
    """

    def __init__(self, alive: Callable[[int], bool] = _alive) -> None:
        self._alive: Final = alive
        self._last: dict[tuple[int, float], WorkerSample] = {}
        self._gone: WorkerSample | None = None

    def __repr__(self) -> str:
        return f"Departed({len(self._last)} known)"

    def complete(self, samples: Sequence[WorkerSample]) -> list[WorkerSample]:
        """The workers' samples, and the counts of those that have ended as one more.

        For a worker that lives but did not answer in time stands what it said last.
        """
        now = {(sample.pid, sample.started): sample for sample in samples}
        for key, sample in self._last.items():
            if key in now:
                continue
            if self._alive(sample.pid):
                now[key] = sample
            else:
                self._gone = _counts([sample] if self._gone is None else [self._gone, sample])
        self._last = now
        living = list(now.values())
        if self._gone is None or not living:
            return living
        routes = {_key(route) for sample in living for route in sample.routes}
        places = {_place(endpoint) for sample in living for endpoint in sample.endpoints}
        self._gone = msgspec.structs.replace(
            self._gone,
            routes=tuple(route for route in self._gone.routes if _key(route) in routes),
            endpoints=tuple(endpoint for endpoint in self._gone.endpoints if _place(endpoint) in places),
        )
        return [*living, self._gone]


def _key(route: RouteSample) -> tuple[str, str, str, str]:
    return route.namespace, route.name, route.host, route.path


def _place(endpoint: EndpointSample) -> tuple[str, str, int]:
    return endpoint.backend, endpoint.host, endpoint.port


def _counts(samples: list[WorkerSample]) -> WorkerSample:
    """Only what is counted: nothing of a dead worker is open, active or pending."""
    export = add_exports([sample.export for sample in samples])
    lost = {**export.dropped, "shutdown": export.dropped.get("shutdown", 0) + export.pending}
    return WorkerSample(
        pid=0,
        started=0.0,
        generation=0,
        connections_total=sum(sample.connections_total for sample in samples),
        upstream_total=sum(sample.upstream_total for sample in samples),
        connections_refused=sum(sample.connections_refused for sample in samples),
        handshake_failures=sum(sample.handshake_failures for sample in samples),
        access_log_lost=sum(sample.access_log_lost for sample in samples),
        wire_sent=sum(sample.wire_sent for sample in samples),
        wire_full=sum(sample.wire_full for sample in samples),
        wire_gone=sum(sample.wire_gone for sample in samples),
        wire_spared=sum(sample.wire_spared for sample in samples),
        wire_outside=sum(sample.wire_outside for sample in samples),
        wire_exhausted=sum(sample.wire_exhausted for sample in samples),
        routes=tuple(merge(route for sample in samples for route in sample.routes)),
        endpoints=tuple(
            msgspec.structs.replace(endpoint, **_IDLE)
            for endpoint in merge_endpoints([endpoint for sample in samples for endpoint in sample.endpoints])
        ),
        export=msgspec.structs.replace(
            export,
            pending=0,
            pending_bytes=0,
            limit_bytes=0,
            dropped=lost if export.pending else export.dropped,
            reachable=None,
            last_error="",
            last_error_ns=0,
        ),
    )
