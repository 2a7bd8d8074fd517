cpdef bytes request_prefix(
    bytes method, bytes target, bytes authority, bytes fields, bytes extra, bytes forwarding, bytes request_id
)
cpdef bytes request(bytes prefix, bytes context, bytes other_context, bytes body)
cpdef bytes response(
    bytes reason, bytes fields, bytes extra, bytes data, Py_ssize_t start, Py_ssize_t stop
)
cpdef bytes length_line(long long length)
