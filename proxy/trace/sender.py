"""The thread that carries batches to the collector: one call at a time, retries as OTLP has them, no way to die.

One call at a time bounds throughput to ``batch / round trip``: 512 spans in 5 ms are 100,000 spans a second; a distant
collector wants a larger OTEL_BSP_MAX_EXPORT_BATCH_SIZE. In return a struggling collector is never pressed harder, and
a dead one is asked by a single call.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.trace.ledger import EXHAUSTED, INTERNAL, REFUSED, SHUTDOWN

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.trace.batch import Batch
    from proxy.trace.ledger import Ledger
    from proxy.trace.transport import Outcome, Transport

log: Final = logging.getLogger(__name__)

LOG_EVERY: Final = 60.0  # seconds between two lines about the same trouble (istio/istio#53012: failures flood the log)
PROBE_TIMEOUT: Final = 3.0  # seconds; a collector that drops packets must not delay the first batch for long
ABORT_GRACE: Final = 0.5  # seconds a cancelled call has to return before its thread is left to itself


class Retry(NamedTuple):
    """How failed calls are repeated, in seconds. Precedent: the OpenTelemetry Collector's exporterhelper."""

    first: float = 1.0
    """The first wait (exporterhelper 5 s; the SDKs 1 s, since their queues are as small as ours)."""
    longest: float = 30.0
    """The longest wait of our own (exporterhelper max_interval)."""
    give_up: float = 300.0
    """From a batch's first call to its being dropped (exporterhelper max_elapsed_time); also the longest wait that a
    collector may ask for, so that a wrong Retry-After date cannot silence tracing for a day."""

    def wait(self, failures: int, chance: float) -> float:
        """Seconds to wait after ``failures`` failures in a row (1 or more); ``chance`` from 0 to 1 is the jitter.

        Doubles each time, then spread evenly over half to all of it, so that workers that failed together do not
        return together.
        """
        ceiling: float = min(self.longest, self.first * 2.0 ** min(failures - 1, 32))
        return ceiling * (0.5 + 0.5 * chance)


class RareLog:
    """Logs the first of a kind at once and then one line in `LOG_EVERY` seconds with the number left out."""

    __slots__ = ("_clock", "_last", "_silent", "troubled")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = float("-inf")
        self._silent = 0
        self.troubled = False  # a warning was printed and no recovery yet

    def warn(self, message: str, *arguments: object) -> None:
        """A warning, unless one was printed less than `LOG_EVERY` seconds ago."""
        now = self._clock()
        if now - self._last < LOG_EVERY:
            self._silent += 1
            return
        more = f" ({self._silent} more like it since the last such line)" if self._silent else ""
        self._last, self._silent, self.troubled = now, 0, True
        log.warning(message + "%s", *arguments, more)

    def recovered(self, message: str, *arguments: object) -> None:
        """One line that the trouble is over, if its beginning was printed."""
        if self.troubled:
            self.troubled = False
            log.info(message, *arguments)


