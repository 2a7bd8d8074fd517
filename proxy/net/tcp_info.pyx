"""The compiled twin of ``tcp_info.py``: one system call into memory of its own."""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy
from posix.unistd cimport close as close_descriptor

cdef extern from "sys/socket.h":
    ctypedef unsigned int socklen_t
    int getsockopt(int fd, int level, int name, void* value, socklen_t* size) nogil

cdef extern from "netinet/in.h":
    enum:
        IPPROTO_TCP

cdef extern from "netinet/tcp.h":
    enum:
        TCP_INFO

NEEDED = 192

cdef enum:
    SIZE = 192
    # Offsets in struct tcp_info, linux/tcp.h.
    AT_RTT = 68
    AT_TOTAL_RETRANS = 100
    AT_MIN_RTT = 148
    AT_DATA_SEGS_OUT = 156
    AT_DELIVERY_RATE = 160
    AT_RWND_LIMITED = 176
    AT_SNDBUF_LIMITED = 184


cdef inline uint32_t word(const char* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline uint64_t wide(const char* at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value


cdef Reading made(const char* data):
    cdef Reading reading = Reading.__new__(Reading)
    reading.rtt_us = word(data + AT_RTT)
    reading.retransmitted = word(data + AT_TOTAL_RETRANS)
    reading.min_rtt_us = word(data + AT_MIN_RTT)
    if reading.min_rtt_us == 0xFFFFFFFF:
        reading.min_rtt_us = 0
    reading.segments = word(data + AT_DATA_SEGS_OUT)
    reading.delivery_rate = wide(data + AT_DELIVERY_RATE)
    reading.rwnd_limited_us = wide(data + AT_RWND_LIMITED)
    reading.sndbuf_limited_us = wide(data + AT_SNDBUF_LIMITED)
    return reading


cdef class Reading:
    """See ``tcp_info.py``."""

    def __repr__(self):
        return (
            f"Reading(delivery_rate={self.delivery_rate}, min_rtt_us={self.min_rtt_us}, "
            f"retransmitted={self.retransmitted}, rtt_us={self.rtt_us}, rwnd_limited_us={self.rwnd_limited_us}, "
            f"segments={self.segments}, sndbuf_limited_us={self.sndbuf_limited_us})"
        )

    cpdef Reading since(self, Reading before):
        """See ``tcp_info.py``."""
        cdef Reading reading = Reading.__new__(Reading)
        reading.rtt_us = self.rtt_us
        reading.min_rtt_us = self.min_rtt_us
        reading.retransmitted = self.retransmitted - before.retransmitted
        reading.segments = self.segments - before.segments
        reading.rwnd_limited_us = self.rwnd_limited_us - before.rwnd_limited_us
        reading.sndbuf_limited_us = self.sndbuf_limited_us - before.sndbuf_limited_us
        reading.delivery_rate = self.delivery_rate
        return reading


cpdef Reading parse(bytes data):
    """See ``tcp_info.py``."""
    if PyBytes_GET_SIZE(data) < SIZE:
        return None
    return made(PyBytes_AS_STRING(data))


cdef class Probe:
    """See ``tcp_info.py``."""

    def __cinit__(self):
        self._descriptor = -1

    def __init__(self, descriptor):
        self._descriptor = os.dup(descriptor)

    def __dealloc__(self):
        if self._descriptor >= 0:
            close_descriptor(self._descriptor)

    cpdef Reading read(self):
        """See ``tcp_info.py``."""
        cdef char data[SIZE]
        cdef socklen_t size = SIZE
        if self._descriptor < 0 or getsockopt(self._descriptor, IPPROTO_TCP, TCP_INFO, data, &size) or size < SIZE:
            return None
        return made(data)

    cpdef void close(self) except *:
        """See ``tcp_info.py``."""
        if self._descriptor >= 0:
            close_descriptor(self._descriptor)
            self._descriptor = -1


cpdef Reading begin(object owner):
    """See ``tcp_info.py``."""
    cdef Probe probe = owner.probe
    if probe is None:
        sock = owner.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return None
        try:
            probe = Probe(sock.fileno())
        except OSError:
            return None
        owner.probe = probe
    return probe.read()


cpdef Reading end(object owner, Reading before):
    """See ``tcp_info.py``."""
    cdef Probe probe = owner.probe
    cdef Reading after = None if probe is None else probe.read()
    return None if after is None else after.since(before)
