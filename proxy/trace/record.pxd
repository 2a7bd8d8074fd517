cdef class Link:
    cdef public bytes trace_id
    cdef public bytes span_id
    cdef public int flags
    cdef public bytes tracestate
    cdef public long long generation
    cdef public Link more


cdef class AttemptRecord:
    cdef public long long connect_ns
    cdef public object connection
    cdef public long long dns_ns
    cdef public long long end_ns
    cdef public str error_type
    cdef public long long first_byte_ns
    cdef public str host
    cdef public long long queue_ns
    cdef public long long request_end
    cdef public long long request_start
    cdef public long long response_end
    cdef public long long response_start
    cdef public str scheme
    cdef public long long sent_ns
    cdef public bytes span_id
    cdef public long long start_ns
    cdef public object tcp
    cdef public long long tls_ns
    cdef public long long write_ns
    # Last, so that there are no holes between them.
    cdef public bint abandoned
    cdef public int port
    cdef public int resend
    cdef public bint reused
    cdef public int status
    cdef public bint until_close


cdef class RequestRecord:
    cdef public long long admit_ns
    cdef public object attempts
    cdef public str client_address
    cdef public str detail
    cdef public long long end_ns
    cdef public str error_type
    cdef public long long generation
    cdef public bytes host
    cdef public Link link
    cdef public long long loop_lag_us
    cdef public bytes method
    cdef public str outcome
    cdef public bytes parent_id
    cdef public bytes path
    cdef public str peer_address
    cdef public bytes query
    cdef public long long request_body_size
    cdef public long long response_body_size
    cdef public object route
    cdef public long long route_ns
    cdef public str scheme
    cdef public long long self_ns
    cdef public bytes sent_path
    cdef public bytes span_id
    cdef public long long start_ns
    cdef public object tcp
    cdef public bytes trace_id
    cdef public bytes tracestate
    cdef public bytes user_agent
    # Last, so that there are no holes between them.
    cdef public int client_port
    cdef public int flags
    cdef public int peer_port
    cdef public bint recorded
    cdef public int server_port
    cdef public int status
    cdef public int version
    cdef public bint watched
