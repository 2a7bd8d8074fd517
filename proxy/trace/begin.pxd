from proxy.trace.context cimport RemoteContext
from proxy.trace.ids cimport span_id, trace_id
from proxy.trace.record cimport RequestRecord
from proxy.trace.sampling cimport Sampler


cpdef void begin(
    RequestRecord record, RemoteContext remote, bint trusted, Sampler sampler, object ratio=*, bint wanted=*
) except *
