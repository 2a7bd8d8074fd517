from proxy.connect.connection cimport Upstream
from proxy.net.clock cimport Clock
from proxy.net.now cimport time_ns

import cython


cdef class Connector:
    cdef public Clock clock
    cdef public bint divided
    cdef public double idle_timeout
    cdef public object loop
    cdef public long long most
    cdef public long long most_idle
    cdef public long long opened
    cdef public object ports
    cdef public set tasks
    cdef public object tls
    cdef public object upstreams


cdef class Pool:
    cdef public bint by_name
    cdef public Connector connector
    cdef public str host
    cdef public list idle
    cdef public long long open
    cdef public int port
    cdef public bint retired
    cdef public str server_name
    cdef public list tapped
    cdef public bint tls
    cdef public object waiting

    cpdef Upstream take(self, bint recorded=*)
    cpdef void give(self, Upstream upstream, bint used=*) except *


@cython.locals(upstream=Upstream)
cdef Upstream _living(list idle)
