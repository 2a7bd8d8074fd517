"""The account of every span between being recorded and being answered for, shared by the event loop and the sender.

At every moment ``recorded == acknowledged + rejected + local + sum(dropped) + pending``: a span enters once, is
pending, and leaves once, whatever the threads do.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from proxy.trace.batch import Batch

QUEUE_FULL: Final = "queue_full"  # the newest span did not fit into the queue's bytes
REFUSED: Final = "refused"  # an answer the OTLP specification calls not retryable
EXHAUSTED: Final = "retries_exhausted"  # retryable, but failing for too long
SHUTDOWN: Final = "shutdown"  # not answered for when the process ended
INTERNAL: Final = "internal"  # a defect of the exporter, logged with its traceback
REASONS: Final = (QUEUE_FULL, REFUSED, EXHAUSTED, SHUTDOWN, INTERNAL)


class ExportCounters(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the spans of one worker, counted in spans unless the name says otherwise.

    ``recorded == acknowledged + rejected + local + sum(dropped.values()) + pending``.
    """

    recorded: int = 0
    """Handed to the exporter."""
    acknowledged: int = 0
    """Accepted by the collector."""
    rejected: int = 0
    """Refused one by one within an accepted call (OTLP partial success)."""
    local: int = 0
    """Kept in the memory ring only, because export is off."""
    dropped: dict[str, int] = {}
    """By reason, every one of `REASONS` always present."""
    pending: int = 0
    """Not yet answered for: in the open batch, in the queue or under way."""
    pending_bytes: int = 0
    """The same in bytes; never more than ``limit_bytes``."""
    limit_bytes: int = 0
    """The queue's bound (`Tracing.queue`)."""
    sent: int = 0
    """In at least one call, each span counted once however often it is retried."""
    calls: int = 0
    """Export calls made, with retries, without the start-up probe."""
    retries: int = 0
    """Calls that repeated a batch."""
    failures: int = 0
    """Calls that were not accepted."""
    endpoint: str = ""
    """Where to, without credentials; "" when export is off."""
    protocol: str = ""
    """``grpc`` or ``http/protobuf``; "" when export is off."""
    reachable: bool | None = None
    """Whether the latest call was answered by an OTLP collector; None before the first."""
    last_error: str = ""
    """The latest failure in words, without secrets."""
    last_error_ns: int = 0
    """When it happened, Unix nanoseconds."""