class Sender:
    """Takes batches from the ledger and settles each. Start it after forking; `close` it from another thread."""

    __slots__ = (
        "_asked",
        "_failures",
        "_hurried",
        "_ledger",
        "_probe",
        "_rare",
        "_resume_at",
        "_retry",
        "_thread",
        "_timeout",
        "_transport",
    )

    def __init__(self, ledger: Ledger, transport: Transport, *, timeout: float, retry: Retry, probe: bool) -> None:
        self._ledger = ledger
        self._transport = transport
        self._timeout = timeout
        self._retry = retry
        self._probe = probe
        self._rare = RareLog()
        self._thread: threading.Thread | None = None
        self._failures = 0  # calls in a row that failed retryably
        self._resume_at = 0.0  # time.monotonic(): no call before
        self._asked = False  # the collector named that time
        self._hurried = False  # the wait was cut short once because of a shutdown

    def start(self) -> None:
        """Start the daemon thread; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="spanway-export", daemon=True)
            self._thread.start()

    def close(self, timeout: float) -> bool:
        """Finish within ``timeout`` seconds, plus `ABORT_GRACE` if a call must be cut; True if nothing was lost."""
        self._ledger.begin_shutdown(time.monotonic() + max(timeout, 0.0))
        thread = self._thread
        if thread is not None:
            thread.join(max(timeout, 0.0))
        lost = self._ledger.end()
        if thread is not None and thread.is_alive():
            self._transport.abort()
            thread.join(ABORT_GRACE)
        if lost:
            log.warning("%d spans could not be exported to %s before the end", lost, self._transport.endpoint)
        return lost == 0

    def _run(self) -> None:
        try:
            if self._probe:
                self._knock()
            while True:
                batch = self._ledger.take()
                if batch is None:
                    return
                self._attempt(batch)
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        try:
            self._transport.close()
        except Exception:
            log.exception("Closing the connection to %s failed; please report this", self._transport.endpoint)

    def _attempt(self, batch: Batch) -> None:
        # Tracing must not be able to take itself down (deckhouse/deckhouse#15475): whatever is raised here, even a
        # SystemExit out of a library, costs this one batch, is counted and logged, and the thread goes on.
        try:
            self._deliver(batch)
        except BaseException as error:
            self._ledger.settle(batch, dropped=INTERNAL)
            self._ledger.answered(f"{type(error).__name__} in the exporter", reachable=False)
            log.exception("The exporter failed and dropped %d spans; please report this", batch.spans)

    def _knock(self) -> None:
        # An export request without spans: "the server SHOULD respond with success" (OTLP specification). It proves
        # address, protocol, path and credentials before the first span (Kong/kong#11699: a wrong endpoint is silent).
        try:
            outcome = self._transport.send(b"", min(PROBE_TIMEOUT, self._timeout))
        except BaseException:
            log.exception("The exporter's start-up probe failed; please report this")
            return
        if outcome.verdict == "refused" and not outcome.hint:
            return  # something there speaks the protocol and only dislikes an empty request
        if outcome.verdict == "accepted":
            self._ledger.answered("", reachable=True, call=False)
        elif self._ledger.deadline is None:
            self._ledger.answered(str(outcome), reachable=False, call=False)
            self._complain(outcome)

    def _deliver(self, batch: Batch) -> None:
        first_call = 0.0
        while True:
            allowance = self._turn()
            if allowance <= 0:
                self._ledger.settle(batch, dropped=SHUTDOWN)
                return
            first_call = first_call or time.monotonic()
            self._ledger.called(batch)
            outcome = self._transport.send(batch.body, allowance)
            if batch.settled:
                return  # given up by `close` meanwhile, and the call cut: nothing to count or to complain of
            if outcome.verdict == "accepted":
                self._accepted(batch, outcome)
                return
            self._ledger.answered(str(outcome), reachable=outcome.verdict == "refused" and not outcome.hint)
            self._complain(outcome)
            if outcome.verdict == "refused":
                self._failures = 0
                self._ledger.settle(batch, dropped=REFUSED)
                return
            self._fall_back(outcome)
            if time.monotonic() - first_call >= self._retry.give_up:
                self._ledger.settle(batch, dropped=EXHAUSTED)
                return

    def _turn(self) -> float:
        """Wait for our turn; the seconds the next call may take, 0 if a shutdown leaves none."""
        if not self._ledger.pause(self._resume_at):
            # A shutdown began. Our own patience is cut short, once; a wait that the collector asked for is not.
            if not self._asked and not self._hurried:
                self._hurried = True
                self._failures = 0
            elif self._resume_at >= (self._ledger.deadline or 0.0):
                return 0.0
            else:
                self._ledger.pause(self._resume_at, through_shutdown=True)
        deadline = self._ledger.deadline
        return self._timeout if deadline is None else min(self._timeout, deadline - time.monotonic())

    def _accepted(self, batch: Batch, outcome: Outcome) -> None:
        self._failures = 0
        self._resume_at = 0.0
        self._ledger.answered("", reachable=True)
        self._ledger.settle(batch, rejected=outcome.rejected)
        if outcome.rejected or outcome.text:
            said = f": {outcome.text}" if outcome.text else ""
            where = self._transport.endpoint
            self._rare.warn("%s rejected %d of %d spans%s", where, outcome.rejected, batch.spans, said)
        else:
            self._rare.recovered("%s accepts spans again", self._transport.endpoint)

    def _fall_back(self, outcome: Outcome) -> None:
        self._failures += 1
        self._asked = bool(outcome.delay)  # RetryInfo without a delay leaves the wait to us
        if outcome.delay:
            wait = min(outcome.delay, self._retry.give_up)
        else:
            wait = self._retry.wait(self._failures, random.random())  # noqa: S311 - jitter, not a secret
        self._resume_at = time.monotonic() + wait

    def _complain(self, outcome: Outcome) -> None:
        hint = f" {outcome.hint}" if outcome.hint else ""
        self._rare.warn(
            "Spans do not reach %s (OTLP %s): %s. Requests are not affected.%s",
            self._transport.endpoint,
            self._transport.protocol,
            outcome,
            hint,
        )

    def __repr__(self) -> str:
        thread = self._thread
        state = "not started" if thread is None else "running" if thread.is_alive() else "ended"
        return f"Sender({state}, {self._transport.endpoint}, {self._failures} failures in a row)"
