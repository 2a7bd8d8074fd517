from proxy.http1.head cimport RequestHead, ResponseHead


cpdef RequestHead scan_request(bytes head, Py_ssize_t most_line, Py_ssize_t most_fields, bint underscores=*, Py_ssize_t end=*)
cpdef ResponseHead scan_response(bytes head, Py_ssize_t most_fields, Py_ssize_t end=*)
cpdef Py_ssize_t find_end(bytes data, Py_ssize_t start=*) except? -2
cpdef Py_ssize_t find_slash(bytes path, Py_ssize_t start) except? -2
