"""A real Jaeger with memory storage: OTLP in over both protocols, its query API out."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Self

from tests.real.process import Process, free_ports
from tests.real.tree import Kind, Span, Trace

OTLP_KINDS: Final[tuple[Kind, ...]] = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUSES: Final[tuple[Literal["UNSET", "OK", "ERROR"], ...]] = ("UNSET", "OK", "ERROR")
Protocol = Literal["grpc", "http/protobuf"]
ACCEPTED: Final = "otelcol_receiver_accepted_spans"  # and a suffix, in some versions


class Jaeger:
    """One running Jaeger; every port free and on loopback.

    With ``storage`` False it receives and decodes spans, counts them and forgets them: a collector for load. Storing
    is most of Jaeger's work, and no part of what a proxy's cost is.
    """

    def __init__(self, program: Path, folder: Path, *, storage: bool = True, cpu: int | str | None = None) -> None:
        ports = free_ports(6)
        self.grpc_port, self.http_port, self.query_port, self.metrics_port, *_ = ports
        folder.mkdir(parents=True, exist_ok=True)
        configuration = folder / "jaeger.yaml"
        configuration.write_text(json.dumps(_configuration(ports, storage), indent=2))  # JSON is YAML too
        command = (program, "--config", configuration)
        self.process = Process("jaeger", command, folder / "jaeger.log", cpu=cpu)
        try:
            self.process.expect("Everything is ready", within=60.0)
            self._version3 = storage and self._has_version3()
        except BaseException:
            self.process.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def endpoint(self, protocol: Protocol) -> str:
        """What to give an OTLP exporter of the protocol."""
        return f"http://127.0.0.1:{self.grpc_port if protocol == 'grpc' else self.http_port}"

    def accepted_spans(self) -> int:
        """How many spans its receivers have accepted so far, by its own metrics."""
        text = self._get(f"http://127.0.0.1:{self.metrics_port}/metrics")[1].decode()
        counters = (line.rpartition(" ") for line in text.splitlines())
        return sum(int(float(value)) for name, _, value in counters if name.startswith(ACCEPTED))

    def trace(self, trace_id: str) -> Trace:
        """One trace as it is stored, without Jaeger's adjustments; no spans when it knows none."""
        if self._version3:
            status, body = self._get(f"{self._query}/api/v3/traces/{trace_id}?raw_traces=true")
            found = [] if status == 404 else list(_otlp_spans(json.loads(body)["result"]))
        else:
            status, body = self._get(f"{self._query}/api/traces/{trace_id}?raw=true")
            found = [] if status == 404 else list(_legacy_spans(json.loads(body)["data"]))
        return Trace.of(found, self._resolution)

    def traces(self, service: str, since: datetime, limit: int = 10_000) -> dict[str, Trace]:
        """The traces with a span of ``service`` that started after ``since``, by trace id."""
        if self._version3:
            earliest, latest = _rfc3339(since), _rfc3339(datetime.now(UTC))
            values = {"service_name": service, "start_time_min": earliest, "start_time_max": latest}
            # Newer servers call them serviceName, startTimeMin, startTimeMax and searchDepth.
            values |= {_camel(name): value for name, value in values.items()}
            values |= {"num_traces": str(limit), "searchDepth": str(limit), "raw_traces": "true"}
            query = urllib.parse.urlencode({f"query.{name}": value for name, value in values.items()})
            status, body = self._get(f"{self._query}/api/v3/traces?{query}")
            spans = [] if status == 404 else list(_otlp_spans(json.loads(body)["result"]))
        else:
            microseconds = {"start": int(since.timestamp() * 1e6), "end": time.time_ns() // 1000}
            query = urllib.parse.urlencode({"service": service, "limit": limit, "raw": "true", **microseconds})
            spans = list(_legacy_spans(json.loads(self._get(f"{self._query}/api/traces?{query}")[1])["data"]))
        grouped: dict[str, list[Span]] = defaultdict(list)
        for span in spans:
            grouped[span.trace_id].append(span)
        return {trace_id: Trace.of(group, self._resolution) for trace_id, group in grouped.items()}

    def wait_for_trace(self, trace_id: str, complete: Callable[[Trace], bool], within: float = 20.0) -> Trace:
        """The trace once ``complete`` says so, or as it is after ``within`` seconds: the test's asserts then tell."""
        deadline = time.monotonic() + within
        while True:
            trace = self.trace(trace_id)
            if complete(trace) or time.monotonic() > deadline:
                return trace
            time.sleep(0.1)

    @property
    def _query(self) -> str:
        return f"http://127.0.0.1:{self.query_port}"

    def _has_version3(self) -> bool:
        self.process.until_listening(self.query_port)
        status, body = self._get(f"{self._query}/api/v3/services")
        return status == 200 and body.startswith(b"{")  # without it the UI's page answers every path

    @property
    def _resolution(self) -> int:
        return 0 if self._version3 else 2_000  # nanoseconds: start and duration are each cut to microseconds

    def _get(self, url: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return 404, error.read()
                raise AssertionError(f"{url}: {error.code} {error.read()!r}\n{self.process.tail()}") from error


def _configuration(ports: list[int], storage: bool) -> Mapping[str, Any]:
    grpc, http, query, metrics, query_grpc, health = (f"127.0.0.1:{port}" for port in ports)
    exporter = {"jaeger_storage_exporter": {"trace_storage": "memory"}} if storage else {"nop": None}
    extensions: dict[str, Any] = {"healthcheckv2": {"use_v2": True, "http": {"endpoint": health}}}
    if storage:
        extensions["jaeger_storage"] = {"backends": {"memory": {"memory": {"max_traces": 200_000}}}}
        extensions["jaeger_query"] = {
            "storage": {"traces": "memory"},
            "http": {"endpoint": query},
            "grpc": {"endpoint": query_grpc},
        }
    host, _, port = metrics.rpartition(":")
    reader = {"pull": {"exporter": {"prometheus": {"host": host, "port": int(port)}}}}
    return {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}}}},
        "exporters": exporter,
        "extensions": extensions,
        "service": {
            "extensions": list(extensions),
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": list(exporter)}},
            "telemetry": {"metrics": {"level": "normal", "readers": [reader]}, "logs": {"level": "info"}},
        },
    }


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _otlp_spans(result: Mapping[str, Any]) -> Iterator[Span]:
    """Spans of an OTLP JSON document (/api/v3)."""
    for group in result.get("resourceSpans", ()):
        resource = _otlp_attributes(group.get("resource", {}))
        for scope in group.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield Span(
                    trace_id=span["traceId"],
                    span_id=span["spanId"],
                    parent_id=span.get("parentSpanId", ""),
                    name=span["name"],
                    kind=OTLP_KINDS[span.get("kind", 0)],
                    service=str(resource.get("service.name", "")),
                    start=int(span["startTimeUnixNano"]),
                    end=int(span["endTimeUnixNano"]),
                    status=STATUSES[span.get("status", {}).get("code", 0)],
                    attributes=_otlp_attributes(span),
                    links=tuple((link["traceId"], link["spanId"]) for link in span.get("links", ())),
                )


