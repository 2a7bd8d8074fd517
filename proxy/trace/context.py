"""Which trace a request belongs to: reading a caller's context, and writing the proxy's own for the upstream.

`OTEL_PROPAGATORS` lists the formats. The first listed one with a valid context is believed, and every listed one is
written. A format that is not listed is neither; what a trusted peer sent in it passes on (`Propagation.others`).

Flags are W3C trace flags, with `DEBUG` above them for what Jaeger and B3 call debug; every format is written from
them. What becomes of a context, by trust and sampling, is `trace.begin`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from proxy.errors import SettingsError
from proxy.trace import b3, jaeger, w3c
from proxy.trace.lines import default_lines

SAMPLED: Final = w3c.SAMPLED
DEBUG: Final = 0x100
"""Sample whatever samplers say: beyond the eight W3C flags, never in a ``traceparent`` or a span."""

_FLAGS: Final = 0x1FF  # the W3C flags and DEBUG

_B3_FIELDS: Final = frozenset(
    (b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags")
)
_FORMAT_FIELDS: Final[dict[str, frozenset[bytes]]] = {
    "tracecontext": frozenset((b"traceparent", b"tracestate")),
    "baggage": frozenset(),  # passes through as an ordinary field
    "jaeger": frozenset((b"uber-trace-id", b"jaeger-debug-id")),
    "b3": _B3_FIELDS,
    "b3multi": _B3_FIELDS,
    "none": frozenset(),
}
FORMATS: Final = tuple(_FORMAT_FIELDS)
"""What `OTEL_PROPAGATORS` may list."""

FIELDS: Final[frozenset[bytes]] = frozenset((b"jaeger-baggage",)).union(*_FORMAT_FIELDS.values())
"""Every header, in lower case, that the proxy takes out of a request before it forwards it."""

Fields = Mapping[bytes, bytes]
"""A request's fields by name in lower case, repeated ones joined by ", ". Those not in `FIELDS` are not looked at."""


class RemoteContext:
    """What a caller sent. Without ids (both b"") it is a decision alone; ``sampled`` None is ids without a decision."""

    __slots__ = ("flags", "format", "sampled", "span_id", "trace_id", "tracestate")

    def __init__(
        self, trace_id: bytes, span_id: bytes, flags: int, tracestate: bytes, sampled: bool | None, name: str
    ) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.tracestate = tracestate
        self.sampled = sampled
        self.format = name

    def __repr__(self) -> str:
        return f"RemoteContext({self.trace_id.hex()}-{self.span_id.hex()}-{self.flags:02x}, {self.format})"


def _read_tracecontext(fields: Fields) -> RemoteContext | None:
    value = fields.get(b"traceparent")
    if value is None:
        return None
    context = w3c.parse_traceparent(value)
    if context is None:
        return None
    trace_id, span_id, flags = context
    tracestate = w3c.parse_tracestate(fields.get(b"tracestate", b""))
    return RemoteContext(trace_id, span_id, flags, tracestate, bool(flags & w3c.SAMPLED), "tracecontext")


def _read_jaeger(fields: Fields) -> RemoteContext | None:
    value = fields.get(b"uber-trace-id")
    context = None if value is None else jaeger.parse(value)
    if context is None:
        if fields.get(b"jaeger-debug-id"):
            return RemoteContext(b"", b"", SAMPLED | DEBUG, b"", True, "jaeger")
        return None
    trace_id, span_id, theirs = context
    flags = SAMPLED | DEBUG if theirs & jaeger.DEBUG else theirs & jaeger.SAMPLED
    return RemoteContext(trace_id, span_id, flags, b"", bool(flags), "jaeger")


_B3_FLAGS: Final = {b3.DENY: 0, b3.ACCEPT: SAMPLED, b3.DEBUG: SAMPLED | DEBUG, b3.DEFER: 0}


def _read_b3(fields: Fields) -> RemoteContext | None:
    """Either form, whichever is to be written; the single header first (OpenTelemetry, Propagators API, B3 Extract)."""
    value = fields.get(b"b3")
    context = None if value is None else b3.parse_single(value)
    name = "b3"
    if context is None:
        get = fields.get
        context = b3.parse_multi(
            get(b"x-b3-traceid", b""),
            get(b"x-b3-spanid", b""),
            get(b"x-b3-parentspanid", b""),
            get(b"x-b3-sampled", b""),
            get(b"x-b3-flags", b""),
        )
        name = "b3multi"
    if context is None:
        return None
    trace_id, span_id, decision = context
    sampled = None if decision == b3.DEFER else decision != b3.DENY
    return RemoteContext(trace_id, span_id, _B3_FLAGS[decision], b"", sampled, name)


