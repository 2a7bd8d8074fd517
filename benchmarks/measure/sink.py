"""A light OTLP collector that decodes, counts and forgets, but only when it is asked.

    python -m benchmarks.measure.sink GRPC_PORT HTTP_PORT COUNT_PORT [DELAY]

serves the OTLP trace service over gRPC and over HTTP and, to whoever connects to the last port, says how many spans,
bytes and calls it has had, as a JSON list. DELAY (seconds) is how late it answers every call.

It shares a CPU with the load and the upstream, where no other is free. What it does there is done in the place of what
they do, and is paid for by the proxy: a load that is kept waiting sleeps and has to be woken, by the proxy's writes. So
a call is taken in as cheaply as can be, kept as it comes, up to `KEPT` bytes, and decoded when somebody asks for the
counts, which is between two loads.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
import time
from concurrent import futures
from typing import Any, Final, cast

SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
KEPT: Final = 1 << 30  # bytes: a minute of 15,000 traced requests a second
CALLS: Final = 8  # over gRPC at a time: a slow collector holds its clients', not its own, bound
HEAD: Final = 16 << 10  # bytes of a call's head over HTTP
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_DONE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"


class Counter:
    """Counts what the service receives; ``delay`` (seconds) is how late it answers."""

    def __init__(self, delay: float = 0.0) -> None:
        self._lock = threading.Lock()
        self.delay: Final = delay
        self._kept: list[tuple[bytes | bytearray, int]] = []
        self._size = 0
        self.spans = self.bytes = self.calls = 0

    def __repr__(self) -> str:
        return f"Counter({self.spans} spans, {self.bytes} bytes, {self.calls} calls, {len(self._kept)} to decode)"

    def take(self, call: bytes | bytearray, at: int = 0) -> None:
        """One export request, still encoded: what there is of ``call`` from ``at`` on."""
        with self._lock:
            self._kept.append((call, at))
            self._size += len(call)
            self.bytes += len(call) - at
            self.calls += 1
            if self._size > KEPT:
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
        for call, at in kept:
            decoded = trace_service_pb2.ExportTraceServiceRequest.FromString(bytes(memoryview(call)[at:]))
            self.spans += sum(len(scope.spans) for resource in decoded.resource_spans for scope in resource.scope_spans)


class Http(asyncio.BufferedProtocol):
    """One connection of a client over HTTP/1.1 that sends one call at a time and says how long it is.

    The bytes of a call are read to where they stay: what is taken in here is not copied.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter: Final = counter
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = bytearray(HEAD)
        self._size = 0  # bytes of it that are in use
        self._body = -1  # where the body begins, -1 while the head is incomplete

    def __repr__(self) -> str:
        return f"Http({self._size} of {len(self._buffer)} bytes, {self._counter!r})"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.WriteTransport", transport)  # a TCP server's

    def get_buffer(self, _hint: int) -> memoryview:
        """Room for what is missing of the call."""
        return memoryview(self._buffer)[self._size :]

    def buffer_updated(self, count: int) -> None:
        """Bytes have come."""
        self._size += count
        if self._body < 0 and not self._head():
            return
        if self._size < len(self._buffer):
            return
        call, at = self._buffer, self._body
        self._buffer, self._size, self._body = bytearray(HEAD), 0, -1
        loop = asyncio.get_running_loop()
        loop.call_later(self._counter.delay, self._answer) if self._counter.delay else self._answer()
        self._counter.take(call, at)

    def _head(self) -> bool:
        """Make room for the body, once the head is there; ends the connection where it says no length."""
        end = self._buffer.find(b"\r\n\r\n", 0, self._size)
        length = _LENGTH.search(self._buffer, 0, end + 2) if end >= 0 else None
        if length is None:
            if (end >= 0 or self._size == HEAD) and self._transport is not None:
                self._transport.abort()
            return False
        self._body = end + 4
        whole = bytearray(self._body + int(length[1]))
        whole[: self._size] = memoryview(self._buffer)[: self._size]
        self._buffer = whole
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
