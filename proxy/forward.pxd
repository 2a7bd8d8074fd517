from proxy.connection cimport Connection
from proxy.http1.compose cimport length_line, request_prefix, response
from proxy.http1.framing cimport content_length
from proxy.http1.head cimport RequestHead, ResponseHead
from proxy.request cimport Request
from proxy.route.table cimport Route
from proxy.trace.ids cimport trace_id
from proxy.trace.lines cimport hexed
from proxy.worker cimport Worker

import cython


@cython.locals(head=RequestHead, downstream=Connection, authority=bytes, forwarding=bytes, route=Route)
cpdef bytes request_head(Request x)

cdef bytes _forwarding(Request x, bytes host)

cdef bytes _request_id(Request x)

cpdef bint may_keep(Request x) except -1

@cython.locals(status=int, keep="bint", noted=dict, length=bytes, extra=bytes, fields=bytes, route=Route)
cpdef bytes response_head(Request x, ResponseHead head, long long framing, bytes data, Py_ssize_t start, Py_ssize_t stop)
