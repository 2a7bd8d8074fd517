cimport cython

cdef long long _MODULO
cdef long long _HALF
cdef int _OPENS
cdef int _ENDS
cdef int _TELLS


cdef class Line:
    cdef readonly long long low
    cdef readonly long long carried
    cdef readonly long long longest
    cdef readonly list pieces
    cdef readonly list holes
    cdef list _times
    cdef list _fronts

    @cython.locals(
        ts_ns=cython.longlong, start=cython.longlong, end=cython.longlong, front=cython.longlong, carried=cython.longlong,
        since_ns=cython.longlong, joined=cython.Py_ssize_t, longest=cython.longlong, ahead=list,
    )
    cdef long long _fill(self, long long low, long long high) except? -1
    cpdef object complete(self, long long end)
    cpdef object passed(self, long long ts_ns)
    cpdef object second(self, offset, ts_ns)
    cpdef object before(self, long long ts_ns)
    cpdef object after(self, long long ts_ns)
    cpdef list stamps(self, long long low_ns, long long high_ns)
    @cython.locals(ts_ns=cython.longlong, end=cython.longlong, far=cython.longlong)
    cpdef list news(self, long long low_ns, long long high_ns)


cdef class Acks:
    cdef readonly list times
    cdef readonly list ends
    cdef readonly list windows
    cdef readonly list repeats
    cdef readonly set late
    cdef readonly long long zero_ns
    cdef dict _places
    cdef Py_ssize_t _indexed
    cdef long long _shut_ns
    cdef long long _window

    @cython.locals(ends=list)
    cpdef object add(self, long long ts_ns, long long end, long long window, long long length)
    cdef object _late(self, end, window)
    cpdef object shut(self, long long end_ns)
    cpdef object reached(self, long long end)
    cpdef object told(self, long long ts_ns)
    cpdef object same(self, end, window)
    cpdef Py_ssize_t place(self, end, window) except? -2
    cpdef bint heard(self, end, window) except -1


cdef class View:
    cdef readonly Line up
    cdef readonly Line down
    cdef readonly Acks up_acks
    cdef readonly Acks down_acks
    cdef readonly long long packets


@cython.locals(
    q0=cython.longlong, q1=cython.longlong, p0=cython.longlong, p1=cython.longlong,
    q=cython.longlong, q_seq=cython.longlong, p=cython.longlong, p_seq=cython.longlong,
    ts_ns=cython.longlong, seq=cython.longlong, ack=cython.longlong, length=cython.longlong, window=cython.longlong,
    flags=cython.int, direction=cython.int, packets=cython.longlong,
    sent=list, received=list, up_acks=Acks, down_acks=Acks,
)
cpdef View view(bytes rows, int up, tuple starts, tuple request, tuple response)
