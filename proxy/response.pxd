from proxy.bounds cimport Bounds
from proxy.balance.endpoint cimport Endpoint
from proxy.connect.connection cimport Upstream
from proxy.http1.framing cimport response_framing
from proxy.http1.head cimport ResponseHead
from proxy.http1.scan cimport find_end, scan_response
from proxy.forward cimport response_head
from proxy.net.now cimport time_ns
from proxy.request cimport Request
from proxy.route.table cimport Route
from proxy.trace.record cimport AttemptRecord

import cython


cdef class Response(AttemptRecord):
    cdef public bytes _buffer
    cdef public long long _entry_ns
    cdef public int _interim
    cdef public long long _left
    cdef public object _reader
    cdef public Endpoint endpoint
    cdef public Request exchange
    cdef public bint keep
    cdef public int state
    cdef public Upstream upstream

    cpdef void attach(self, Request exchange, Endpoint endpoint) except *
    cpdef void complete(self) except *
    cpdef void failed(self, object fault) except *

    @cython.locals(exchange=Request, entry="long long", upstream=Upstream)
    cpdef void received(self, bytes data) except *

    @cython.locals(
        exchange=Request, head=ResponseHead, framing="long long", left="long long", status=int, out=bytes,
        end=Py_ssize_t, start=Py_ssize_t, stop=Py_ssize_t, connection=bytes, bounds=Bounds,
        route=Route, upstream=Upstream,
    )
    cdef void _head(self, bytes data) except *

    @cython.locals(exchange=Request, state=int, left="long long", piece=bytes, payload=bytes)
    cdef void _body(self, bytes data, bytes out=*) except *
