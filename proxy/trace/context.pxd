from proxy.trace.lines cimport default_lines


cdef class RemoteContext:
    cdef public bytes trace_id
    cdef public bytes span_id
    cdef public int flags
    cdef public bytes tracestate
    cdef public object sampled
    cdef public str format


cdef class Propagation:
    cdef public bint _default
    cdef public tuple _probes
    cdef public object _replaced
    cdef public object _write
    cdef public tuple formats

    cpdef bytes inject(self, bytes trace_id, bytes span_id, int flags, bytes tracestate)
