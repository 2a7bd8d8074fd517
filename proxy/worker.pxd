from proxy.bounds cimport Bounds
from proxy.connect.pool cimport Connector
from proxy.net.clock cimport Clock
from proxy.route.counts cimport fetch
from proxy.route.stats cimport RouteStats
from proxy.route.table cimport Route, Table
from proxy.trace.allowance cimport Allowance
from proxy.trace.context cimport Propagation
from proxy.trace.encoder cimport Encoder
from proxy.trace.export cimport Exporter
from proxy.trace.record cimport RequestRecord
from proxy.trace.sampling cimport Sampler

import cython


cdef class Worker:
    cdef public object settings
    cdef public object limits
    cdef public Bounds bounds
    cdef public object timeouts
    cdef public Clock clock
    cdef public object trust
    cdef public Propagation propagation
    cdef public Sampler sampler
    cdef public object untraced
    cdef public Encoder encoder
    cdef public Exporter exporter
    cdef public object access_log
    cdef public object handover
    cdef public Allowance allowance
    cdef public bint kernel
    cdef public bint accounting
    cdef public bint watching
    cdef public object ledger
    cdef public object registry
    cdef public Connector connector
    cdef public list pools
    cdef public Table table
    cdef public object downstreams
    cdef public object ended
    cdef public object openings
    cdef public long long connections
    cdef public long long refused
    cdef public long long handshake_failures
    cdef public bint draining
    cdef public object response_extra
    cdef public long long _failures
    cdef public list _finished
    cdef public object origin
    cdef public object on_first

    cpdef void record(self, RequestRecord exchange) except *
    @cython.locals(
        exchange=RequestRecord,
        route=Route,
        stats=RouteStats,
        unrouted=RouteStats,
        encoder=Encoder,
        exporter=Exporter,
        allowance=Allowance,
        rest_ns="long long",
        lag_us="long long",
        end_ns="long long",
        recorded="bint",
        finished=list,
    )
    cpdef void settle(self) except *
