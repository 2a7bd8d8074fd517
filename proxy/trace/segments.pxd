cdef class Segments:
    cdef list _full
    cdef bytes _open
    cdef Py_ssize_t _used
    cdef readonly Py_ssize_t size

    cpdef void add(self, bytes blob) except *
    cdef int fill(self, const char* data, Py_ssize_t left) except -1
    cpdef list take(self)
