# cython: boundscheck=False, wraparound=False
"""The compiled twin of ``compose.py``: each head is one allocation, filled once."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

cdef enum:
    DIGITS = 24  # of a length, and then some


cdef inline void put(char** at, bytes data) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    memcpy(at[0], PyBytes_AS_STRING(data), size)
    at[0] += size


cdef inline void literal(char** at, const char* text, Py_ssize_t size) noexcept:
    memcpy(at[0], text, size)
    at[0] += size


cpdef bytes request_prefix(
    bytes method,
    bytes target,
    bytes authority,
    bytes fields,
    bytes extra,
    bytes forwarding,
    bytes request_id,
):
    """See ``compose.py``."""
    cdef Py_ssize_t size = len(method) + len(target) + len(authority)
    size += len(fields) + len(extra) + len(forwarding)
    size += len(request_id) + 1 + 17 + 2 + 14 + 2
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size)
    cdef char* at = PyBytes_AS_STRING(made)
    put(&at, method)
    literal(&at, b" ", 1)
    put(&at, target)
    literal(&at, b" HTTP/1.1\r\nHost: ", 17)
    put(&at, authority)
    literal(&at, b"\r\n", 2)
    put(&at, fields)
    put(&at, extra)
    put(&at, forwarding)
    literal(&at, b"X-Request-ID: ", 14)
    put(&at, request_id)
    literal(&at, b"\r\n", 2)
    return made


cpdef bytes request(
    bytes prefix, bytes context, bytes other_context, bytes body
):
    """See ``compose.py``."""
    cdef Py_ssize_t size = len(prefix) + len(context) + len(other_context)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size + 2 + len(body))
    cdef char* at = PyBytes_AS_STRING(made)
    put(&at, prefix)
    put(&at, context)
    put(&at, other_context)
    literal(&at, b"\r\n", 2)
    put(&at, body)
    return made


cpdef bytes response(
    bytes reason, bytes fields, bytes extra, bytes data, Py_ssize_t start, Py_ssize_t stop
):
    """See ``compose.py``."""
    cdef Py_ssize_t size = len(reason) + len(fields) + len(extra)
    cdef bytes made
    cdef char* at
    if not 0 <= start <= stop <= len(data):
        raise ValueError(f"{start} to {stop} of {len(data)} bytes")
    made = PyBytes_FromStringAndSize(NULL, size + 13 + stop - start)
    at = PyBytes_AS_STRING(made)
    literal(&at, b"HTTP/1.1 ", 9)
    put(&at, reason)
    literal(&at, b"\r\n", 2)
    put(&at, fields)
    put(&at, extra)
    literal(&at, b"\r\n", 2)
    literal(&at, PyBytes_AS_STRING(data) + start, stop - start)
    return made


cpdef bytes length_line(long long length):
    """See ``compose.py``."""
    cdef char digits[DIGITS]
    cdef char* at
    cdef int count = 0
    cdef unsigned long long left = length
    if length < 0:
        raise ValueError(length)
    while left or not count:
        count += 1
        digits[DIGITS - count] = c"0" + left % 10
        left //= 10
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 16 + count + 2)
    at = PyBytes_AS_STRING(made)
    literal(&at, b"Content-Length: ", 16)
    literal(&at, &digits[DIGITS - count], count)
    literal(&at, b"\r\n", 2)
    return made
