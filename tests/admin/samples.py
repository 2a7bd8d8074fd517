"""Samples as workers would send them."""

from proxy.admin.source import EndpointSample, WorkerSample
from proxy.route.stats import RouteStats
from proxy.trace.ledger import ExportCounters

TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
NOW_NS = 1_790_000_000_000_000_000


def route_stats(path="/", host="shop.localhost", name="shop", namespace="demo"):
    return RouteStats(namespace, name, host, path)


def observe(stats, *, status=200, ms=12.0, error="", trace=TRACE, recorded=True, times=1, at=NOW_NS):
    for _ in range(times):
        stats.observe(status, round(ms * 1e6), 40_000, error, trace, recorded, at)
    return stats


def worker(pid=101, *, stats=(), endpoints=(), export=None, generation=3, **more):
    return WorkerSample(
        pid=pid,
        started=1_789_999_000.0,
        generation=generation,
        routes=tuple(each.snapshot() for each in stats),
        endpoints=tuple(endpoints),
        export=export or ExportCounters(),
        **more,
    )


def endpoint(host="10.0.0.7", port=8080, backend="demo/shop:80", **more):
    return EndpointSample(backend=backend, host=host, port=port, **more)
