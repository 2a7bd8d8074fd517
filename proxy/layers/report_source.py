"""Where a report's spans come from: a file that an OpenTelemetry Collector wrote, or a proxy's recent traces.

The collector's file exporter writes OTLP/JSON, one export request per line, or with ``format: proto`` requests behind a
4-byte big-endian length each; one request alone as protobuf is read too.
"""

from __future__ import annotations

import json
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy.errors import SettingsError
from proxy.saying import say
from proxy.settings import MIB
from proxy.trace import otlp_json
from proxy.trace.view import SpanView, decode

LARGEST: Final = 1024 * MIB  # of a file
_LENGTH: Final = struct.Struct(">I")
_TRACES: Final = 1000  # most that an admin page lists
_TIMEOUT: Final = 10.0  # seconds for a page


def from_file(path: Path) -> list[SpanView]:
    """The spans of a file. Raises `SettingsError` for one that cannot be read, with the line where there are lines."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise SettingsError(
                f"--from: '{path}' has {size / MIB:.0f} MiB, and {LARGEST // MIB} are the most; split it"
            )
        data = path.read_bytes()
    except OSError as problem:
        raise SettingsError(f"--from: '{path}' cannot be read: {problem.strerror}") from None
    if data.lstrip()[:1] == b"{":
        return decode(_lines(path, data))
    return decode(_messages(path, data))


def _lines(path: Path, data: bytes) -> Iterator[bytes]:
    lines = data.splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield otlp_json.parse(line).SerializeToString()
        except ValueError as problem:
            if number == len(lines) and not data.endswith(b"\n"):
                return  # still being written
            if number == 1:  # or one document over many lines
                try:
                    yield otlp_json.parse(data).SerializeToString()
                except ValueError:
                    pass
                else:
                    return
            raise SettingsError(
                f"--from: {path}:{number}: {problem}; a line is an OTLP/JSON export request, as the Collector's file "
                "exporter writes it"
            ) from None


def _messages(path: Path, data: bytes) -> Iterator[bytes]:
    found: list[bytes] = []
    at = 0
    while at + _LENGTH.size <= len(data):
        (size,) = _LENGTH.unpack_from(data, at)
        if not size or at + _LENGTH.size + size > len(data):
            break
        found.append(data[at + _LENGTH.size : at + _LENGTH.size + size])
        at += _LENGTH.size + size
    # What is behind the last whole message is still being written.
    for messages in (found, [data]):
        if messages and all(map(_is_request, messages)):
            yield from messages
            return
    raise SettingsError(
        f"--from: '{path}' is neither OTLP/JSON nor OTLP protobuf; name a file of the Collector's file exporter"
    )


def _is_request(data: bytes) -> bool:
    try:
        return bool(ExportTraceServiceRequest.FromString(data).resource_spans)
    except DecodeError:
        return False


def from_admin(url: str, seconds: float) -> list[SpanView]:
    """The spans of a proxy's traces that began in the last ``seconds``, as far as it still has them.

    They have those of `spanway wire` where it sends them there (POST /v1/traces). Raises `SettingsError`.
    """
    since = time.time_ns() - int(seconds * 1e9)
    listed = _page(f"{url.rstrip('/')}/traces?limit={_TRACES}").get("traces", [])
    spans: list[SpanView] = []
    oldest = min((int(summary["start_ns"]) for summary in listed), default=0)
    if len(listed) >= _TRACES and oldest > since:
        say(
            f"of the time asked for, the latest {_TRACES:,} traces are read: {(time.time_ns() - oldest) / 1e9:.0f} s. "
            "For more, have a Collector write a file and read it with --from"
        )
    for summary in listed:
        if int(summary["start_ns"]) < since:
            continue
        try:
            trace = _page(f"{url.rstrip('/')}/traces/{summary['trace_id']}")
        except _GoneError:
            continue  # pushed out by newer ones meanwhile
        spans += [_span(trace, each) for each in trace["spans"]]
    return spans


class _GoneError(SettingsError):
    """A page that is no longer there."""


def _page(url: str) -> dict[str, Any]:
    try:
        request = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310 - the user's own
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as reply:  # noqa: S310
            document: dict[str, Any] = json.load(reply)
            return document
    except urllib.error.HTTPError as problem:
        with problem:
            kind = _GoneError if problem.code == 404 else SettingsError
            raise kind(f"--admin: {url} answered {problem.code}; name the admin address of a proxy") from None
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "reason", problem)
        raise SettingsError(f"--admin: {url} cannot be read: {reason}; name the admin address of a proxy") from None


def _span(trace: dict[str, Any], document: dict[str, Any]) -> SpanView:
    """A span of the admin's page; what a report does not look at is left out."""
    return SpanView(
        trace_id=trace["trace_id"],
        span_id=document["span_id"],
        parent_id=document["parent_id"],
        name=document["name"],
        kind=document["kind"],
        service=document["service"],
        start_ns=int(document["start_ns"]),
        end_ns=int(document["end_ns"]),
        status=document["status"],
        status_message=document["status_message"],
        attributes=document["attributes"],
        events=[],
        links=[],
        scope=document["scope"],
        trace_state=document["trace_state"],
        resource={},
    )
