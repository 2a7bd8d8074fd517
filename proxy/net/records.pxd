import cython


cdef class Records:
    cdef public bytes _backlog
    cdef public bytes _early
    cdef public object _incoming
    cdef public object _outgoing
    cdef public bint close_notify
    cdef public bint done
    cdef public object error
    cdef public str failure
    cdef public long long skipped
    cdef public object tls

    cpdef bytes shake(self, bytes ciphertext)

    @cython.locals(pieces=list, start=Py_ssize_t, piece=bytes)
    cpdef bytes decrypt(self, bytes ciphertext)

    @cython.locals(size=Py_ssize_t)
    cdef bytes _first(self, bytes ciphertext)

    @cython.locals(pieces=list, size=Py_ssize_t, start=Py_ssize_t)
    cpdef bytes encrypt(self, object plaintext)
    cpdef bytes drain(self)
    cpdef bytes close(self)
