from proxy.net.stage cimport Stage
from proxy.net.tls cimport TlsTransport
from proxy.worker cimport Worker


cdef class Connection(Stage):
    cdef public bint _blank
    cdef public bint _breathing
    cdef public bytes _buffer
    cdef public Py_ssize_t _checked
    cdef public bint _closing
    cdef public bint _paused
    cdef public long long _start_ns
    cdef public Py_ssize_t _unsent
    cdef public str client_address
    cdef public int client_port
    cdef public double deadline
    cdef public bint ended
    cdef public object exchange
    cdef public bytes forwarded_for
    cdef public bytes forwarding
    cdef public bytes forwarding_of
    cdef public int forwarding_port
    cdef public int local_port
    cdef public object opening
    cdef public str peer_address
    cdef public int peer_port
    cdef public object probe
    cdef public str scheme
    cdef public bint stalled
    cdef public TlsTransport tls
    cdef public Stage transport
    cdef public bint trusted
    cdef public Worker worker

    cpdef void finished(self, bint keep, long long unread) except *
    cpdef void send(self, bytes data, bint last) except *
    cpdef void hold(self, bytes data) except *
    cpdef void pause(self) except *
    cpdef void resume(self) except *
