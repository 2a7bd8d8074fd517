from proxy.net.stage cimport Stage


cdef class Upstream(Stage):
    cdef public object borrower
    cdef public long long bytes_in
    cdef public long long bytes_out
    cdef public bint closed
    cdef public double deadline
    cdef public str local_address
    cdef public int local_port
    cdef public object opened
    cdef public str peer_address
    cdef public int peer_port
    cdef public object pool
    cdef public object probe
    cdef public long long served
    cdef public bytes span_attributes
    cdef public bint tapped
    cdef public object tls
    cdef public Stage transport
    cdef public bytes wire_ends

    cpdef void data_received(self, bytes data) except *
    cpdef long long sent(self) except? -1
    cpdef long long seen(self) except? -1
