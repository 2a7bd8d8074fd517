from proxy.balance.endpoint cimport Endpoint
from proxy.connect.connection cimport Upstream
from proxy.connect.pool cimport Pool
from proxy.net.now cimport time_ns
from proxy.request cimport Request
from proxy.response cimport Response
from proxy.trace.ids cimport span_id

import cython


cdef class Attempt(Response):
    cpdef void prepare(self, Request exchange, Endpoint endpoint, int resend, long long start_ns) except *

    @cython.locals(exchange=Request, payload=bytes, waits="bint", now="long long")
    cpdef void send(self, Upstream upstream, long long entry_ns) except *

    @cython.locals(exchange=Request, upstream=Upstream, now="long long", endpoint=Endpoint, pool=Pool)
    cpdef void complete(self) except *
    cpdef void failed(self, object fault) except *
