"""Which requests are recorded: the samplers of `OTEL_TRACES_SAMPLER`, as consistent probability sampling.

A trace has 56 random bits, the last seven bytes of its id or, when the caller sent one, the ``rv`` of its tracestate.
It is sampled if they are not below the sampler's threshold, so that every proxy and service with the same ratio keeps
the same traces, and one with a higher ratio keeps those and more. A ratio below 1 is written into the tracestate as
``ot=th:..``, which lets a backend count what was not kept. OpenTelemetry: TraceState Probability Sampling, OTEP 235.

Precedence: a parent's decision under ``parentbased_*``; then the route's own ratio; then the sampler.
"""

from __future__ import annotations

import math
from typing import Final

from proxy.errors import SettingsError
from proxy.trace import w3c

_BITS: Final = 56
_ALWAYS: Final = 0  # thresholds: what is rejected, of 2^56
_NEVER: Final = 1 << _BITS
_DIGITS: Final = 14
_PRECISION: Final = 4  # digits after leading f's: the specification's recommendation, exact to 1 in 65,536
_RATIOS: Final = 1024  # most routes' ratios remembered
_MEMBER: Final = b"ot="
_VALUE_LIMIT: Final = 256  # bytes of a list-member's value (W3C)
_HEX: Final = b"0123456789abcdefABCDEF"

# Whether the parent decides, and the threshold without one; None: the ratio of the argument.
_SAMPLERS: Final[dict[str, tuple[bool, int | None]]] = {
    "always_on": (False, _ALWAYS),
    "always_off": (False, _NEVER),
    "traceidratio": (False, None),
    "parentbased_always_on": (True, _ALWAYS),
    "parentbased_always_off": (True, _NEVER),
    "parentbased_traceidratio": (True, None),
}
NAMES: Final = tuple(_SAMPLERS)
"""What `OTEL_TRACES_SAMPLER` may name."""


def threshold(ratio: float) -> int:
    """How many of 2^56 random values are rejected to keep ``ratio`` (0 to 1) of them, to the precision of ``th``."""
    rejected = _NEVER - round(ratio * _NEVER)
    if rejected >= _NEVER:
        return _NEVER
    leading = max(0, -math.frexp(ratio)[1] // 4)
    unit = 1 << 4 * max(0, _DIGITS - leading - _PRECISION)
    return (rejected + unit // 2) // unit * unit


class Sampler:
    """The sampler called ``name``, with ``argument`` as the ratio of the ratio samplers.

    Raises `SettingsError` for a name that does not exist, and for a ratio outside 0 to 1.
    """

    __slots__ = ("_always", "_by_ratio", "_parent_decides", "_threshold", "name")

    def __init__(self, name: str, argument: float = 1.0) -> None:
        if name not in _SAMPLERS:
            raise SettingsError(f"OTEL_TRACES_SAMPLER: unknown sampler {name!r}; choose from {', '.join(NAMES)}")
        if not 0 <= argument <= 1:
            raise SettingsError(f"OTEL_TRACES_SAMPLER_ARG: {argument} is no ratio; choose one from 0 to 1")
        self._parent_decides, fixed = _SAMPLERS[name]
        self._threshold = threshold(argument) if fixed is None else fixed
        self._always = self._threshold == _ALWAYS
        self._by_ratio: dict[float, int] = {}
        self.name: Final = name

    def __repr__(self) -> str:
        return f"Sampler({self.name}, {1 - self._threshold / _NEVER:.4g})"

    def decide(
        self, trace_id: bytes, parent_flags: int | None = None, ratio: float | None = None, tracestate: bytes = b""
    ) -> bool:
        """Whether to record a request.

        ``parent_flags`` are those of a trusted parent that decided, None without one; ``ratio`` is the route's own,
        None without one; ``tracestate`` is the parent's, for its ``rv``.
        """
        if parent_flags is not None and self._parent_decides:
            return bool(parent_flags & w3c.SAMPLED)
        if ratio is None and self._always:
            return True
        limit = self._threshold if ratio is None else self._of(ratio)
        return _random(trace_id, tracestate) >= limit

    def state(
        self, trace_id: bytes, parent_flags: int | None = None, ratio: float | None = None, tracestate: bytes = b""
    ) -> bytes:
        """The tracestate to send on with a recorded request; arguments as for `decide`.

        A decision made here replaces the ``th`` that came. A parent's decision keeps it, unless the parent should not
        have sampled by it.
        """
        if parent_flags is not None and self._parent_decides:
            if not tracestate or _consistent(trace_id, tracestate):
                return tracestate
            return _with_threshold(tracestate, None)
        if ratio is None and self._always and (not tracestate or b"th:" not in tracestate):
            return tracestate
        limit = self._threshold if ratio is None else self._of(ratio)
        if limit == _ALWAYS and b"th:" not in tracestate:
            return tracestate
        return _with_threshold(tracestate, None if limit == _NEVER else limit)

    def _of(self, ratio: float) -> int:
        """The threshold of a route's ratio."""
        found = self._by_ratio.get(ratio)
        if found is None:
            if len(self._by_ratio) >= _RATIOS:
                self._by_ratio.clear()
            found = self._by_ratio[ratio] = threshold(min(1.0, max(0.0, ratio)))
        return found


def _random(trace_id: bytes, tracestate: bytes) -> int:
    """The trace's 56 random bits. An ``rv`` that is not 14 digits does not count."""
    if tracestate:
        value = _sub_keys(tracestate).get(b"rv", b"")
        if len(value) == _DIGITS and not value.translate(None, _HEX):
            return int(value, 16)
    return int.from_bytes(trace_id[-_BITS // 8 :], "big")


def _consistent(trace_id: bytes, tracestate: bytes) -> bool:
    """Whether a sampled trace could be sampled by its ``th``; true without one."""
    value = _sub_keys(tracestate).get(b"th")
    if value is None:
        return True
    if not 0 < len(value) <= _DIGITS or value.translate(None, _HEX):
        return False
    return _random(trace_id, tracestate) >= int(value.ljust(_DIGITS, b"0"), 16)


def _sub_keys(tracestate: bytes) -> dict[bytes, bytes]:
    """OpenTelemetry's own list-member of a valid tracestate, ``ot=key:value;key:value``."""
    for member in tracestate.split(b","):
        if member.startswith(_MEMBER):
            pairs = (pair.partition(b":") for pair in member[len(_MEMBER) :].split(b";"))
            return {key: value for key, colon, value in pairs if colon}
    return {}


def _with_threshold(tracestate: bytes, limit: int | None) -> bytes:
    """``tracestate`` with ``th`` set to ``limit``, or without one; a changed member moves to the front (W3C)."""
    kept = [key + b":" + value for key, value in _sub_keys(tracestate).items() if key != b"th"]
    others = [member for member in tracestate.split(b",") if member and not member.startswith(_MEMBER)]
    value = b";".join(kept)
    if limit is not None:
        digits = f"{limit:0{_DIGITS}x}".rstrip("0").encode() or b"0"
        longer = b";".join((*kept, b"th:" + digits))
        if len(longer) <= _VALUE_LIMIT:
            value = longer
    if not value:
        return b",".join(others)
    # Ours takes a place, and bytes, that the last of the others may have to give up.
    return w3c.parse_tracestate(b",".join((_MEMBER + value, *others[: w3c.MEMBERS - 1])))
