from proxy.connection cimport Connection
from proxy.http1.head cimport RequestHead
from proxy.trace.record cimport AttemptRecord, RequestRecord
from proxy.worker cimport Worker


cdef class Request(RequestRecord):
    cdef public object attempt
    cdef public bytes authority
    cdef public object claim
    cdef public Connection downstream
    cdef public long long entry_ns
    cdef public bytes extra
    cdef public long long framing
    cdef public RequestHead head
    cdef public bytes other_context
    cdef public double read_timeout
    cdef public bytes request_id
    cdef public double send_timeout
    cdef public bytes target
    cdef public object tunnel
    cdef public bytes upgrade
    cdef public object upload
    cdef public Worker worker
    # Last, so that there are no holes between them.
    cdef public bint answered
    cdef public bint chunked_out
    cdef public bint expects
    cdef public bint keep
    cdef public bint remote
    cdef public bint request_done
    cdef public bint wants_trailers

    cpdef void prepare(self, Connection downstream, Worker worker, long long start_ns, long long entry_ns) except *
    cpdef bytes request_bytes(self, AttemptRecord attempt)
    cpdef void relay(self, bytes data, long long size, bint last=*) except *
    cpdef void complete(self, long long now_ns) except *