def _otlp_attributes(owner: Mapping[str, Any]) -> dict[str, Any]:
    return {item["key"]: _otlp_value(item.get("value", {})) for item in owner.get("attributes", ())}


def _otlp_value(value: Mapping[str, Any]) -> Any:
    for kind, content in value.items():  # one at most: a protobuf oneof
        if kind == "intValue":
            return int(content)  # a string, as JSON has no 64-bit integers
        if kind == "arrayValue":
            return [_otlp_value(item) for item in content.get("values", ())]
        return content
    return None


def _legacy_spans(traces: list[Mapping[str, Any]]) -> Iterator[Span]:
    """Spans of Jaeger's own JSON (/api): times in microseconds, kind and status as tags."""
    for trace in traces:
        services = {key: process["serviceName"] for key, process in trace["processes"].items()}
        for span in trace["spans"]:
            tags = {tag["key"]: tag["value"] for tag in span.get("tags", ())}
            parents: list[tuple[str, str]] = []
            links: list[tuple[str, str]] = []
            for reference in span.get("references", ()):
                here = reference["refType"] == "CHILD_OF" and reference["traceID"] == span["traceID"]
                (parents if here else links).append((reference["traceID"], reference["spanID"]))
            yield Span(
                trace_id=span["traceID"],
                span_id=span["spanID"],
                parent_id=parents[0][1] if parents else "",
                name=span["operationName"],
                kind=_kind(str(tags.pop("span.kind", "unspecified"))),
                service=services[span["processID"]],
                start=span["startTime"] * 1000,
                end=(span["startTime"] + span["duration"]) * 1000,
                status=_status(str(tags.pop("otel.status_code", "UNSET"))),
                attributes=tags,
                links=tuple(links),
            )


def _kind(word: str) -> Kind:
    return next((kind for kind in OTLP_KINDS if kind == word.upper()), "UNSPECIFIED")


def _status(word: str) -> Literal["UNSET", "OK", "ERROR"]:
    return next((status for status in STATUSES if status == word), "UNSET")
