"""Finding the traces, metrics and log records of one request among those of all others."""

from __future__ import annotations

import secrets
import time
from typing import Any

from tests.harness import poll
from tests.harness.collector import CLIENT, SERVER, Collector, Span, client_spans, server_spans
from tests.harness.edge import Edge
from tests.harness.proxy import REQUESTS, Proxy

PARENT = "b7ad6b7169203331"


class Traced:
    """A trace of the test's own, so that its spans can be found."""

    def __init__(self, collector: Collector | None) -> None:
        assert collector is not None
        self.collector = collector
        self.trace_id = secrets.token_hex(16)

    @property
    def line(self) -> str:
        """The field that puts a request into it."""
        return f"traceparent: 00-{self.trace_id}-{PARENT}-01"

    def server(self) -> Span:
        """Its SERVER span."""
        found = self.collector.wait(lambda span: span.trace_id == self.trace_id and span.parent_id == PARENT)
        assert len(found) == 1
        return found[0]

    def attempts(self) -> list[Span]:
        """Its CLIENT spans; they are exported together with the SERVER span."""
        self.server()
        spans = self.collector.find(lambda span: span.trace_id == self.trace_id)
        assert len(server_spans(spans)) == 1
        return client_spans(spans)


class Account:
    """What one request left behind: SERVER span, its attempts, metric sample, log record; each exactly once."""

    def __init__(self, server: Span, attempts: list[Span], record: dict[str, Any], faults: dict[str, float]) -> None:
        self.server = server
        self.attempts = attempts
        self.record = record
        self.faults = faults

    def __repr__(self) -> str:
        return f"Account({self.server}, {self.attempts}, {self.record}, {self.faults})"


class Ledger:
    """Snapshot of the counters before a request; `account` afterwards asserts that everything grew by exactly one.

    The request is found by the port it came from, `network.peer.port`: a malformed one has no trace context of ours.
    """

    def __init__(self, proxy: Proxy, collector: Collector | None) -> None:
        assert collector is not None
        self.proxy = proxy
        self.collector = collector
        self._requests = self._count()
        self._faults = self._fault_counts()
        self._records = len(proxy.log())
        self._spans = len(collector.find(lambda span: span.kind == SERVER))

    def _count(self) -> float:
        return self.proxy.metrics().total(REQUESTS)

    def _fault_counts(self) -> dict[str, float]:
        counts: dict[str, float] = {}
        for sample in self.proxy.metrics():
            if sample.name == "spanway_faults_total":
                label = sample.labels["error_type"]
                counts[label] = counts.get(label, 0) + sample.value
        return counts

    def account(self, port: int) -> Account:
        """The account of the only request since the snapshot, which came from ``port``."""
        (server,) = self.collector.wait(
            lambda span: span.kind == SERVER and span.attributes.get("network.peer.port") == port, what="a SERVER span"
        )
        poll.until(lambda: self._count() >= self._requests + 1, "the metric sample")
        poll.until(lambda: len(self.proxy.log()) > self._records, "the access-log record")
        faults = self._fault_counts()
        assert self._count() == self._requests + 1
        assert len(self.collector.find(lambda span: span.kind == SERVER)) == self._spans + 1
        records = self.proxy.log()[self._records :]
        assert len(records) == 1, records
        attempts = self.collector.find(lambda span: span.kind == CLIENT and span.trace_id == server.trace_id)
        grown = {label: count - self._faults.get(label, 0) for label, count in faults.items()}
        return Account(server, client_spans(attempts), records[0], {key: by for key, by in grown.items() if by})


def told(edge: Edge, raw: bytes, status: int, method: str = "GET") -> Account:
    """Send ``raw``, read an answer with ``status``, and what it left behind."""
    ledger, before = Ledger(edge.proxy, edge.collector), time.time_ns()
    with edge.client() as client:
        client.send(raw)
        response = client.response(method)
        assert response.status == status
        account = ledger.account(client.port)
    judged(account, status, before)
    return account


def judged(account: Account, status: int | None, before: int) -> None:
    """What holds of every account."""
    server = account.server
    assert before <= server.start <= server.end <= time.time_ns()
    assert server.attributes.get("http.response.status_code") == status
    for attempt in account.attempts:
        assert server.start <= attempt.start <= attempt.end <= server.end
        assert attempt.parent_id == server.span_id
    record = account.record
    assert record["trace_id"] == server.trace_id
    assert record.get("status") in ((status,) if status else (0, None))


def failed(account: Account, label: str) -> None:
    """The label is the same word in span, log and metric."""
    assert account.server.error_type == label
    assert label in account.record.values(), account.record
    assert account.faults == {label: 1}
