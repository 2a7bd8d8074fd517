"""A light OTLP collector that decodes, counts and forgets, but only when it is asked.

    python -m benchmarks.measure.sink GRPC_PORT COUNT_PORT [DELAY]

serves the OTLP trace service on the first port and, to whoever connects to the second, says how many spans, bytes and
calls it has had, as a JSON list. DELAY (seconds) is how late it answers every call.

It shares a CPU with the load and the upstream. To decode a thousand spans takes milliseconds in which, on a kernel with
lazy preemption, neither of them runs, and requests would wait for the collector. So calls are kept as they come, up to
`KEPT` bytes, and decoded when somebody asks for the counts, which is between two loads.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from concurrent import futures
from typing import Any, Final

SERVICE: Final = "opentelemetry.proto.collector.trace.v1.TraceService"
KEPT: Final = 1 << 30  # bytes: a minute of 15,000 traced requests a second
CALLS: Final = 8  # at a time: a slow collector holds its clients', not its own, bound


class Counter:
    """Counts what the service receives."""

    def __init__(self, delay: float = 0.0) -> None:
        self._lock = threading.Lock()
        self._delay = delay
        self._kept: list[bytes] = []
        self._size = 0
        self.spans = self.bytes = self.calls = 0

    def __repr__(self) -> str:
        return f"Counter({self.spans} spans, {self.bytes} bytes, {self.calls} calls, {len(self._kept)} to decode)"

    def export(self, request: bytes, _context: Any) -> Any:
        """One export call, its message still encoded."""
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        if self._delay:
            time.sleep(self._delay)
        with self._lock:
            self._kept.append(request)
            self._size += len(request)
            self.bytes += len(request)
            self.calls += 1
            if self._size > KEPT:
                self._decode()
        return trace_service_pb2.ExportTraceServiceResponse()

    def counts(self) -> list[int]:
        """Spans, bytes, calls."""
        with self._lock:
            self._decode()
            return [self.spans, self.bytes, self.calls]

    def _decode(self) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

        kept, self._kept, self._size = self._kept, [], 0
        for request in kept:
            decoded = trace_service_pb2.ExportTraceServiceRequest.FromString(request)
            self.spans += sum(len(scope.spans) for resource in decoded.resource_spans for scope in resource.scope_spans)


def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    import grpc

    port, count_port = int(arguments[0]), int(arguments[1])
    counter = Counter(float(arguments[2]) if len(arguments) > 2 else 0.0)
    handler = grpc.unary_unary_rpc_method_handler(
        counter.export, response_serializer=lambda response: response.SerializeToString()
    )
    server = grpc.server(futures.ThreadPoolExecutor(CALLS), options=[("grpc.max_receive_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    with socket.create_server(("127.0.0.1", count_port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(json.dumps(counter.counts()).encode())


if __name__ == "__main__":
    main(sys.argv[1:])
