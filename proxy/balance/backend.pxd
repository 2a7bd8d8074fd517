from proxy.balance.endpoint cimport Endpoint


cdef class Backend:
    cdef public object _clock
    cdef public Endpoint _only
    cdef public tuple _out
    cdef public object _policy
    cdef public tuple _up
    cdef public tuple endpoints
    cdef public object key
    cdef public object spec

    cpdef Endpoint pick(self, bytes key, object tried)
