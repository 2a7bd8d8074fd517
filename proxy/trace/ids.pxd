cpdef bytes trace_id()
cpdef bytes span_id()
