cpdef bytes default_lines(bytes trace_id, bytes span_id, int flags, bytes tracestate)
cpdef bytes hexed(bytes value)
