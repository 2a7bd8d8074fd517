# cython: boundscheck=False, wraparound=False
"""The compiled twin of `encode`: the same bytes, written into one buffer.

The usual request is written here; what is longer, or has a link, is left to the twin (`encode.Encoder`), whose caches
also make every chunk that is met for the first time. The rows of a span keep the twin's order and widths, which it
defines: templates are packed by it, and only the numbers in them are written here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject_Hash
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy

from proxy.net.tcp_info cimport Reading
from proxy.trace import chunks, encode, numbers, semconv, wire
from proxy.trace.record cimport AttemptRecord, RequestRecord
from proxy.trace.segments cimport Segments

cdef enum:
    ROOM = 32768  # bytes of the buffer: two spans of the longest usual URL and some attempts
    PLACES = 4096  # of each cache; what collides is made anew from the twin's
    SHORT = 256  # bytes of a path or query that is written here
    NARROW = 14  # bits of a padded varint of two bytes (`wire.NARROW_BITS`)
    WIDE = 28
    WIDEST = 42
    ACCOUNT = 1024  # bytes of the row of a kernel's account: seven figures
    VERB = 0xFF  # as `chunks` has them
    NAME_END = 0xFE

cdef bytes IDS = encode._pack_ids(
    encode._TRACE_ID, bytes(16), encode._SPAN_ID, bytes(8), encode._START, 0, encode._END, 0, encode._FLAGS, 0
)
# Offsets in every span: the ids, times and flags of `encode._IDS`.
cdef enum:
    AT_TRACE = 2
    AT_SPAN = 20
    AT_START = 29
    AT_END = 38
    AT_FLAGS = 48
    AFTER_IDS = 52
    AT_PARENT = 54  # of a CLIENT span

cdef bytes SERVER = encode._pack_server(
    encode._TRACE_ID, bytes(16), encode._SPAN_ID, bytes(8), encode._START, 0, encode._END, 0, encode._FLAGS, 0,
    encode._ADMIT, 0, encode._ROUTE, 0, encode._SELF, 0, encode._LAG, 0,
    encode._PEER_PORT, 0, 0, encode._SIZE, 0, 0,
)
cdef int AT_ADMIT = AFTER_IDS + len(encode._ADMIT)
cdef int AT_ROUTE = AT_ADMIT + 2 + len(encode._ROUTE)
cdef int AT_SELF = AT_ROUTE + 2 + len(encode._SELF)
cdef int AT_LAG = AT_SELF + 2 + len(encode._LAG)
cdef int AT_PORT = AT_LAG + 2 + len(encode._PEER_PORT)
cdef int AT_SIZE = AT_PORT + 3 + len(encode._SIZE)

cdef bytes CLIENT = encode._pack_client(
    encode._TRACE_ID, bytes(16), encode._SPAN_ID, bytes(8), encode._START, 0, encode._END, 0, encode._FLAGS, 0,
    encode._PARENT_ID, bytes(8),
    encode._WAIT, 0, 0, encode._RELAY, 0, 0, encode._Q0, 0, 0, encode._Q1, 0, 0, encode._P0, 0, 0, encode._P1, 0, 0,
)
cdef int AT_WAIT = AT_PARENT + 8 + len(encode._WAIT)
cdef int AT_RELAY = AT_WAIT + 4 + len(encode._RELAY)
cdef int AT_Q0 = AT_RELAY + 4 + len(encode._Q0)
cdef int AT_Q1 = AT_Q0 + 4 + len(encode._Q1)
cdef int AT_P0 = AT_Q1 + 4 + len(encode._P0)
cdef int AT_P1 = AT_P0 + 4 + len(encode._P1)

if (len(IDS), len(SERVER), len(CLIENT)) != (AFTER_IDS, AT_SIZE + 4, AT_P1 + 4):
    raise ImportError("the rows of proxy.trace.encode are not those of its compiled twin; build both anew")

if (chunks.VERB, chunks.NAME_END) != (bytes([VERB]), bytes([NAME_END])):
    raise ImportError("the names of proxy.trace.chunks are not those of proxy.trace.encoder; build both anew")

cdef bytes NAME = wire.delimited(chunks.NAME, b"")[:1]  # its tag
cdef bytes UNROUTED = chunks.VERB + chunks.NAME_END  # what a route would have: the method as the name, no attributes
cdef bytes PARENT_ID = encode._PARENT_ID
cdef bytes SPANS = encode._SPANS
cdef tuple PATHS = encode._PATH
cdef tuple URLS = encode._URL
cdef tuple HOSTS = tuple([wire.text_head(semconv.SERVER_ADDRESS.name, length) for length in range(SHORT)])
cdef tuple QUERIES = tuple([wire.text_head(semconv.URL_QUERY.name, length) for length in range(SHORT)])
cdef str GONE = semconv.CLIENT_GONE
cdef int LOCAL = encode._LOCAL, REMOTE = encode._REMOTE
cdef bytes EMPTY = b""
# What is longer is not kept, as in the twin.
cdef Py_ssize_t MOST_METHOD = encode._CACHED_METHOD
cdef Py_ssize_t MOST_AGENT = encode._CACHED_AGENT, MOST_ADDRESS = encode._CACHED_ADDRESS


# The kernel's account, in the order of `numbers.tcp`: each figure's head for a varint of 2, 4 and 6 bytes.
cdef tuple ACCOUNTS = tuple([
    tuple([wire.integer_head(attribute.name, width) for width in (2, 4, 6)])
    for attribute in (
        semconv.TCP_RTT_US, semconv.TCP_MIN_RTT_US, semconv.TCP_SEGMENTS, semconv.TCP_RETRANSMITTED,
        semconv.TCP_RWND_LIMITED_US, semconv.TCP_SNDBUF_LIMITED_US, semconv.TCP_DELIVERY_RATE,
    )
])

if sum([len(heads[2]) + 6 for heads in ACCOUNTS]) > ACCOUNT:
    raise ImportError("the kernel's account has no room in proxy.trace.encoder; give it more")


cdef class ServerChunk:
    """What `chunks.Chunks.server` made, and of what."""

    cdef bytes method, verb, chunk
    cdef str scheme, outcome, error
    cdef int status, port, version
    cdef long long generation


cdef class ClientChunk:
    """What `chunks.Chunks.client` and `chunks.origin` made, and of what."""

    cdef bytes method, chunk, origin
    cdef str host, scheme, error
    cdef int port, status, resend
    cdef bint reused, gone


cdef class PeerChunk:
    """What `chunks.peer` made, and of what."""

    cdef str client, peer
    cdef bytes agent, chunk


cdef inline void put(unsigned char** at, bytes data) noexcept:
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data)
    memcpy(at[0], PyBytes_AS_STRING(data), size)
    at[0] += size


cdef inline void varint(unsigned char** at, size_t value) noexcept nogil:
    while value > 0x7F:
        at[0][0] = (value & 0x7F) | 0x80
        value >>= 7
        at[0] += 1
    at[0][0] = value
    at[0] += 1


cdef inline void narrow(unsigned char* at, unsigned int value) noexcept nogil:
    at[0] = (value & 0x7F) | 0x80
    at[1] = value >> 7


cdef inline void low(unsigned char* at, unsigned int value) noexcept nogil:
    at[0] = (value & 0x7F) | 0x80
    at[1] = ((value >> 7) & 0x7F) | 0x80


cdef inline void wide(unsigned char* at, unsigned int value) noexcept nogil:
    low(at, value & 0x3FFF)
    narrow(at + 2, value >> NARROW)


cdef inline void figure(unsigned char** at, size_t number, long long value) noexcept:
    """A figure of `ACCOUNTS` below 2**42, as wide as `wire.integer_writer` makes it; none that is not above 0."""
    cdef tuple heads
    if value <= 0:
        return
    heads = <tuple>ACCOUNTS[number]
    if not value >> NARROW:
        put(at, <bytes>heads[0])
        narrow(at[0], value)
        at[0] += 2
    elif not value >> WIDE:
        put(at, <bytes>heads[1])
        wide(at[0], value)
        at[0] += 4
    else:
        put(at, <bytes>heads[2])
        low(at[0], value & 0x3FFF)
        wide(at[0] + 2, value >> NARROW)
        at[0] += 6


cdef bytes account(object tcp):
    """See `numbers.tcp`."""
    cdef unsigned char row[ACCOUNT]
    cdef unsigned char* at = row
    cdef Reading reading
    if type(tcp) is not Reading:
        return numbers.tcp(tcp)
    reading = <Reading>tcp
    if (reading.delivery_rate | reading.rwnd_limited_us | reading.sndbuf_limited_us) >> WIDEST:
        return numbers.tcp(tcp)  # a kernel's nonsense, mostly
    if (reading.rtt_us | reading.min_rtt_us | reading.segments | reading.retransmitted) >> WIDEST:
        return numbers.tcp(tcp)
    figure(&at, 0, reading.rtt_us)
    figure(&at, 1, reading.min_rtt_us)
    figure(&at, 2, reading.segments)
    figure(&at, 3, reading.retransmitted)
    figure(&at, 4, reading.rwnd_limited_us)
    figure(&at, 5, reading.sndbuf_limited_us)
    figure(&at, 6, reading.delivery_rate)
    return PyBytes_FromStringAndSize(<char*>row, at - row)


cdef inline void ids(
    unsigned char* at, bytes trace_id, bytes span_id, uint64_t start, uint64_t end, uint32_t flags
) noexcept:
    # Little-endian, as protobuf's fixed64 and every machine that Spanway's wheels are built for.
    memcpy(at + AT_TRACE, PyBytes_AS_STRING(trace_id), 16)
    memcpy(at + AT_SPAN, PyBytes_AS_STRING(span_id), 8)
    memcpy(at + AT_START, &start, 8)
    memcpy(at + AT_END, &end, 8)
    memcpy(at + AT_FLAGS, &flags, 4)


cdef inline bint same(str one, str other) except -1:
    return one is other or one == other


cdef inline bint equal(bytes one, bytes other) except -1:
    return one is other or one == other


cdef inline bint ascii(bytes text) noexcept:
    cdef unsigned char* at = <unsigned char*>PyBytes_AS_STRING(text)
    cdef unsigned char bits = 0
    cdef Py_ssize_t index
    for index in range(PyBytes_GET_SIZE(text)):
        bits |= at[index]
    return bits < 0x80


cdef class Encoder:
    """See `encode.Encoder`."""

    def __cinit__(self):
        self._out = <unsigned char*>malloc(ROOM)
        if self._out is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._out)

    def __init__(self, tracing):
        self._twin = encode.Encoder(tracing)
        self._redactor = self._twin._redactor
        self._servers = [None] * PLACES
        self._clients = [None] * PLACES
        self._peers = [None] * PLACES

    def __repr__(self):
        return f"{self._twin!r}, compiled"

    cpdef bytes encode(self, RequestRecord record):
        """See `encode.Encoder.encode`."""
        return PyBytes_FromStringAndSize(<char*>self._out, self._size) if self._write(record) else self._twin.encode(record)

    cpdef Py_ssize_t append(self, RequestRecord record, Segments segments, Py_ssize_t most) except -1:
        """See `encode.Encoder.append`."""
        if not self._write(record):
            return self._twin.append(record, segments, most)
        if segments.size + self._size > most:
            return self._size
        segments.fill(<char*>self._out, self._size)
        return 0

    cdef bint _write(self, RequestRecord record) except -1:
        """Write the spans to the buffer; False if they are the twin's."""
        cdef bytes target, query = EMPTY, state = EMPTY
        cdef AttemptRecord attempt
        cdef bint gone
        cdef Py_ssize_t index, last
        cdef list attempts
        # The path that the upstream was asked for is another one, or somebody is linked to: seldom enough.
        if record.sent_path or record.link is not None or len(record.path) >= SHORT or not ascii(record.path):
            return False
        if len(record.trace_id) != 16 or len(record.span_id) != 8:
            raise ValueError("a trace id is 16 bytes, a span id 8")
        target = record.path
        if len(record.query):
            query = self._redactor.query(record.query)
            if len(query) >= SHORT or not ascii(query):
                return False
            target = target + b"?" + query
        if len(record.tracestate):
            state = encode._write_trace_state(record.tracestate)
        self._size = 0
        if not self._server(record, target, query, state):
            return False
        attempts = list(record.attempts) if type(record.attempts) is not list else <list>record.attempts
        last = len(attempts) - 1
        if last >= 0:
            gone = same(record.outcome, GONE) or same(record.error_type, GONE)
            for index in range(last + 1):
                attempt = <AttemptRecord?>attempts[index]
                if not self._attempt(record, attempt, gone and index == last, target, state):
                    return False
        return True

    cdef bint _server(self, RequestRecord record, bytes target, bytes query, bytes state) except -1:
        cdef ServerChunk chunk = self._server_chunk(record)
        cdef bytes static = chunk.chunk
        cdef bytes verb = chunk.verb
        cdef Py_ssize_t verb_size = len(verb)
        cdef bytes host = record.host, host_head = EMPTY
        cdef bytes parts = _parts(record.route)
        cdef unsigned char* template = <unsigned char*>PyBytes_AS_STRING(parts)
        cdef unsigned char* template_end = <unsigned char*>memchr(template, NAME_END, len(parts))
        cdef unsigned char* mark
        cdef Py_ssize_t name, attributes
        cdef bytes peer = self._peer_chunk(record)
        cdef bytes path = record.path
        cdef Py_ssize_t length = len(path)
        cdef bytes path_head = <bytes>PATHS[length]
        cdef bytes rest, extra = EMPTY, odd = EMPTY, head = SERVER
        cdef long long start = record.start_ns, end = record.end_ns
        cdef long long admit, routed, own, lag, size, port, total
        cdef uint32_t flags = (record.flags & 0xFF) | LOCAL
        cdef bint parent = record.parent_id is not None and len(record.parent_id) != 0
        cdef unsigned char* at
        cdef unsigned char* begin
        if parent:
            if len(record.parent_id) != 8:
                raise ValueError("a parent's id is 8 bytes, or none")
            flags |= REMOTE
        if record.request_body_size:
            extra = encode._write_request_size(record.request_body_size)
        if record.tcp is not None:
            extra = extra + account(record.tcp)
        if end < start:
            end = start
        # Negative is what never happened; it has bits above every width, as what is too large has.
        admit = floor_us(record.admit_ns - start)
        routed = floor_us(record.route_ns - record.admit_ns)
        own = floor_us(record.self_ns)
        lag = record.loop_lag_us
        port = record.peer_port
        size = record.response_body_size
        if (admit | routed | own | lag) >> NARROW or not 0 < size < 1 << WIDE or not 0 < port < 1 << 16:
            head = IDS
            odd = numbers.server(record)
        if template_end is NULL:
            raise ValueError("a route's span_parts have no end of the name")
        name = template_end - template
        attributes = len(parts) - name - 1
        mark = <unsigned char*>memchr(template, VERB, name)
        while mark is not NULL:
            name += verb_size - 1
            mark += 1
            mark = <unsigned char*>memchr(mark, VERB, template_end - mark)
        if 0 < len(host) < SHORT and ascii(host) and memchr(PyBytes_AS_STRING(host), b"@", len(host)) is NULL:
            host_head = <bytes>HOSTS[len(host)]
        else:
            host = encode.address(host)
        rest = <bytes>QUERIES[len(query)]
        total = len(head) + len(static) + len(peer)
        total += 1 + varint_size(name) + name
        total += attributes + len(host_head) + len(host)
        total += len(path_head) + length + len(state) + len(extra)
        total += len(odd)
        if query is not EMPTY:
            total += len(rest) + len(query)
        if parent:
            total += 10
        at = self._open(total)
        if at is NULL:
            return False
        begin = at
        put(&at, head)
        ids(begin, record.trace_id, record.span_id, start, end, flags)
        if head is SERVER:
            narrow(begin + AT_ADMIT, admit)
            narrow(begin + AT_ROUTE, routed)
            narrow(begin + AT_SELF, own)
            narrow(begin + AT_LAG, lag)
            low(begin + AT_PORT, port & 0x3FFF)
            begin[AT_PORT + 2] = port >> NARROW
            wide(begin + AT_SIZE, size)
        put(&at, NAME)
        varint(&at, name)
        mark = <unsigned char*>memchr(template, VERB, template_end - template)
        while mark is not NULL:
            memcpy(at, template, mark - template)
            at += mark - template
            put(&at, verb)
            template = mark + 1
            mark = <unsigned char*>memchr(template, VERB, template_end - template)
        memcpy(at, template, template_end - template)
        at += template_end - template
        put(&at, static)
        put(&at, host_head)
        put(&at, host)
        memcpy(at, template_end + 1, attributes)
        at += attributes
        put(&at, peer)
        put(&at, path_head)
        put(&at, path)
        if query is not EMPTY:
            put(&at, rest)
            put(&at, query)
        put(&at, state)
        put(&at, extra)
        if parent:
            put(&at, PARENT_ID)
            put(&at, record.parent_id)
        put(&at, odd)
        self._size = at - self._out
        return True

    cdef bint _attempt(
        self, RequestRecord record, AttemptRecord attempt, bint gone, bytes target, bytes state
    ) except -1:
        cdef ClientChunk chunk = self._client_chunk(record, attempt, gone)
        cdef bytes ends = EMPTY, odd = EMPTY, opening = EMPTY, head = CLIENT, url_head
        cdef object connection = attempt.connection
        cdef long long start = record.start_ns, end = record.end_ns
        cdef long long begin_ns = attempt.start_ns, finish = attempt.end_ns, first = attempt.first_byte_ns
        cdef long long wait, relay, total
        cdef Py_ssize_t length = len(chunk.origin) + len(target)
        cdef uint32_t flags = (record.flags & 0xFF) | LOCAL
        cdef unsigned char* at
        cdef unsigned char* begin
        if len(attempt.span_id) != 8:
            raise ValueError("a span id is 8 bytes")
        if length >= 2 * SHORT:
            return False
        url_head = <bytes>URLS[length]
        if connection is not None:
            ends = connection.span_attributes or encode._ends(connection)
        if end < start:
            end = start
        if begin_ns < start:
            begin_ns = start
        elif begin_ns > end:
            begin_ns = end
        if finish < begin_ns:
            finish = begin_ns
        elif finish > end:
            finish = end
        wait = floor_us(first - attempt.sent_ns)
        relay = floor_us(finish - first)
        if (
            wait | relay | attempt.request_start | attempt.request_end | attempt.response_start | attempt.response_end
        ) >> WIDE:
            head = IDS
            odd = PARENT_ID + record.span_id + numbers.client(attempt, finish)
        if attempt.connect_ns or attempt.queue_ns or attempt.dns_ns or attempt.tls_ns:
            opening = numbers.opening(attempt)
        if attempt.tcp is not None:
            opening = opening + account(attempt.tcp)
        total = len(head) + len(odd) + len(opening)
        total += len(chunk.chunk) + len(ends) + len(url_head)
        total += length + len(state)
        at = self._open(total)
        if at is NULL:
            return False
        begin = at
        put(&at, head)
        ids(begin, record.trace_id, attempt.span_id, begin_ns, finish, flags)
        if head is CLIENT:
            memcpy(begin + AT_PARENT, PyBytes_AS_STRING(record.span_id), 8)
            wide(begin + AT_WAIT, wait)
            wide(begin + AT_RELAY, relay)
            wide(begin + AT_Q0, attempt.request_start)
            wide(begin + AT_Q1, attempt.request_end)
            wide(begin + AT_P0, attempt.response_start)
            wide(begin + AT_P1, attempt.response_end)
        put(&at, odd)
        put(&at, opening)
        put(&at, chunk.chunk)
        put(&at, ends)
        put(&at, url_head)
        put(&at, chunk.origin)
        put(&at, target)
        put(&at, state)
        self._size = at - self._out
        return True

    cdef unsigned char* _open(self, Py_ssize_t size) noexcept:
        """Where a span of ``size`` bytes goes, behind its tag and length; NULL if there is no room."""
        cdef unsigned char* at = self._out + self._size
        if self._size + size + 8 > ROOM:
            return NULL
        put(&at, SPANS)
        varint(&at, size)
        return at

    cdef object _server_chunk(self, RequestRecord record):
        cdef ServerChunk entry
        cdef int port = record.server_port if len(record.host) else 0
        # Outcomes and faults are constants: where one lies is as good as what it says.
        cdef size_t place = <size_t><void*>record.outcome >> 4 ^ <size_t><void*>record.error_type >> 6
        place ^= PyObject_Hash(record.method) ^ PyObject_Hash(record.scheme)
        place ^= <size_t>record.status * 31 ^ <size_t>port ^ <size_t>record.version << 11
        place &= PLACES - 1
        entry = <ServerChunk>self._servers[place]
        if (
            entry is None
            or entry.status != record.status
            or entry.generation != record.generation
            or entry.port != port
            or entry.version != record.version
            or not equal(entry.method, record.method)
            or not same(entry.scheme, record.scheme)
            or not same(entry.outcome, record.outcome)
            or not same(entry.error, record.error_type)
        ):
            entry = ServerChunk.__new__(ServerChunk)
            entry.status, entry.generation, entry.port, entry.version = record.status, record.generation, port, record.version
            entry.method, entry.scheme = record.method, record.scheme
            entry.outcome, entry.error = record.outcome, record.error_type
            entry.verb, entry.chunk = self._twin.server_chunk(record)
            if len(record.method) <= MOST_METHOD:
                self._servers[place] = entry
        return entry

    cdef bytes _peer_chunk(self, RequestRecord record):
        cdef PeerChunk entry
        cdef size_t place = (PyObject_Hash(record.client_address) ^ PyObject_Hash(record.user_agent)) & (PLACES - 1)
        entry = <PeerChunk>self._peers[place]
        if (
            entry is None
            or not same(entry.client, record.client_address)
            or not same(entry.peer, record.peer_address)
            or not equal(entry.agent, record.user_agent)
        ):
            entry = PeerChunk.__new__(PeerChunk)
            entry.client, entry.peer, entry.agent = record.client_address, record.peer_address, record.user_agent
            entry.chunk = self._twin.peer_chunk(record)
            if len(record.user_agent) <= MOST_AGENT and len(record.client_address) <= MOST_ADDRESS:
                self._peers[place] = entry
        return entry.chunk

    cdef object _client_chunk(self, RequestRecord record, AttemptRecord attempt, bint gone):
        cdef ClientChunk entry
        cdef size_t place = PyObject_Hash(attempt.host) ^ <size_t>attempt.port ^ <size_t>attempt.status * 31
        place = (place ^ <size_t>attempt.reused << 4 ^ PyObject_Hash(record.method)) & (PLACES - 1)
        entry = <ClientChunk>self._clients[place]
        if (
            entry is None
            or entry.port != attempt.port
            or entry.status != attempt.status
            or entry.resend != attempt.resend
            or entry.reused != attempt.reused
            or entry.gone != gone
            or not equal(entry.method, record.method)
            or not same(entry.host, attempt.host)
            or not same(entry.scheme, attempt.scheme)
            or not same(entry.error, attempt.error_type)
        ):
            entry = ClientChunk.__new__(ClientChunk)
            entry.method, entry.host, entry.scheme, entry.error = (
                record.method, attempt.host, attempt.scheme, attempt.error_type
            )
            entry.port, entry.status, entry.resend = attempt.port, attempt.status, attempt.resend
            entry.reused, entry.gone = attempt.reused, gone
            entry.chunk, entry.origin = self._twin.client_chunk(record, attempt, gone)
            if len(record.method) <= MOST_METHOD:
                self._clients[place] = entry
        return entry


cdef inline bytes _parts(object route):
    """What is kept on the route."""
    if route is None:
        return UNROUTED
    parts = route.span_parts
    return encode.parts(route) if parts is None else parts


cdef inline Py_ssize_t varint_size(size_t value) noexcept nogil:
    cdef Py_ssize_t size = 1
    while value > 0x7F:
        value >>= 7
        size += 1
    return size


cdef inline long long floor_us(long long duration_ns) noexcept nogil:
    """Whole microseconds; negative stays negative, as in Python."""
    return duration_ns // 1000 if duration_ns >= 0 else -1
