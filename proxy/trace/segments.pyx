"""The compiled twin of ``segments.py``: pieces are filled where they stay."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy

SIZE = 120 * 1024

cdef enum:
    PIECE = 122880  # SIZE


cdef class Segments:
    """See ``segments.py``."""

    def __init__(self):
        self._full = []

    def __repr__(self):
        return f"Segments({self.size} bytes)"

    cpdef void add(self, bytes blob) except *:
        """See ``segments.py``."""
        self.fill(PyBytes_AS_STRING(blob), PyBytes_GET_SIZE(blob))

    cdef int fill(self, const char* data, Py_ssize_t left) except -1:
        """As `add`, from anywhere."""
        cdef Py_ssize_t part
        self.size += left
        while left:
            if self._open is None:
                # Filled before anybody else sees it.
                self._open = PyBytes_FromStringAndSize(NULL, PIECE)
                self._used = 0
            part = min(left, PIECE - self._used)
            memcpy(PyBytes_AS_STRING(self._open) + self._used, data, part)
            self._used += part
            data += part
            left -= part
            if self._used == PIECE:
                self._full.append(self._open)
                self._open = None
        return 0

    cpdef list take(self):
        """See ``segments.py``."""
        cdef list pieces = self._full
        if self._open is not None and self._used:
            pieces.append(PyBytes_FromStringAndSize(PyBytes_AS_STRING(self._open), self._used))
            self._used = 0  # and is filled anew
        self._full = []
        self.size = 0
        return pieces
