cdef class Stage:
    cpdef void data_received(self, bytes data) except *
    cpdef void write(self, object data) except *
    cpdef bint is_closing(self) except -1
