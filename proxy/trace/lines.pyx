# cython: boundscheck=False, wraparound=False
"""The compiled twin of ``lines.py``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

from proxy.trace import jaeger

cdef const char* HEX = b"0123456789abcdef"
cdef int JAEGER_DEBUG = jaeger.SAMPLED | jaeger.DEBUG

cdef enum:
    SAMPLED = 0x01
    DEBUG = 0x100
    PARENT = 13 + 3 + 32 + 1 + 16 + 3 + 2  # traceparent: 00-{32}-{16}-{2}CRLF
    UBER = 15 + 32 + 1 + 16 + 4 + 2  # uber-trace-id: {32}:{16}:0:{1}CRLF


cdef inline void digits(char* at, bytes value) noexcept:
    cdef const unsigned char* data = <const unsigned char*>PyBytes_AS_STRING(value)
    cdef Py_ssize_t index
    for index in range(PyBytes_GET_SIZE(value)):
        at[2 * index] = HEX[data[index] >> 4]
        at[2 * index + 1] = HEX[data[index] & 0xF]


cpdef bytes default_lines(bytes trace_id, bytes span_id, int flags, bytes tracestate):
    """See ``lines.py``. Raises `ValueError` for ids of another size."""
    cdef Py_ssize_t state = len(tracestate)
    cdef Py_ssize_t size = PARENT + UBER
    cdef bytes made
    cdef char* at
    if len(trace_id) != 16 or len(span_id) != 8:
        raise ValueError("a trace id is 16 bytes, a span id 8")
    if state:
        size += 12 + state + 2
    made = PyBytes_FromStringAndSize(NULL, size)
    at = PyBytes_AS_STRING(made)
    memcpy(at, b"traceparent: 00-", 16)
    digits(at + 16, trace_id)
    at[48] = c"-"
    digits(at + 49, span_id)
    at[65] = c"-"
    at[66] = HEX[(flags >> 4) & 0xF]
    at[67] = HEX[flags & 0xF]
    memcpy(at + 68, b"\r\nuber-trace-id: ", 17)
    memcpy(at + 85, at + 16, 32)
    at[117] = c":"
    memcpy(at + 118, at + 49, 16)
    memcpy(at + 134, b":0:", 3)
    at[137] = HEX[JAEGER_DEBUG if flags & DEBUG else flags & SAMPLED]
    memcpy(at + 138, b"\r\n", 2)
    if state:
        memcpy(at + 140, b"tracestate: ", 12)
        memcpy(at + 152, PyBytes_AS_STRING(tracestate), state)
        memcpy(at + 152 + state, b"\r\n", 2)
    return made


cpdef bytes hexed(bytes value):
    """See ``lines.py``."""
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 2 * len(value))
    digits(PyBytes_AS_STRING(made), value)
    return made
