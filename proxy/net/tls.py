"""TLS as a transport, on top of any asyncio or uvloop transport, for either side.

asyncio has one of its own, which cannot serve here: a PROXY header may stand before the handshake, connecting and
handshaking are phases apart, and the packet join is keyed by the *ciphertext* bytes of each direction, which only
the owner of the BIOs can count.
"""

from __future__ import annotations

import asyncio
import ssl
from time import monotonic_ns
from typing import TYPE_CHECKING, Final, cast

from proxy.net.layer import Layer
from proxy.net.records import Records

if TYPE_CHECKING:
    from collections.abc import Callable

_HANDSHAKE: Final = 0
_OPEN: Final = 1
_LINGERING: Final = 2
_CLOSED: Final = 3
_LOST: Final = 4
_STATES: Final = ("handshake", "open", "lingering", "closed", "lost")
_NOBODY: Final = asyncio.Protocol()  # hears what nobody has to hear


class TlsTransport(Layer):
    """The protocol of a raw transport and the transport of an inner protocol, with TLS in between.

    ``inner.connection_made(self)`` is called once the handshake is done, and the inner protocol then sees plaintext
    by the usual callbacks. If the handshake fails, or the peer leaves before its end, ``on_failure(reason)`` is
    called once (perhaps from within `start`) and the inner protocol hears nothing; it is not called after the
    owner's own `close` or `abort`.

    A peer's close_notify is an `eof_received`; when that returns true the connection stays writable (RFC 8446
    section 6.1), except with TLS 1.2, where nothing may be written any more (RFC 5246 section 7.2.1). A stream that
    ends without close_notify is the same with ``truncated`` true: its end can be forged.

    ``bytes_in`` and ``bytes_out`` count ciphertext from the first TLS byte on, the handshake included.
    ``handshake_ns`` is how long the handshake took, 0 until it is done. A deadline for it is the owner's business.
    """

    __slots__ = (
        "_context",
        "_eof_told",
        "_held",
        "_notified",
        "_on_failure",
        "_opened_in",
        "_paused",
        "_raw_eof",
        "_session",
        "_started_ns",
        "_state",
        "_writing_paused",
        "bytes_in",
        "bytes_out",
        "truncated",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        inner: asyncio.Protocol,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        on_failure: Callable[[str], None] | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Prepare; nothing happens before `start`.

        ``server_hostname`` (client side) is sent as SNI unless it is an address, and is the name that a verifying
        context asks the certificate for. ``session`` (client side) is one to resume, of the same context.
        """
        self._context = context
        self._inner = inner
        self._server_side = server_side
        self._hostname = server_hostname
        self._on_failure = on_failure
        self._session = session
        self._notified = False  # our close_notify is written
        self._state = _HANDSHAKE
        self._started_ns = 0
        self._paused = self._writing_paused = False
        self._held: list[bytes] = []  # ciphertext that came while the inner protocol had paused reading
        self._raw_eof = self._eof_told = False
        self.bytes_in = self.bytes_out = self._opened_in = 0
        self.handshake_ns, self.truncated = 0, False

    def __repr__(self) -> str:
        side = "server" if self._server_side else "client"
        return f"<TlsTransport {side} {_STATES[self._state]} {self.version} in={self.bytes_in} out={self.bytes_out}>"

    def start(self, raw_transport: asyncio.Transport, initial: bytes = b"") -> None:
        """Take over a connected transport and begin the handshake; ``initial`` is ciphertext already read from it."""
        self._raw = raw_transport
        self._started_ns = monotonic_ns()
        raw_transport.set_protocol(cast("asyncio.Protocol", self))
        try:
            self._records = Records(
                self._context,
                server_side=self._server_side,
                server_hostname=self._hostname,
                session=self._session,
            )
        except (ValueError, TypeError, ssl.SSLError) as exc:  # UnicodeError too: a label empty or too long (RFC 1035)
            self._fail(f"TLS cannot begin with the server name {self._hostname!r}: {exc}")
            return
        if initial:
            self.data_received(initial)
        elif not self._server_side:
            self._shake(b"")

    # The handshake.

    @property
    def handshaking(self) -> bool:
        """Whether the handshake is still under way."""
        return self._state == _HANDSHAKE

    def _shake(self, ciphertext: bytes) -> None:
        records = self._records
        answer = records.shake(ciphertext)
        # Before the inner protocol writes, so that its first write's byte range is that alone. Tickets do not wait for
        # that write: a client with Nagle's algorithm sends its request once its last flight is acknowledged.
        self._send(answer)
        if records.failure:
            self._fail(records.failure)
        elif records.done:
            self.handshake_ns = max(monotonic_ns() - self._started_ns, 1)
            self._opened()

    def _opened(self) -> None:
        self._state = _OPEN
        self._opened_in = self.bytes_in
        self._inner.connection_made(cast("asyncio.Transport", self))
        if self._writing_paused and self._state == _OPEN:
            self._inner.pause_writing()
        if self._records.undelivered and self._state == _OPEN:
            if self._paused:
                self._held.append(b"")  # what the BIO holds is delivered with it
            else:
                self._receive(b"")

    def _fail(self, reason: str) -> None:
        self._state = _CLOSED
        if self._on_failure is not None:
            self._on_failure(reason)
        self._raw.close()

    # What the raw transport tells.

    def data_received(self, data: bytes) -> None:
        """Take ciphertext."""
        self.bytes_in += len(data)
        if self._state == _OPEN:
            if not self._paused and not self._held:
                self._receive(data)
            else:
                self._held.append(data)
                self._catch_up()
        elif self._state == _HANDSHAKE:
            self._shake(data)
        elif self._state == _LINGERING:
            self._inner.data_received(data)

    def eof_received(self) -> bool:
        """Take the end of the raw stream; once open, closing is decided here and not below."""
        if self._state == _HANDSHAKE:
            self._fail("the peer closed the connection during the handshake")
        if self._state != _OPEN:
            return False
        self._raw_eof = True
        if not self._held:
            self._end()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass the loss on, with what was wrong in the TLS stream if something was."""
        if self._state == _HANDSHAKE:
            self._fail(f"the connection was lost during the handshake: {exc or 'closed'}")
        state, self._state = self._state, _LOST
        if self.handshake_ns:
            if state == _OPEN and not self._records.close_notify:
                self.truncated = True
            self._inner.connection_lost(self._records.error or exc)
        # Owner and transport know each other: cut, so that OpenSSL's memory, which no collector sees, goes now.
        self._inner = _NOBODY
        self._on_failure = None

    def pause_writing(self) -> None:
        """Forward the raw transport's backpressure."""
        self._writing_paused = True
        if self.handshake_ns:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Forward the end of it."""
        self._writing_paused = False
        if self.handshake_ns:
            self._inner.resume_writing()

    # From ciphertext to the inner protocol.

    def _receive(self, ciphertext: bytes) -> None:
        records = self._records
        plaintext = records.decrypt(ciphertext)
        answer = records.drain()
        if answer:
            self._send(answer)
            if self._writing_paused and records.error is None:
                self.abort()  # a peer that does not read could demand answers without end
                return
        if plaintext:
            self._inner.data_received(plaintext)
        if records.close_notify or records.error is not None:
            self._end()

    def _catch_up(self) -> None:
        """Deliver what came, and tell what ended, while reading was paused."""
        if self._paused or self._state != _OPEN:
            return
        if self._held:
            ciphertext = b"".join(self._held)
            self._held.clear()
            self._receive(ciphertext)
        if self._raw_eof or self._records.close_notify:
            self._end()

    def _end(self) -> None:
        """The stream has ended, by an error, by close_notify or with the raw stream: tell it once."""
        if self._state != _OPEN:
            return
        if self._records.error is not None:
            self._state = _CLOSED
            self.truncated = not self._records.close_notify
            self._raw.close()  # the alert is sent; connection_lost tells the error
            return
        if self._paused or self._eof_told:
            return
        self._eof_told = True
        self.truncated = not self._records.close_notify
        if not self._inner.eof_received() or self._records.tls.version() == "TLSv1.2":
            self.close()

    # What the inner protocol asks of its transport.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send: one write to the raw transport, whatever the number of records."""
        if self._state == _OPEN and data and not self._notified:
            records = self._records
            self._send(records.encrypt(data))
            if records.error is not None:
                self._end()

    def write_last(self, data: bytes) -> None:
        """Write what is to be followed by `close` or `linger` alone: close_notify goes with it, in the same write."""
        if self._state == _OPEN and not self._notified:
            records = self._records
            ciphertext = records.encrypt(data)
            if records.error is None and not records.waiting:
                self._notified = True
                ciphertext += records.close()
            self._send(ciphertext)
            if records.error is not None:
                self._end()

    def _send(self, ciphertext: bytes) -> None:
        if ciphertext:
            self.bytes_out += len(ciphertext)
            self._raw.write(ciphertext)

    def close(self) -> None:
        """Send close_notify after what was written, then close; does not wait for the peer's (RFC 8446 section 6.1)."""
        self._notify()
        if self._finished():
            self._raw.close()

    def linger(self) -> None:
        """Send close_notify and the end of the raw stream; then pass on what still comes, unopened, only to be counted.

        For a peer that is still sending: a plain close would answer it with a reset, which can destroy what it has not
        read yet. Ends with the raw stream, or by the owner's `close` or `abort`.
        """
        self._notify()
        if self._state == _OPEN:
            self._held.clear()
            self._state = _LINGERING
            if not self._raw.is_closing():
                if self._paused:
                    self._raw.resume_reading()
                self._raw.write_eof()

    def _notify(self) -> None:
        if self._state == _OPEN and not self._notified and not self._raw.is_closing():
            self._notified = True
            self._send(self._records.close())

    def abort(self) -> None:
        """Close at once; nothing more is sent."""
        if self._finished():
            self._raw.abort()

    def _finished(self) -> bool:
        self._held.clear()
        if self._state == _LOST:
            return False  # asyncio's transports raise when they are aborted after their end
        self._state = _CLOSED
        return True

    def is_closing(self) -> bool:
        """Whether the connection is closed or about to be."""
        return self._state >= _CLOSED or self._raw.is_closing()

    def pause_reading(self) -> None:
        """Stop `data_received`; what the raw transport had read by then is held as ciphertext, one read at most."""
        if not self._paused and self._state == _OPEN:
            self._paused = True
            if not self._raw_eof and not self._raw.is_closing():
                self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Go on; what was held is delivered in a later step of the loop."""
        if self._paused and self._state == _OPEN:
            self._paused = False
            if self._held or self._raw_eof or self._records.close_notify:
                asyncio.get_running_loop().call_soon(self._catch_up)
            if not self._raw_eof and not self._raw.is_closing():
                self._raw.resume_reading()

    def is_reading(self) -> bool:
        """Whether `data_received` may be called."""
        return not self._paused and not self.is_closing()

    @property
    def first_in(self) -> int:
        """Where the peer's first plaintext begins among ``bytes_in``, once it has come (client side)."""
        return self._opened_in + self._records.skipped
