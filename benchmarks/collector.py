"""The collector of the measurements: Jaeger without storage or, when it is missing, a gRPC server that counts.

    python -m benchmarks.collector GRPC_PORT COUNT_PORT

serves the OTLP trace service on the first port and, to whoever connects to the second, says how many spans it has.
"""

from __future__ import annotations

import socket
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any, Protocol

from benchmarks.machine import ROOT
from tests.real import parts
from tests.real.jaeger import Jaeger
from tests.real.process import Process, free_ports

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


class Collector(Protocol):
    """Something that receives OTLP over gRPC, and counts."""

    @property
    def name(self) -> str:
        """What it is."""

    @property
    def endpoint(self) -> str:
        """Where it is, as OTEL_EXPORTER_OTLP_ENDPOINT has it."""

    def accepted_spans(self) -> int:
        """How many spans have arrived so far."""

    def stop(self) -> None:
        """End it."""


class JaegerCollector:
    """Jaeger's OTLP receiver: every span is decoded, counted and let go."""

    name = f"Jaeger {parts.JAEGER_VERSION}, OTLP receiver"

    def __init__(self, program: Path, folder: Path, cpu: int) -> None:
        self._jaeger = Jaeger(program, folder, storage=False, cpu=cpu)
        self.endpoint = self._jaeger.endpoint("grpc")

    def accepted_spans(self) -> int:
        """How many spans have arrived so far."""
        return self._jaeger.accepted_spans()

    def stop(self) -> None:
        """End it."""
        self._jaeger.process.stop()


class CountingCollector:
    """A grpcio server in a process of its own that decodes with protobuf and counts."""

    name = "grpcio server, decodes and counts"

    def __init__(self, folder: Path, cpu: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, self._count_port = free_ports(2)
        self.endpoint = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "benchmarks.collector", str(port), str(self._count_port)]
        self._process = Process("collector", command, folder / "collector.log", cwd=ROOT, cpu=cpu)
        self._process.until_listening(self._count_port)

    def accepted_spans(self) -> int:
        """How many spans have arrived so far."""
        with socket.create_connection(("127.0.0.1", self._count_port), timeout=10) as connection:
            return int(connection.makefile("rb").read())

    def stop(self) -> None:
        """End it."""
        self._process.stop()


def start(folder: Path, cpu: int, *, prefer_jaeger: bool = True) -> Collector:
    """Start the best collector there is."""
    program = parts.find("jaeger")
    if prefer_jaeger and program is not None:
        return JaegerCollector(program, folder, cpu)
    return CountingCollector(folder, cpu)


class _Server:
    """The gRPC side and the count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.spans = 0

    def export(self, request: Any, _context: Any) -> Any:
        """One export call."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

        count = sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)
        with self._lock:
            self.spans += count
        return ExportTraceServiceResponse()


def main(arguments: list[str]) -> None:
    """Serve until the process is ended."""
    import grpc
    from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

    port, count_port = (int(argument) for argument in arguments)
    service = _Server()
    handler = grpc.unary_unary_rpc_method_handler(
        service.export,
        request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
        response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
    )
    server = grpc.server(futures.ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    with socket.create_server(("127.0.0.1", count_port)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"%d" % service.spans)


if __name__ == "__main__":
    main(sys.argv[1:])
