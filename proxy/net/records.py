"""The TLS of one connection as bytes in and bytes out, without a socket: OpenSSL between two memory BIOs.

RFC 8446 (TLS 1.3), RFC 5246 (TLS 1.2).
"""

from __future__ import annotations

import ssl
from typing import Final

# A record holds at most 16 KiB of plaintext (RFC 8446 section 5.1), so one read of this size empties it. Not more
# than that goes through a BIO at a time either: a BIO never gives memory back, so what it once held is what an idle
# connection keeps.
_RECORD: Final = 16 * 1024
_HEADER: Final = 5  # bytes of a record's type, version and length
_LONGEST: Final = _HEADER + _RECORD + 2048  # TLS 1.2; TLS 1.3 allows 256 bytes beside the plaintext


class ServerObject(ssl.SSLObject):
    """The server's side of a connection, which remembers the name that the client asked for (RFC 6066 section 3).

    A context whose ``sslobject_class`` this is must set ``requested_name`` in its ``sni_callback``.
    """

    requested_name: str = ""


class Records:
    """One side of one TLS connection.

    ``done`` says that the handshake is, ``failure`` why it was not. ``close_notify`` says that the peer has ended its
    stream, ``error`` what broke it afterwards. Whatever must go to the peer is returned, or waits for `drain`.

    ``skipped`` (client side) is how many bytes of ciphertext came between the handshake and the first record with
    plaintext: with TLS 1.3 the server's tickets (RFC 8446 section 4.6.1).
    """

    __slots__ = (
        "_backlog",
        "_early",
        "_incoming",
        "_outgoing",
        "close_notify",
        "done",
        "error",
        "failure",
        "skipped",
        "tls",
    )

    def __init__(
        self,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        """Prepare a handshake. Raises ValueError for a name that cannot be asked for."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname, session)
        self._early = None if server_side else b""  # ciphertext before the first plaintext, less than a record
        self.skipped = 0
        self._backlog = b""  # plaintext that waits for the end of a renegotiation
        self.done = False
        self.failure = ""
        self.close_notify = False
        self.error: ssl.SSLError | None = None

    def __repr__(self) -> str:
        state = self.failure or str(self.error or "") or ("done" if self.done else "handshake")
        return f"<Records {state} {self.tls.version()} close_notify={self.close_notify}>"

    def shake(self, ciphertext: bytes) -> bytes:
        """Go on with the handshake; returns what to send, also when it failed (the alert)."""
        self._incoming.write(ciphertext)
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            pass  # the peer's turn
        except ssl.SSLError as exc:
            self.failure = _reason(exc)
        else:
            self.done = True
        return self._outgoing.read()

    @property
    def undelivered(self) -> bool:
        """Whether ciphertext came together with the end of the handshake."""
        return self._incoming.pending > 0

    def decrypt(self, ciphertext: bytes) -> bytes:
        """All plaintext that has become complete; sets ``close_notify`` or ``error`` where the stream ends."""
        if self.close_notify or self.error is not None:
            return b""
        if self._early is not None:
            return self._first(self._early + ciphertext)
        incoming, tls = self._incoming, self.tls
        pieces: list[bytes] = []
        try:
            for start in range(0, len(ciphertext) or 1, _RECORD):
                incoming.write(ciphertext if len(ciphertext) <= _RECORD else ciphertext[start : start + _RECORD])
                while incoming.pending:
                    try:
                        piece = tls.read(_RECORD)
                    except ssl.SSLWantReadError:
                        break  # an incomplete record, or one that was not for the application
                    if not piece:
                        raise ssl.SSLZeroReturnError
                    pieces.append(piece)
        except ssl.SSLZeroReturnError:
            self.close_notify = True
        except ssl.SSLError as exc:
            self.error = exc.with_traceback(None)  # whose frames would hold this: a cycle
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _first(self, ciphertext: bytes) -> bytes:
        """`decrypt` record by record, until one holds plaintext; less than a record waits here for the rest."""
        self._early = None
        if self._incoming.pending:
            return self.decrypt(ciphertext)  # some came with the handshake's end: no telling where a record begins
        while len(ciphertext) >= _HEADER:
            size = _HEADER + int.from_bytes(ciphertext[3:_HEADER], "big")
            if size > _LONGEST:
                return self.decrypt(ciphertext)  # which will say that it is broken
            if len(ciphertext) < size:
                break
            plaintext = self.decrypt(ciphertext[:size])
            ciphertext = ciphertext[size:]
            if plaintext or self.close_notify or self.error is not None:
                return plaintext + self.decrypt(ciphertext) if ciphertext else plaintext
            self.skipped += size
        self._early = ciphertext
        return b""

    def encrypt(self, plaintext: bytes | bytearray | memoryview) -> bytes:
        """The records for some plaintext, with whatever else waited to be sent.

        Empty while a renegotiation of the peer's is under way: the plaintext then waits, and leaves with `drain`.
        """
        if self._backlog:
            self._backlog += plaintext
            return b""
        tls, outgoing = self.tls, self._outgoing
        size = len(plaintext)
        start = 0
        pieces: list[bytes] = []
        try:
            if size <= _RECORD:
                tls.write(plaintext)
                return outgoing.read()
            view = memoryview(plaintext)
            for start in range(0, size, _RECORD):
                tls.write(view[start : start + _RECORD])  # all of it, or none
                pieces.append(outgoing.read())
        except ssl.SSLWantReadError:
            self._backlog = bytes(plaintext[start:])
        except ssl.SSLError as exc:
            self.error = exc.with_traceback(None)  # whose frames would hold this: a cycle
        pieces.append(outgoing.read())
        return b"".join(pieces)

    def drain(self) -> bytes:
        """What waits to be sent: answers to the peer's handshake messages, alerts, plaintext that had to wait."""
        if self._backlog:
            backlog, self._backlog = self._backlog, b""
            return self.encrypt(backlog)
        return self._outgoing.read() if self._outgoing.pending else b""

    @property
    def waiting(self) -> int:
        """Bytes of plaintext that wait for a renegotiation."""
        return len(self._backlog)

    def info(self, name: str) -> object:
        """What asyncio calls ``ssl_object``, ``sslcontext``, ``cipher`` or ``peercert``; None for any other."""
        if name == "ssl_object":
            return self.tls
        if name == "sslcontext":
            return self.tls.context
        if name == "cipher":
            return self.tls.cipher()
        if name == "peercert":
            return self.tls.getpeercert()
        return None

    def close(self) -> bytes:
        """Our close_notify, after what waited."""
        try:  # noqa: SIM105 - `suppress` is an object and two calls
            self.tls.unwrap()
        except ssl.SSLError:
            pass  # the peer's close_notify has not come, or data stands before it; ours is written all the same
        return self._outgoing.read()


def _reason(exc: ssl.SSLError) -> str:
    """OpenSSL's reason in plain words, without its source file and line."""
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"the certificate was not accepted: {exc.verify_message}"
    return (exc.reason or str(exc)).replace("_", " ").lower()
