"""A request's place in a trace: continued, restarted with a link, or new; recorded or not. Design, section 4.

| who sent it | what came | trace | parent | decision |
| --- | --- | --- | --- | --- |
| trusted | a context | its own | the caller's span | the parent's or ours (`trace.sampling`) |
| trusted | ids, no decision | its own | the caller's span | ours |
| trusted | a decision, no ids | new | none | as with a parent |
| trusted or not | nothing | new | none | ours |
| a stranger | anything | new, with a link to it | none | ours: nobody outside forces sampling or turns it off |

A new trace's flags are 01, though its id is random and level 2 of W3C Trace Context has a flag, 02, to say so: level 1
asks for zero there, and OpenTelemetry for Go, thus HotROD, refuses a ``traceparent`` of version 00 with flags above
02. A random flag that came with a continued trace is kept.
"""

from __future__ import annotations

from proxy.trace.context import SAMPLED, RemoteContext
from proxy.trace.ids import span_id, trace_id
from proxy.trace.record import Link, RequestRecord
from proxy.trace.sampling import Sampler


def begin(
    record: RequestRecord,
    remote: RemoteContext | None,
    trusted: bool,
    sampler: Sampler,
    ratio: float | None = None,
    wanted: bool = True,
) -> None:
    """Set ``record``'s ids, parent, flags, tracestate, link and whether it is recorded.

    ``remote`` is what `Propagation.extract` found, ``trusted`` whether its sender may continue a trace; ``ratio`` is
    the route's own; ``wanted`` False keeps the request unrecorded whatever the sampler says.
    """
    record.span_id = span_id()
    record.parent_id = b""
    record.tracestate = b""
    record.link = None
    parent_flags = None
    flags = 0
    if remote is None:
        own = trace_id()
    elif trusted:
        own = remote.trace_id or trace_id()
        record.parent_id = remote.span_id
        record.tracestate = remote.tracestate
        flags = remote.flags
        if remote.sampled is not None:
            parent_flags = flags
    else:
        own = trace_id()
        if remote.trace_id:
            record.link = Link(remote.trace_id, remote.span_id, remote.flags, remote.tracestate)
    record.trace_id = own
    record.recorded = wanted and sampler.decide(own, parent_flags, ratio, record.tracestate)
    if record.recorded:
        record.flags = flags | SAMPLED
        record.tracestate = sampler.state(own, parent_flags, ratio, record.tracestate)
    else:
        record.flags = 0
