cdef enum:
    DURATIONS = 15  # buckets
    OWN = 14
    USUAL = 4  # statuses that have a place of their own: few routes ever answer with more


cdef struct Exemplar:
    long long duration_ns
    long long end_ns
    unsigned char trace_id[16]
    int bucket


cpdef void fetch(Counts counts, bytes parts) noexcept


cdef class Counts:
    # In the order of use, and what most requests write first in its array.
    cdef long long _duration_ns
    cdef long long _self_ns
    cdef Exemplar* _exemplars
    cdef int _kept  # exemplars
    cdef int _status[USUAL]
    cdef long long _requests[USUAL]  # 0: a place that is free
    cdef long long _buckets[DURATIONS]
    cdef long long _self_buckets[OWN]
    cdef dict _others  # requests by status, of those without a place; None before the first
    cdef dict _faults

    cpdef void observe(
        self,
        int status,
        long long duration_ns,
        long long self_ns,
        str error_type,
        bytes trace_id,
        bint recorded,
        long long end_ns,
    ) except *
    cdef void _keep(self, int bucket, bytes trace_id, long long duration_ns, long long end_ns) except *
