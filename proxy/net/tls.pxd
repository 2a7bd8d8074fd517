from proxy.net.layer cimport Layer
from proxy.net.records cimport Records

import cython

cdef int _HANDSHAKE, _OPEN, _LINGERING, _CLOSED, _LOST


cdef class TlsTransport(Layer):
    cdef public object _context
    cdef public bint _eof_told
    cdef public list _held
    cdef public bint _notified
    cdef public object _on_failure
    cdef public long long _opened_in
    cdef public bint _paused
    cdef public bint _raw_eof
    cdef public object _session
    cdef public long long _started_ns
    cdef public int _state
    cdef public bint _writing_paused
    cdef public long long bytes_in
    cdef public long long bytes_out
    cdef public bint truncated

    @cython.locals(records=Records, answer=bytes)
    cdef void _shake(self, bytes ciphertext) except *
    cdef void _opened(self) except *
    cdef void _fail(self, str reason) except *

    @cython.locals(records=Records, plaintext=bytes, answer=bytes)
    cdef void _receive(self, bytes ciphertext) except *
    cdef void _end(self) except *

    @cython.locals(records=Records)
    cpdef void write(self, object data) except *

    @cython.locals(records=Records, ciphertext=bytes)
    cpdef void write_last(self, bytes data) except *
    cdef void _send(self, bytes ciphertext) except *
    cpdef void close(self) except *
    cpdef void linger(self) except *
    cdef void _notify(self) except *
    cdef bint _finished(self) except -1
