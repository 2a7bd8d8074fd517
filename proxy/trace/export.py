"""The exporter's side on the event loop: spans in, batches out, at the price of a list append.

`Exporter.record` runs once per request and does nothing but collect; every `Tracing.batch` spans, or `Tracing.delay`
seconds, one batch is sealed: joined once, shown to the memory ring, and queued for the sender's thread. Joining on the
loop's thread costs what it would cost on the other (below 1 MiB `bytes.join` holds the interpreter's lock either way),
and keeps ring and open batch free of locks.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxy.errors import SettingsError
from proxy.settings import KIB, MIB
from proxy.trace.batch import Batch, Envelope
from proxy.trace.ledger import QUEUE_FULL, SHUTDOWN, ExportCounters, Ledger
from proxy.trace.segments import Segments
from proxy.trace.sender import RareLog, Retry, Sender
from proxy.trace.transport import exports

if TYPE_CHECKING:
    from proxy.settings import Tracing
    from proxy.trace.encoder import Encoder
    from proxy.trace.record import RequestRecord
    from proxy.trace.ring import Ring
    from proxy.trace.transport import Transport

log: Final = logging.getLogger(__name__)

BATCH_BYTES: Final = 1 * MIB  # most bytes in one call; gRPC servers accept 4 MiB unless told otherwise
RING_SHARE: Final = 2  # a batch takes at most this part of the ring, so that /traces always has something recent
SMALLEST_BATCH: Final = 64 * KIB  # however small ring or queue are: below this, calls cost more than they carry


def make_transport(tracing: Tracing, version: str = "") -> Transport | None:
    """The transport that the settings ask for, None when export is off. Opens nothing, imports no gRPC.

    Raises `SettingsError` for an endpoint, header or certificate that cannot be used.
    """
    if not exports(tracing):
        return None
    if tracing.protocol == "grpc":
        from proxy.trace.otlp_grpc import GrpcTransport

        return GrpcTransport(tracing, version)
    if tracing.protocol == "http/protobuf":
        from proxy.trace.otlp_http import HttpTransport

        return HttpTransport(tracing, version)
    raise SettingsError(
        f"OTLP protocol {tracing.protocol!r} is not supported. "
        "Set --otlp-protocol (OTEL_EXPORTER_OTLP_PROTOCOL) to grpc or http/protobuf."
    )


class Exporter:
    """Collects the encoded spans of one worker and has them exported; also feeds the memory ring.

    All methods belong to the event loop's thread. ``resource`` and ``scope`` are encoded messages (`trace.resource`);
    ``transport`` None means: ring only. Make it anywhere, but `start` it after forking: that starts the thread, which
    alone imports gRPC.

    When the queue is full the newest span is dropped, not the oldest: what was taken in is given up only by an answer
    or the end, nothing has to be taken back from the sender, and the onset of an outage, which is what one looks for
    afterwards, is kept.
    """

    __slots__ = (
        "_batch",
        "_batch_bytes",
        "_complained",
        "_delay",
        "_envelope",
        "_ledger",
        "_limit",
        "_queue_full",
        "_rare",
        "_ring",
        "_room",
        "_segments",
        "_sender",
        "_since",
        "_spans",
        "_transport",
    )

    def __init__(
        self,
        tracing: Tracing,
        transport: Transport | None,
        *,
        resource: bytes,
        scope: bytes,
        schema_url: str = "",
        ring: Ring | None = None,
        retry: Retry | None = None,
        probe: bool = True,
    ) -> None:
        self._transport = transport
        self._envelope = Envelope(resource, scope, schema_url)
        self._ring = ring if ring is not None and ring.limit > 0 else None
        self._ledger = Ledger()
        self._sender = None
        if transport is not None:
            self._sender = Sender(self._ledger, transport, timeout=tracing.timeout, retry=retry or Retry(), probe=probe)
        self._rare = RareLog()
        self._queue_full = 0  # spans dropped because of the queue, all told
        self._complained = 0  # the same when it was last looked at
        self._limit = tracing.queue
        self._batch = max(tracing.batch, 1)
        self._delay = tracing.delay
        self._batch_bytes = _batch_bytes(tracing.queue, self._ring)
        # The open batch. `_room` is what its spans may grow to, in bytes, before `_crowded` must look closer.
        self._segments = Segments()
        self._spans = 0
        self._since: float | None = None  # loop.time() at which the open batch was last known to be empty
        self._room = 0
        self._measure()

    def start(self) -> None:
        """Start sending. Call it in the process that serves, never before a fork."""
        if self._sender is not None:
            self._sender.start()

    def record(self, encoder: Encoder, record: RequestRecord) -> None:
        """Take in one finished request: ``encoder`` writes its spans right into the batch. HOT: once for each that is
        recorded. Raises what `Encoder.encode` raises."""
        spans = 1 + len(record.attempts)
        size = encoder.append(record, self._segments, self._room)
        if size:
            # Encoded anew only where there is room: while a collector is away every request comes by here.
            if self._crowded(size, spans):
                self._begin(encoder.encode(record), spans)
            return
        self._spans = count = self._spans + spans
        if count >= self._batch:
            self.seal()

    def offer(self, blob: bytes, spans: int) -> None:
        """Take in encoded, tagged spans."""
        if self._segments.size + len(blob) > self._room:
            if self._crowded(len(blob), spans):
                self._begin(blob, spans)
            return
        self._segments.add(blob)
        self._spans = count = self._spans + spans
        if count >= self._batch:
            self.seal()

    def tick(self, now: float) -> None:
        """Seal a batch that is old enough. ``now`` is ``loop.time()``; call it a few times per second."""
        if not self._segments.size:
            self._since = now
        elif self._since is None:
            self._since = now  # begun since the last tick, right after a full batch: at most a tick late
        elif now - self._since >= self._delay:
            self.seal()
            self._since = now
        self._measure()
        if self._queue_full != self._complained:
            new, self._complained = self._queue_full - self._complained, self._queue_full
            self._rare.warn(
                "The queue is full: %d spans dropped, as %s has not taken the %d bytes that wait",
                new,
                self._transport.endpoint if self._transport is not None else "nobody",
                self._ledger.pending_bytes,
            )

    def seal(self) -> None:
        """Close the open batch now: to the ring, and on its way to the collector. Nothing if it is empty."""
        segments = self._segments
        if not segments.size:
            return
        spans = self._spans
        body = self._envelope.around(segments.take())
        self._spans = 0
        self._since = None
        if self._ring is not None:
            self._ring.add(body)
        if self._sender is None:
            self._ledger.keep_local(spans)
        else:
            self._ledger.put(Batch(body, spans))
            self._measure()

    def _measure(self) -> None:
        room = self._limit - self._ledger.pending_bytes if self._sender is not None else self._batch_bytes
        self._room = min(room, self._batch_bytes) - self._envelope.overhead

    def _crowded(self, size: int, spans: int) -> bool:
        """``size`` bytes of spans do not fit into the open batch, which is sealed. Whether they may `_begin` the next;
        else the queue is full, and they are counted as dropped."""
        self.seal()
        if self._ledger.deadline is not None:
            self._ledger.lose(spans, SHUTDOWN)
            return False
        room = self._limit - self._ledger.pending_bytes
        if self._sender is not None and self._envelope.overhead + size > room:
            self._queue_full += spans
            self._ledger.lose(spans, QUEUE_FULL)
            return False
        return True

    def _begin(self, blob: bytes, spans: int) -> None:
        """Begin a batch."""
        self._segments.add(blob)
        self._spans = spans
        if spans >= self._batch or self._envelope.overhead + len(blob) >= self._batch_bytes:
            self.seal()

    def flush(self, timeout: float) -> bool:
        """Seal, and wait at most ``timeout`` seconds until every span is answered for. Blocks the thread.

        On a running loop: `seal`, then `drained` in an executor.
        """
        self.seal()
        return self.drained(timeout)

    def drained(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until every sealed batch is answered for. Blocks; from any thread."""
        return self._ledger.wait_idle(timeout)

    def close(self, timeout: float) -> bool:
        """Send what is left within ``timeout`` seconds, then count the rest as dropped; True if nothing was lost.

        Blocks for at most ``timeout`` and half a second. Later spans are counted as dropped. May run in an executor
        once `seal` was called and nothing is offered any more.
        """
        self.seal()
        self._room = 0  # every later one goes through `_crowded`
        self._batch_bytes = 0
        if self._sender is not None:
            return self._sender.close(timeout)
        self._ledger.begin_shutdown(0.0)
        return self._ledger.end() == 0

    def counters(self) -> ExportCounters:
        """What became of every span so far; exact when read on the event loop's thread."""
        transport = self._transport
        return self._ledger.counters(
            open_spans=self._spans,
            open_bytes=self._envelope.overhead + self._segments.size if self._segments.size else 0,
            limit=self._limit,
            endpoint="" if transport is None else transport.endpoint,
            protocol="" if transport is None else transport.protocol,
        )

    def __repr__(self) -> str:
        where = "the ring only" if self._transport is None else self._transport.endpoint
        return f"Exporter(to {where}, {self._spans} spans open, {self._ledger!r})"


def _batch_bytes(queue: int, ring: Ring | None) -> int:
    most = min(BATCH_BYTES, queue // 4)
    if ring is not None:
        most = min(most, ring.limit // RING_SHARE)
    return max(most, min(SMALLEST_BATCH, queue))
