from proxy.http1.scan cimport find_slash

import cython


cdef class Node:
    cdef public object rule
    cdef public bint deeper


cdef class PathTree:
    cdef public dict exact
    cdef public dict nodes
    cdef public object root

    @cython.locals(nodes=dict, inner=Node, slash=Py_ssize_t)
    cpdef object find(self, bytes path)