class Ledger:
    """A byte-bounded queue of batches with exact counters.

    `put`, `lose` and `keep_local` belong to the event loop's thread, `take`, `pause`, `called`, `answered` and `settle`
    to the sender's; the rest to anyone. The bound itself is watched by the exporter, which alone adds:
    ``pending_bytes`` may be read without the lock (it only falls behind the loop's back).
    """

    __slots__ = (
        "_acknowledged",
        "_calls",
        "_condition",
        "_dropped",
        "_ended",
        "_failures",
        "_last_error",
        "_last_error_ns",
        "_local",
        "_pending",
        "_reachable",
        "_recorded",
        "_rejected",
        "_retries",
        "_sent",
        "_taken",
        "_waiting",
        "deadline",
        "pending_bytes",
    )

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._waiting: deque[Batch] = deque()
        self._taken: Batch | None = None
        self._ended = False
        self.deadline: float | None = None  # time.monotonic(): set once a shutdown has begun
        self.pending_bytes = 0
        self._pending = 0
        self._recorded = 0
        self._acknowledged = 0
        self._rejected = 0
        self._local = 0
        self._dropped = dict.fromkeys(REASONS, 0)
        self._sent = 0
        self._calls = 0
        self._retries = 0
        self._failures = 0
        self._reachable: bool | None = None
        self._last_error = ""
        self._last_error_ns = 0

    # The event loop's side.

    def put(self, batch: Batch) -> None:
        """Queue a batch; after the end it is counted as dropped by the shutdown."""
        with self._condition:
            self._recorded += batch.spans
            if self._ended:
                self._dropped[SHUTDOWN] += batch.spans
                return
            self._pending += batch.spans
            self.pending_bytes += batch.size
            self._waiting.append(batch)
            self._condition.notify_all()

    def lose(self, spans: int, reason: str) -> None:
        """Count spans that were recorded and dropped without ever being queued."""
        with self._condition:
            self._recorded += spans
            self._dropped[reason] += spans

    def keep_local(self, spans: int) -> None:
        """Count spans that end in the memory ring, export being off."""
        with self._condition:
            self._recorded += spans
            self._local += spans

    # The sender's side.

    def take(self) -> Batch | None:
        """Wait for the oldest batch; None once a shutdown has begun and nothing is left."""
        with self._condition:
            while not self._waiting and self.deadline is None:
                self._condition.wait()
            self._taken = self._waiting.popleft() if self._waiting else None
            return self._taken

    def pause(self, until: float, *, through_shutdown: bool = False) -> bool:
        """Sleep until ``until`` (`time.monotonic` seconds); False if a shutdown began first."""
        with self._condition:
            while (left := until - time.monotonic()) > 0:
                if self.deadline is not None and not through_shutdown:
                    return False
                self._condition.wait(left)
            return True

    def called(self, batch: Batch) -> None:
        """Count a call about to be made."""
        with self._condition:
            self._calls += 1
            if batch.sent:
                self._retries += 1
            else:
                batch.sent = True
                self._sent += batch.spans

    def answered(self, error: str, *, reachable: bool, call: bool = True) -> None:
        """Note how a call went (``error`` "" when it was accepted); ``call`` False for the start-up probe."""
        with self._condition:
            self._reachable = reachable
            if error:
                self._failures += call
                self._last_error = error
                self._last_error_ns = time.time_ns()

    def settle(self, batch: Batch, *, rejected: int = 0, dropped: str = "") -> None:
        """Count a batch for good, once: dropped for a reason, or accepted with ``rejected`` spans refused."""
        with self._condition:
            self._settle(batch, rejected, dropped)
            self._condition.notify_all()

    def _settle(self, batch: Batch, rejected: int, dropped: str) -> None:
        if batch.settled:
            return
        batch.settled = True
        self._pending -= batch.spans
        self.pending_bytes -= batch.size
        if dropped:
            self._dropped[dropped] += batch.spans
        else:
            # The number comes from outside: it can neither be negative nor exceed what was sent.
            rejected = min(max(rejected, 0), batch.spans)
            self._rejected += rejected
            self._acknowledged += batch.spans - rejected

    # Anyone.

    def wait_idle(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds until no span is pending."""
        with self._condition:
            return self._condition.wait_for(lambda: self._pending == 0, max(timeout, 0.0))

    def begin_shutdown(self, deadline: float) -> None:
        """Let the sender finish: no wait of its own, and nothing after ``deadline`` (`time.monotonic` seconds)."""
        with self._condition:
            self.deadline = deadline
            self._condition.notify_all()

    def end(self) -> int:
        """Drop whatever is pending, and everything put later; how many spans the shutdown has cost in all."""
        with self._condition:
            self._ended = True
            if self._taken is not None:
                self._settle(self._taken, 0, SHUTDOWN)
            while self._waiting:
                self._settle(self._waiting.popleft(), 0, SHUTDOWN)
            self._condition.notify_all()
            return self._dropped[SHUTDOWN]

    def counters(self, *, open_spans: int, open_bytes: int, limit: int, endpoint: str, protocol: str) -> ExportCounters:
        """A consistent reading, with what the exporter's open batch holds."""
        with self._condition:
            return ExportCounters(
                recorded=self._recorded + open_spans,
                acknowledged=self._acknowledged,
                rejected=self._rejected,
                local=self._local,
                dropped=dict(self._dropped),
                pending=self._pending + open_spans,
                pending_bytes=self.pending_bytes + open_bytes,
                limit_bytes=limit,
                sent=self._sent,
                calls=self._calls,
                retries=self._retries,
                failures=self._failures,
                endpoint=endpoint,
                protocol=protocol,
                reachable=self._reachable,
                last_error=self._last_error,
                last_error_ns=self._last_error_ns,
            )

    def __repr__(self) -> str:
        state = "ended" if self._ended else "finishing" if self.deadline is not None else "open"
        waiting = f"{len(self._waiting)} batches waiting"
        return f"Ledger({state}, {waiting}, {self._pending} spans pending, {self.pending_bytes} bytes)"
