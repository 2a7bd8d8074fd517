from proxy.trace.record cimport AttemptRecord, RequestRecord
from proxy.trace.segments cimport Segments


cdef class Encoder:
    cdef object _twin
    cdef object _redactor
    cdef list _servers
    cdef list _clients
    cdef list _peers
    cdef unsigned char* _out
    cdef Py_ssize_t _size

    cpdef bytes encode(self, RequestRecord record)
    cpdef Py_ssize_t append(self, RequestRecord record, Segments segments, Py_ssize_t most) except -1
    cdef bint _write(self, RequestRecord record) except -1
    cdef bint _server(self, RequestRecord record, bytes target, bytes query, bytes state) except -1
    cdef bint _attempt(
        self, RequestRecord record, AttemptRecord attempt, bint gone, bytes target, bytes state
    ) except -1
    cdef unsigned char* _open(self, Py_ssize_t size) noexcept
    cdef object _server_chunk(self, RequestRecord record)
    cdef bytes _peer_chunk(self, RequestRecord record)
    cdef object _client_chunk(self, RequestRecord record, AttemptRecord attempt, bint gone)
