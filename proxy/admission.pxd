from proxy.admit.host cimport parse_host
from proxy.connection cimport Connection
from proxy.http1.framing cimport request_framing
from proxy.http1.head cimport RequestHead
from proxy.request cimport Request
from proxy.route.table cimport Route
from proxy.trace.begin cimport begin
from proxy.worker cimport Worker

import cython


@cython.locals(
    noted=dict,
    minor=int,
    downstream=Connection,
    target=bytes,
    authority=bytes,
    extra=bytes,
    connection=bytes,
    expect=bytes,
    framing="long long",
)
cpdef void admit(Request x, RequestHead head) except *

@cython.locals(worker=Worker, noted=dict, wanted="bint", trusted="bint")
cpdef void trace(Request x, Route route) except *

@cython.locals(worker=Worker)
cpdef void account(Request x) except *
