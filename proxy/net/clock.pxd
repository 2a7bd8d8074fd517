cdef class Clock:
    cdef public double now
    cdef public long long lag_us
    cdef public double _due
