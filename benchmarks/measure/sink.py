"""A light OTLP collector that decodes, counts and forgets, but only when it is asked.

    python -m benchmarks.measure.sink GRPC_PORT HTTP_PORT COUNT_PORT [DELAY]

serves the OTLP trace service over gRPC and over HTTP and, to whoever connects to the last port, says how many spans,
bytes and calls it has had, as a JSON list. DELAY (seconds) is how late it answers every call.

It shares a CPU with the load and the upstream, where no other is free. What it does there is done in the place of what
they do, and is paid for by the proxy: a load that is kept waiting sleeps and has to be woken, by the proxy's writes. So
a call is taken in as cheaply as can be, kept as it comes, up to `KEPT` bytes, and decoded when somebody asks for the
counts, which is between two loads. What comes over HTTP is read to where it stays, in memory that is there from the
start: fresh pages, at 80 MB a second, cost more than all the rest.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import re
import sys
import threading
import time
from concurrent import futures
from typing import Any, Final, cast

SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
KEPT: Final = 512 << 20  # bytes: six seconds of 70,000 traced requests a second
CALLS: Final = 8  # over gRPC at a time: a slow collector holds its clients', not its own, bound
HEAD: Final = 16 << 10  # bytes of a call's head over HTTP
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_DONE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


class Counter:
    """Counts what the service receives; ``delay`` (seconds) is how late it answers, ``kept`` the bytes it holds."""

    def __init__(self, delay: float = 0.0, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self.delay: Final = delay
        self._kept: list[bytes | memoryview] = []
        self._memory = memoryview(mmap.mmap(-1, kept, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))
        self._used = self._size = 0  # bytes of the memory that are given away, and bytes of calls to decode
        self._open = 0  # calls that have room and are not whole
        self.spans = self.bytes = self.calls = 0

    def __repr__(self) -> str:
        return f"Counter({self.spans} spans, {self.bytes} bytes, {self.calls} calls, {len(self._kept)} to decode)"

    def room(self, size: int) -> memoryview:
        """Where a call of ``size`` bytes is to go: `take` it once it is whole, or `leave` it."""
        with self._lock:
            if self._used + size > len(self._memory):
                self._decode()
            self._open += 1
            if self._used + size > len(self._memory):
                return memoryview(bytearray(size))
            self._used += size
            return self._memory[self._used - size : self._used]

    def leave(self) -> None:
        """A call that had room will not be whole."""
        with self._lock:
            self._open -= 1

    def take(self, call: bytes | memoryview) -> None:
        """One export request, still encoded."""
        with self._lock:
            self._open -= isinstance(call, memoryview)
            self._kept.append(call)
            self._size += len(call)
            self.bytes += len(call)
            self.calls += 1
            if self._size > len(self._memory):
                self._decode()

    def export(self, request: bytes, _context: Any) -> Any:
        """One call over gRPC."""
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        if self.delay:
            time.sleep(self.delay)
        self.take(request)
        return trace_service_pb2.ExportTraceServiceResponse()

    def counts(self) -> list[int]:
        """Spans, bytes, calls."""
        with self._lock:
            self._decode()
            return [self.spans, self.bytes, self.calls]

    def _decode(self) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        kept, self._kept, self._size = self._kept, [], 0
        for call in kept:
            decoded = trace_service_pb2.ExportTraceServiceRequest.FromString(bytes(call))
            self.spans += sum(len(scope.spans) for resource in decoded.resource_spans for scope in resource.scope_spans)
        if not self._open:
            self._used = 0


class Http(asyncio.BufferedProtocol):
    """One connection of a client over HTTP/1.1 that sends one call at a time and says how long it is."""

    def __init__(self, counter: Counter) -> None:
        self._counter: Final = counter
        self._transport: asyncio.WriteTransport | None = None
        self._head = memoryview(bytearray(HEAD))
        self._body: memoryview | None = None  # None while the head is incomplete
        self._size = 0  # bytes that have come of either

    def __repr__(self) -> str:
        return f"Http({self._size} bytes of the {'head' if self._body is None else 'body'}, {self._counter!r})"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.WriteTransport", transport)  # a TCP server's

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Give up what was under way."""
        if self._body is not None:
            self._counter.leave()

    def get_buffer(self, _hint: int) -> memoryview:
        """Room for what is missing of the call."""
        return (self._head if self._body is None else self._body)[self._size :]

    def buffer_updated(self, count: int) -> None:
        """Bytes have come."""
        self._size += count
        if self._body is None and not self._begin():
            return
        body = self._body
        if body is None or self._size < len(body):
            return
        self._body, self._size = None, 0
        loop = asyncio.get_running_loop()
        loop.call_later(self._counter.delay, self._answer) if self._counter.delay else self._answer()
        self._counter.take(body)

    def _begin(self) -> bool:
        """Make room for the body, once the head is there; ends the connection where it says no length."""
        head = bytes(self._head[: self._size])
        end = head.find(b"\r\n\r\n")
        length = _LENGTH.search(head, 0, end + 2) if end >= 0 else None
        if length is None:
            if (end >= 0 or self._size == HEAD) and self._transport is not None:
                self._transport.abort()
            return False
        came = head[end + 4 :]
        self._body = self._counter.room(int(length[1]))
        self._body[: len(came)] = came
        self._size = len(came)
        return True

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_DONE)


async def serve(counter: Counter, http_port: int, count_port: int) -> None:
    """Serve over HTTP, and the counts, until cancelled."""

    async def tell(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps(counter.counts()).encode())
        writer.close()

    loop = asyncio.get_running_loop()
    async with (
        await loop.create_server(lambda: Http(counter), "127.0.0.1", http_port) as calls,
        await asyncio.start_server(tell, "127.0.0.1", count_port),
    ):
        await calls.serve_forever()


def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    import grpc
    import uvloop

    grpc_port, http_port, count_port = map(int, arguments[:3])
    counter = Counter(float(arguments[3]) if len(arguments) > 3 else 0.0)
    handler = grpc.unary_unary_rpc_method_handler(
        counter.export, response_serializer=lambda response: response.SerializeToString()
    )
    server = grpc.server(futures.ThreadPoolExecutor(CALLS), options=[("grpc.max_receive_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    uvloop.run(serve(counter, http_port, count_port))


if __name__ == "__main__":
    main(sys.argv[1:])
