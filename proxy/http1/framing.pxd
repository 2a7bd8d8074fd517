import cython

from proxy.http1.head cimport RequestHead, ResponseHead


@cython.locals(noted=dict, coding=bytes, length=bytes)
cpdef long long request_framing(RequestHead head) except? -9

@cython.locals(noted=dict, coding=bytes, length=bytes, status=int, size="long long")
cpdef long long response_framing(ResponseHead head, bytes method) except? -9

@cython.locals(length=Py_ssize_t, size="long long", digit="unsigned char")
cpdef long long content_length(bytes value) except? -9
