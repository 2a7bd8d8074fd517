from proxy.route.counts cimport Counts


cdef class RouteStats(Counts):
    cdef public str host
    cdef public str name
    cdef public str namespace
    cdef public str path
