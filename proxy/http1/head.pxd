cdef class RequestHead:
    cdef public bytes method
    cdef public bytes target
    cdef public Py_ssize_t mark
    cdef public bint plain
    cdef public bint claims
    cdef public bint context
    cdef public int minor
    cdef public bytes fields
    cdef public dict noted


cdef class ResponseHead:
    cdef public int status
    cdef public bytes reason
    cdef public int minor
    cdef public bytes fields
    cdef public dict noted
