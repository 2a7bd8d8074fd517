from proxy.admission cimport account, admit, trace
from proxy.attempt cimport Attempt
from proxy.balance.backend cimport Backend
from proxy.balance.endpoint cimport Endpoint
from proxy.connect.connection cimport Upstream
from proxy.connect.pool cimport Pool
from proxy.connection cimport Connection
from proxy.forward cimport may_keep, request_head
from proxy.http1.compose cimport request
from proxy.http1.head cimport RequestHead
from proxy.net.now cimport time_ns
from proxy.request cimport Request
from proxy.route.table cimport Route
from proxy.trace.record cimport AttemptRecord
from proxy.worker cimport Worker

import cython


cdef class Exchange(Request):
    cdef public bint _finished
    cdef public bint _flushing
    cdef public bytes _key
    cdef public bytes _prefix

    cpdef void prepare(self, Connection downstream, Worker worker, long long start_ns, long long entry_ns) except *

    @cython.locals(worker=Worker, route=Route, backend=Backend)
    cpdef void begin(self, RequestHead head) except *

    @cython.locals(route=Route, backend=Backend, endpoint=Endpoint, attempt=Attempt, pool=Pool, upstream=Upstream, attempts=list)
    cdef void _try(self, long long entry_ns) except *

    @cython.locals(worker=Worker, context=bytes, others=bytes)
    cpdef bytes request_bytes(self, AttemptRecord attempt)

    cpdef void relay(self, bytes data, long long size, bint last=*) except *
    cpdef void complete(self, long long now_ns) except *
    cpdef void finish(self, long long end_ns) except *
