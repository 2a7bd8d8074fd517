from proxy.accept.downstream cimport Downstream
from proxy.net.stage cimport Stage
from proxy.net.tls cimport TlsTransport
from proxy.worker cimport Worker

import cython


cdef class Opening(Stage):
    cdef public bytes _buffer
    cdef public object _listener
    cdef public TlsTransport _tls
    cdef public object _transport
    cdef public double deadline

    @cython.locals(worker=Worker)
    cpdef void connection_made(self, object transport) except *
    cpdef void data_received(self, bytes data) except *

    @cython.locals(worker=Worker, downstream=Downstream)
    cdef void _go_on(self, object source, bytes rest) except *
