from proxy.balance.health cimport Health


cdef class Endpoint(Health):
    cdef public double ewma
    cdef public double ewma_at
    cdef public str host
    cdef public long long in_flight
    cdef public tuple points
    cdef public object pool
    cdef public int port
    cdef public str scheme
    cdef public str server_name
    cdef public str zone

    cpdef void succeeded(self, long long latency_ns, double now) except *
