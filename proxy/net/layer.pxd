from proxy.net.records cimport Records
from proxy.net.stage cimport Stage


cdef class Layer(Stage):
    cdef public str _hostname
    cdef public object _inner
    cdef public object _raw
    cdef public Records _records
    cdef public bint _server_side
    cdef public long long handshake_ns
