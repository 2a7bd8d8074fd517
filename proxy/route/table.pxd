from proxy.route.match cimport PathTree
from proxy.route.stats cimport RouteStats


cdef class Route:
    # First what each request reads: of many routes each is cold.
    cdef public object actions
    cdef public object sample_ratio
    cdef public object backend
    cdef public RouteStats stats
    cdef public bytes span_parts
    cdef public double read_timeout
    cdef public double send_timeout
    # Then the others.
    cdef public long long body_limit
    cdef public double connect_timeout
    cdef public str host
    cdef public long long index
    cdef public str name
    cdef public str namespace
    cdef public str path
    cdef public object pattern
    cdef public str resource_version
    cdef public object spec
    cdef public str span_name
    cdef public int tries
    cdef public str uid


cdef class Table:
    cdef public object _any
    cdef public dict _defaults
    cdef public dict _hosts
    cdef public long long _next
    cdef public dict _routes
    cdef public dict _wildcards
    cdef public Route default
    cdef public long long generation

    cpdef Route match(self, bytes host, bytes path)
