cdef class Reading:
    cdef public long long delivery_rate
    cdef public long long min_rtt_us
    cdef public long long retransmitted
    cdef public long long rtt_us
    cdef public long long rwnd_limited_us
    cdef public long long segments
    cdef public long long sndbuf_limited_us

    cpdef Reading since(self, Reading before)


cpdef Reading parse(bytes data)


cdef class Probe:
    cdef int _descriptor

    cpdef Reading read(self)
    cpdef void close(self) except *


cpdef Reading begin(object owner)
cpdef Reading end(object owner, Reading before)
