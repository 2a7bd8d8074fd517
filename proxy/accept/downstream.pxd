from proxy.bounds cimport Bounds
from proxy.connection cimport Connection
from proxy.exchange cimport Exchange
from proxy.http1.head cimport RequestHead
from proxy.http1.scan cimport find_end, scan_request
from proxy.net.now cimport time_ns
from proxy.worker cimport Worker

import cython


cdef class Downstream(Connection):
    cdef public Py_ssize_t _lingered
    cdef public bint _serving
    cdef public Py_ssize_t _skip

    @cython.locals(exchange=Exchange, left=Py_ssize_t)
    cpdef void data_received(self, bytes data) except *
    cdef void _serve(self) except *

    @cython.locals(
        worker=Worker, data=bytes, checked=Py_ssize_t, end=Py_ssize_t, start_ns="long long", entry_ns="long long",
        head=RequestHead, exchange=Exchange, bounds=Bounds,
    )
    cdef bint _start(self) except -1

    @cython.locals(exchange=Exchange, worker=Worker)
    cpdef void finished(self, bint keep, long long unread) except *
    cdef void _settle(self) except *
