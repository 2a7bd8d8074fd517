from proxy.trace.encoder cimport Encoder
from proxy.trace.record cimport RequestRecord
from proxy.trace.segments cimport Segments


cdef class Exporter:
    cdef public long long _batch
    cdef public long long _batch_bytes
    cdef public long long _complained
    cdef public double _delay
    cdef public object _envelope
    cdef public object _ledger
    cdef public long long _limit
    cdef public long long _queue_full
    cdef public object _rare
    cdef public object _ring
    cdef public long long _room
    cdef public Segments _segments
    cdef public object _sender
    cdef public object _since
    cdef public long long _spans
    cdef public object _transport

    cpdef void record(self, Encoder encoder, RequestRecord record) except *
    cpdef void offer(self, bytes blob, int spans) except *
