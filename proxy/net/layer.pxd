from proxy.net.records cimport Records


cdef class Layer:
    cdef public str _hostname
    cdef public object _inner
    cdef public object _raw
    cdef public Records _records
    cdef public bint _server_side
    cdef public long long handshake_ns
