# cython: boundscheck=False, wraparound=False
"""The compiled twin of ``counts.py``: an object without parts, but for an exemplar for each bucket that has had one."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.string cimport memcpy

from proxy.route.samples import DURATION_BOUNDS, SELF_BOUNDS

if (len(DURATION_BOUNDS) + 1, len(SELF_BOUNDS) + 1) != (DURATIONS, OWN):
    raise ImportError("the buckets of proxy.route.samples are not those of proxy.route.counts; build both anew")

cdef extern from *:
    void __builtin_prefetch(const void* at) noexcept nogil

cdef enum:
    LINE = 64  # bytes of a cache line
    PARTS = 320  # bytes of a route's span_parts, as most are

cdef long long DURATION_NS[DURATIONS - 1]
cdef long long SELF_NS[OWN - 1]
for number, bound in enumerate(DURATION_BOUNDS):
    DURATION_NS[number] = round(bound * 1e9)
for number, bound in enumerate(SELF_BOUNDS):
    SELF_NS[number] = round(bound * 1e9)


cpdef void fetch(Counts counts, bytes parts) noexcept:
    """See ``counts.py``. By address only: what is not there to be read is not brought, and nobody minds."""
    cdef const char* at = <const char*><void*>counts
    cdef const char* end = at + sizeof(Counts)
    while at < end:
        __builtin_prefetch(at)
        at += LINE
    if parts is not None:
        at = <const char*><void*>parts
        end = at + PARTS
        while at < end:
            __builtin_prefetch(at)
            at += LINE


@cython.no_gc  # what its dicts hold cannot point back
cdef class Counts:
    """See ``counts.py``."""

    def __dealloc__(self):
        PyMem_Free(self._exemplars)

    def __repr__(self):
        return f"Counts({self.statuses()} {self.faults()})"

    cpdef void observe(
        self,
        int status,
        long long duration_ns,
        long long self_ns,
        str error_type,
        bytes trace_id,
        bint recorded,
        long long end_ns,
    ) except *:
        """See ``counts.py``."""
        cdef int place = 0, bucket = 0, own = 0
        while place < USUAL and self._requests[place] and self._status[place] != status:
            place += 1
        if place < USUAL:
            self._status[place] = status
            self._requests[place] += 1
        else:
            if self._others is None:
                self._others = {}
            self._others[status] = self._others.get(status, 0) + 1
        if error_type:
            if self._faults is None:
                self._faults = {}
            self._faults[error_type] = self._faults.get(error_type, 0) + 1
        duration_ns = max(duration_ns, 0)
        self_ns = max(self_ns, 0)
        while bucket < DURATIONS - 1 and duration_ns > DURATION_NS[bucket]:
            bucket += 1
        self._buckets[bucket] += 1
        self._duration_ns += duration_ns
        while own < OWN - 1 and self_ns > SELF_NS[own]:
            own += 1
        self._self_buckets[own] += 1
        self._self_ns += self_ns
        if recorded:
            self._keep(bucket, trace_id, duration_ns, end_ns)

    cdef void _keep(self, int bucket, bytes trace_id, long long duration_ns, long long end_ns) except *:
        cdef int place = 0
        cdef Exemplar* made
        if len(trace_id) != 16:
            raise ValueError("a trace id is 16 bytes")
        while place < self._kept and self._exemplars[place].bucket != bucket:
            place += 1
        if place == self._kept:
            made = <Exemplar*>PyMem_Realloc(self._exemplars, (place + 1) * sizeof(Exemplar))
            if made is NULL:
                raise MemoryError
            self._exemplars = made
            self._kept = place + 1
        made = &self._exemplars[place]
        made.bucket = bucket
        made.duration_ns = duration_ns
        made.end_ns = end_ns
        memcpy(made.trace_id, PyBytes_AS_STRING(trace_id), 16)

    def statuses(self):
        """See ``counts.py``."""
        cdef int place
        made = {self._status[place]: self._requests[place] for place in range(USUAL) if self._requests[place]}
        if self._others is not None:
            made.update(self._others)
        return made

    def faults(self):
        """See ``counts.py``."""
        return {} if self._faults is None else dict(self._faults)

    def durations(self):
        """See ``counts.py``."""
        cdef int bucket
        return tuple([self._buckets[bucket] for bucket in range(DURATIONS)]), self._duration_ns

    def own(self):
        """See ``counts.py``."""
        cdef int bucket
        return tuple([self._self_buckets[bucket] for bucket in range(OWN)]), self._self_ns

    def exemplars(self):
        """See ``counts.py``."""
        cdef int place
        cdef Exemplar* kept
        made = [None] * DURATIONS
        for place in range(self._kept):
            kept = &self._exemplars[place]
            trace_id = PyBytes_FromStringAndSize(<char*>kept.trace_id, 16)
            made[kept.bucket] = (trace_id, kept.duration_ns, kept.end_ns)
        return tuple(made)
