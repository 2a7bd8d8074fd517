cdef class Node:
    cdef public object rule
    cdef public bint deeper


cdef class PathTree:
    cdef public dict exact
    cdef public object nodes
    cdef public object root

    cpdef object find(self, bytes path)