_Reader = Callable[[Fields], RemoteContext | None]
_B3_PROBES: Final[tuple[tuple[bytes, _Reader], ...]] = (
    (b"b3", _read_b3),
    (b"x-b3-traceid", _read_b3),
    (b"x-b3-sampled", _read_b3),
    (b"x-b3-flags", _read_b3),
)
# A field that a context cannot do without, and what reads that context.
_PROBES: Final[dict[str, tuple[tuple[bytes, _Reader], ...]]] = {
    "tracecontext": ((b"traceparent", _read_tracecontext),),
    "jaeger": ((b"uber-trace-id", _read_jaeger), (b"jaeger-debug-id", _read_jaeger)),
    "b3": _B3_PROBES,
    "b3multi": _B3_PROBES,
}

# Writing. Each writer returns header lines.

Writer = Callable[[bytes, bytes, int, bytes], bytes]
"""(trace id, span id, flags, tracestate) to header lines, each ending in CRLF."""


def _decision(flags: int) -> int:
    return b3.DEBUG if flags & DEBUG else flags & SAMPLED


def _write_tracecontext(trace_id: bytes, span_id: bytes, flags: int, tracestate: bytes) -> bytes:
    lines = b"traceparent: " + w3c.format_traceparent(trace_id, span_id, flags) + b"\r\n"
    return b"".join((lines, b"tracestate: ", tracestate, b"\r\n")) if tracestate else lines


def _write_jaeger(trace_id: bytes, span_id: bytes, flags: int, _: bytes) -> bytes:
    theirs = jaeger.SAMPLED | jaeger.DEBUG if flags & DEBUG else flags & SAMPLED
    return b"uber-trace-id: " + jaeger.format_context(trace_id, span_id, theirs) + b"\r\n"


def _write_b3(trace_id: bytes, span_id: bytes, flags: int, _: bytes) -> bytes:
    return b"b3: " + b3.format_single(trace_id, span_id, _decision(flags)) + b"\r\n"


def _write_b3multi(trace_id: bytes, span_id: bytes, flags: int, _: bytes) -> bytes:
    return _lines(b3.format_multi(trace_id, span_id, _decision(flags)))


_WRITERS: Final[dict[str, Writer]] = {
    "tracecontext": _write_tracecontext,
    "jaeger": _write_jaeger,
    "b3": _write_b3,
    "b3multi": _write_b3multi,
}


def _writer(formats: tuple[str, ...]) -> Writer:
    writers = tuple(_WRITERS[name] for name in formats if name in _WRITERS)
    if set(formats) & set(_WRITERS) == {"tracecontext", "jaeger"}:
        return default_lines

    def write(trace_id: bytes, span_id: bytes, flags: int, tracestate: bytes) -> bytes:
        return b"".join([each(trace_id, span_id, flags, tracestate) for each in writers])

    return write


def _lines(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"".join((name, b": ", value, b"\r\n")) for name, value in fields])


class Propagation:
    """The formats of ``formats`` (`OTEL_PROPAGATORS`), in order of precedence; one listed twice counts once.

    Raises `SettingsError` for a format that does not exist.
    """

    __slots__ = ("_default", "_probes", "_replaced", "_write", "formats")

    def __init__(self, formats: tuple[str, ...]) -> None:
        for name in formats:
            if name not in _FORMAT_FIELDS:
                raise SettingsError(f"OTEL_PROPAGATORS: unknown format {name!r}; choose from {', '.join(FORMATS)}")
        if "none" in formats and len(set(formats)) > 1:
            raise SettingsError(f"OTEL_PROPAGATORS: 'none' stands alone, not in {','.join(formats)!r}")
        self.formats: Final = tuple(dict.fromkeys(formats))
        self._write = _writer(self.formats)
        self._default = self._write is default_lines
        self._probes = tuple(dict.fromkeys(probe for name in self.formats for probe in _PROBES.get(name, ())))
        self._replaced = frozenset[bytes]().union(*(_FORMAT_FIELDS[name] for name in self.formats))

    def __repr__(self) -> str:
        return f"Propagation({','.join(self.formats) or 'none'})"

    def inject(self, trace_id: bytes, span_id: bytes, flags: int, tracestate: bytes) -> bytes:
        """The header lines for an upstream, each ending in CRLF; ``span_id`` is the CLIENT span's."""
        if self._default:
            return default_lines(trace_id, span_id, flags, tracestate)
        return self._write(trace_id, span_id, flags, tracestate)

    def extract(self, fields: Fields) -> RemoteContext | None:
        """The first listed format's valid context. Whatever the fields hold, nothing is raised."""
        for name, read in self._probes:
            if name in fields:
                context = read(fields)
                if context is not None:
                    return context
        return None

    def passthrough(self, fields: Fields) -> bytes:
        """The context that came, in every format, as it came: the header lines of a request that is not recorded."""
        return _lines((name, value) for name, value in fields.items() if name in FIELDS)

    def others(self, fields: Fields) -> bytes:
        """What came and `inject` does not replace: formats that are not listed, and ``jaeger-baggage``."""
        replaced = self._replaced
        return _lines((name, value) for name, value in fields.items() if name in FIELDS and name not in replaced)
