from libc.stdint cimport int64_t

from proxy.layers.packet cimport Row


cdef class Track:
    cdef readonly int64_t floor_ns
    cdef Row* _rows
    cdef Py_ssize_t _room  # of _rows
    cdef Py_ssize_t _first  # of those in use
    cdef Py_ssize_t _count

    cdef int _add(self, const Row* row) except -1
    cdef int _make_room(self) except -1
    cdef Py_ssize_t _before(self, int64_t ts_ns) noexcept
    cdef Py_ssize_t _forget(self, int64_t before_ns) noexcept
    cpdef bytes window(self, object start_ns, object end_ns)


cdef class Tracks:
    cdef readonly list at
