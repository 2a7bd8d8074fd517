"""Collectors that misbehave on purpose: one speaks OTLP/gRPC, one OTLP/HTTP, one is a transport without a network.

Each answers calls from a script, one entry per call, and with success once the script is used up. A script's entry may
hold a call until the test lets it go, so that no test depends on time.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from proxy.trace.batch import Body, whole
from proxy.trace.transport import Outcome

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"


def partial(rejected: int, message: str = "") -> bytes:
    """An answer that refuses some spans."""
    return ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    ).SerializeToString()


def status_details(*details: Any, message: str = "busy") -> bytes:
    """A ``google.rpc.Status`` with packed details."""
    status = Status(code=8, message=message)
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status.SerializeToString()


def retry_info(seconds: float) -> RetryInfo:
    """A RetryInfo that asks for ``seconds``."""
    return RetryInfo(retry_delay=Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9)))


class Gate:
    """Holds a call: the collector waits in `pass_through`, the test learns of it and opens."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        """Wait until the test opens, or gives up."""
        self.reached.set()
        self.opened.wait(30)


@dataclass
class Failure:
    """A gRPC status with trailing metadata."""

    code: grpc.StatusCode
    details: str = ""
    trailers: Sequence[tuple[str, bytes]] = ()


GrpcStep = bytes | Failure | Gate


class GrpcCollector:
    """A real grpcio server; ``requests`` are the export requests it took in, decoded."""

    def __init__(self, *script: GrpcStep, port: int = 0, credentials: grpc.ServerCredentials | None = None) -> None:
        self.script = deque(script)
        self.requests: list[ExportTraceServiceRequest] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self._gates: list[Gate] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(4), options=(("grpc.so_reuseport", 0),))
        handler = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": handler}),))
        address = f"127.0.0.1:{port}"
        if credentials is None:
            self.port = self._server.add_insecure_port(address)
        else:
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _export(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        self.requests.append(ExportTraceServiceRequest.FromString(body))
        self.metadata.append(dict(context.invocation_metadata()))
        step = self.script.popleft() if self.script else b""
        if isinstance(step, Gate):
            self._gates.append(step)
            step.pass_through()
            return b""
        if isinstance(step, Failure):
            context.set_trailing_metadata(tuple(step.trailers))
            context.abort(step.code, step.details)  # raises
            raise AssertionError
        return step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self._gates:
            gate.opened.set()
        self._server.stop(None).wait()


@dataclass
class Answer:
    """An HTTP answer, or with ``cut`` the connection's end after that many bytes of it."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    raw: bytes | None = None
    close: bool = False
    gate: Gate | None = None

    def encode(self) -> bytes:
        if self.raw is not None:
            return self.raw
        fields = {"Content-Type": "application/x-protobuf", "Content-Length": str(len(self.body)), **self.headers}
        head = f"HTTP/1.1 {self.status} Whatever\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
        return head.encode() + b"\r\n" + self.body


@dataclass
class HttpRequest:
    """What the HTTP collector was sent."""

    target: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def message(self) -> ExportTraceServiceRequest:
        body = gzip.decompress(self.body) if self.headers.get("content-encoding") == "gzip" else self.body
        return ExportTraceServiceRequest.FromString(body)


class HttpCollector:
    """An HTTP/1.1 server on a raw socket, so that it can misbehave to the byte."""

    def __init__(self, *script: Answer, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.script = deque(script)
        self.requests: list[HttpRequest] = []
        self.connections = 0
        self._tls = tls
        self._gates: list[Gate] = []
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            if self._tls is not None:
                plain = connection
                connection = self._tls.wrap_socket(plain, server_side=True)
                self._open.discard(plain)
                self._open.add(connection)
            with connection, connection.makefile("rb") as stream:
                while self._one(connection, stream, number):
                    pass
        except (OSError, ValueError):
            pass
        finally:
            connection.close()
            self._open.discard(connection)

    def _one(self, connection: socket.socket, stream: Any, number: int) -> bool:
        line = stream.readline()
        if not line.endswith(b" HTTP/1.1\r\n"):
            if line:
                connection.sendall(b"HTTP/1.1 505 Other Protocol\r\nConnection: close\r\n\r\n")
            return False
        headers: dict[str, str] = {}
        while (field_line := stream.readline().strip()) != b"":
            name, _, value = field_line.decode().partition(":")
            assert name.lower() not in headers, f"{name} came twice"
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers.get("content-length", "0")))
        self.requests.append(HttpRequest(line.split()[1].decode(), headers, body, number))
        answer = self.script.popleft() if self.script else Answer()
        if answer.gate is not None:
            self._gates.append(answer.gate)
            answer.gate.pass_through()
        data = answer.encode()
        if answer.cut is not None:
            connection.sendall(data[: answer.cut])
            return False
        connection.sendall(data)
        return not answer.close

    def hang_up(self) -> None:
        """Close every connection, keep listening."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self._threads:
            thread.join(10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for gate in self._gates:
            gate.opened.set()
        # shutdown wakes the accepting thread; close alone does not on Linux.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(10)
        self.hang_up()


Step = Outcome | BaseException | Gate | Callable[[bytes], Outcome]

ACCEPTED = Outcome("accepted", "OK")
BUSY = Outcome("retry", "503")
REFUSED = Outcome("refused", "400", text="bad span")


class ScriptedTransport:
    """A transport without a network; ``bodies`` are what was sent, probes (empty) apart."""

    endpoint = "http://collector.test:4317"
    protocol = "grpc"

    def __init__(self, *script: Step, otherwise: Step = ACCEPTED) -> None:
        self.script = deque(script)
        self.otherwise = otherwise
        self.bodies: list[bytes] = []
        self.timeouts: list[float] = []
        self.probes = 0
        self.probe_step: Step = ACCEPTED
        self.closed = threading.Event()
        self.aborted = threading.Event()
        self._gates: list[Gate] = []

    def send(self, body: Body, timeout: float) -> Outcome:
        body = whole(body)
        if not body:
            self.probes += 1
            return self._play(self.probe_step, body)
        self.bodies.append(body)
        self.timeouts.append(timeout)
        return self._play(self.script.popleft() if self.script else self.otherwise, body)

    def _play(self, step: Step, body: bytes) -> Outcome:
        if isinstance(step, Gate):
            self._gates.append(step)
            if self.aborted.is_set():
                step.opened.set()
            step.pass_through()
            return Outcome("retry", "CANCELLED") if self.aborted.is_set() else ACCEPTED
        if isinstance(step, BaseException):
            raise step
        return step if isinstance(step, Outcome) else step(body)

    def abort(self) -> None:
        self.aborted.set()
        for gate in self._gates:
            gate.opened.set()

    def close(self) -> None:
        self.closed.set()


def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def never(*_: object) -> NoReturn:
    """For what must not be called."""
    raise AssertionError("called")
