from proxy.http1.head cimport RequestHead, ResponseHead


cpdef long long request_framing(RequestHead head) except? -9
cpdef long long response_framing(ResponseHead head, bytes method) except? -9
cpdef long long content_length(bytes value) except? -9
