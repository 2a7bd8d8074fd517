from proxy.http1.head cimport RequestHead, ResponseHead


cpdef RequestHead scan_request(bytes head, Py_ssize_t most_line, Py_ssize_t most_fields, bint underscores=*)
cpdef ResponseHead scan_response(bytes head, Py_ssize_t most_fields)
