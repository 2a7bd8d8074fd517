# cython: boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `frames`: the same records of the same blocks, and the same counts of what is none."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_GET_SIZE, PyByteArray_Resize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from proxy.layers import frames
from proxy.layers.frames import ACK, DEFAULT_FLOWS, FIN, RECORD, RST, SYN, Flow, Packet

cdef enum:
    BLOCK_HEADER = 48
    PACKET_HEADER = 68  # struct tpacket3_hdr, and struct sockaddr_ll behind it
    KEY = 36
    END = 18  # of the lower endpoint in a key
    FIRST_ROOM = 1024  # connections; doubled as they come
    MOST_TAGS = 2
    SYN_FLAG = 0x02
    MOST_SCALE = 14
    OUTGOING = 4
    VLAN_VALID = 0x10


if sizeof(Row) != RECORD.size:
    raise ImportError("the records of proxy.layers.frames are not those of its compiled twin; build both anew")


cdef inline uint16_t short_at(const uint8_t* at) noexcept:
    """In network order."""
    return <uint16_t>(at[0] << 8 | at[1])


cdef inline uint32_t long_at(const uint8_t* at) noexcept:
    """In network order."""
    return <uint32_t>at[0] << 24 | <uint32_t>at[1] << 16 | <uint32_t>at[2] << 8 | at[3]


cdef inline uint32_t word_at(const uint8_t* at) noexcept:
    """In the machine's order, as the kernel writes it."""
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline uint16_t half_at(const uint8_t* at) noexcept:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return value


cdef class Flows:
    """See ``frames.py``."""

    def __cinit__(self):
        self._seed = int.from_bytes(os.urandom(8), "little")

    def __init__(self, limit=DEFAULT_FLOWS):
        if not 1 <= limit <= 1 << 24:
            raise ValueError(f"a table of {limit} connections; 1 to 16777216 are possible")
        self.limit = limit

    def __dealloc__(self):
        free(self._known)
        free(self._free)
        free(self._slots)

    def __len__(self):
        return self._met - self._spare

    def __iter__(self):
        return iter([number for number in range(self._met) if self._known[number].used])

    def __repr__(self):
        return f"<Flows {len(self)} of {self.limit}>"

    def __getitem__(self, number):
        """See ``frames.py``."""
        cdef uint8_t* key
        if not 0 <= number < self._met or not self._known[<uint32_t>number].used:
            raise IndexError(number)
        key = self._known[<uint32_t>number].key
        return Flow(
            PyBytes_FromStringAndSize(<char*>key, 16), short_at(key + 16),
            PyBytes_FromStringAndSize(<char*>key + END, 16), short_at(key + END + 16),
        )

    def find(self, bytes local not None, local_port, bytes peer not None, peer_port):
        """See ``frames.py``."""
        cdef uint8_t ours[KEY]
        cdef uint8_t theirs[KEY]
        cdef int64_t number
        cdef bint direction
        cdef uint32_t port
        if len(local) != 16 or len(peer) != 16 or not (0 <= local_port <= 65535 and 0 <= peer_port <= 65535):
            raise ValueError("an endpoint is an address of 16 bytes and a port of 0 to 65535")
        memcpy(ours, PyBytes_AS_STRING(local), 16)
        port = local_port
        ours[16], ours[17] = port >> 8, port & 0xFF
        memcpy(theirs, PyBytes_AS_STRING(peer), 16)
        port = peer_port
        theirs[16], theirs[17] = port >> 8, port & 0xFF
        direction = memcmp(ours, theirs, END) > 0
        memcpy(ours + END, theirs, END)
        memcpy(theirs + END, ours, END)
        number = self._look_up(&theirs[0] if direction else &ours[0])
        return None if number < 0 else (number, int(direction))

    def forget(self, int64_t before_ns, most=None):
        """See ``frames.py``."""
        cdef uint32_t number
        cdef uint32_t left = self.limit if most is None else min(most, self.limit)
        cdef list gone = []
        for number in range(self._met):
            if not left:
                break
            if self._known[number].used and self._known[number].last_ns < before_ns:
                self._known[number].used = 0
                self._free[self._spare] = number
                self._spare += 1
                gone.append(number)
                left -= 1
        if gone:
            self._fill()
        return gone

    cdef uint64_t _place(self, const uint8_t* key) noexcept:
        """Where a key is looked for first. Seeded: who chooses ports cannot choose places."""
        cdef uint64_t made = self._seed
        cdef uint64_t word
        cdef int at
        for at in range(0, 32, 8):
            memcpy(&word, key + at, 8)
            made = (made ^ word) * 0x9E3779B97F4A7C15ULL
            made ^= made >> 29
        made = (made ^ word_at(key + 32)) * 0x9E3779B97F4A7C15ULL
        return (made ^ made >> 32) & (2 * <uint64_t>self._room - 1)

    cdef int64_t _look_up(self, const uint8_t* key) noexcept:
        cdef uint64_t place
        cdef uint32_t number
        if not self._room:
            return -1
        place = self._place(key)
        while self._slots[place]:
            number = self._slots[place] - 1
            if memcmp(self._known[number].key, key, KEY) == 0:
                return number
            place = (place + 1) & (2 * <uint64_t>self._room - 1)
        return -1

    cdef void _fill(self) noexcept:
        """Put every connection into the slots anew."""
        cdef uint32_t number
        cdef uint64_t place
        memset(self._slots, 0, 2 * <size_t>self._room * sizeof(uint32_t))
        for number in range(self._met):
            if self._known[number].used:
                place = self._place(self._known[number].key)
                while self._slots[place]:
                    place = (place + 1) & (2 * <uint64_t>self._room - 1)
                self._slots[place] = number + 1

    cdef bint _grow(self) noexcept:
        """Room for twice as many; False if there is no memory."""
        cdef size_t room = 2 * <size_t>self._room if self._room else FIRST_ROOM
        cdef void* known = realloc(self._known, room * sizeof(Known))
        cdef void* spare
        cdef void* slots
        if known is NULL:
            return False
        self._known = <Known*>known
        spare = realloc(self._free, room * sizeof(uint32_t))
        if spare is NULL:
            return False
        self._free = <uint32_t*>spare
        slots = calloc(2 * room, sizeof(uint32_t))
        if slots is NULL:
            return False
        free(self._slots)
        self._slots = <uint32_t*>slots
        self._room = <uint32_t>room
        self._fill()
        return True

    cdef int64_t _number(self, const uint8_t* key, int64_t ts_ns) noexcept:
        """The number of a key, which was seen at ``ts_ns``; -1 if there is no room."""
        cdef int64_t number = self._look_up(key)
        cdef uint64_t place
        if number >= 0:
            if ts_ns > self._known[number].last_ns:
                self._known[number].last_ns = ts_ns
            return number
        if self._spare:
            self._spare -= 1
            number = self._free[self._spare]
        elif self._met < self.limit and (self._met < self._room or self._grow()):
            number = self._met
            self._met += 1
        else:
            return -1
        memcpy(self._known[number].key, key, KEY)
        self._known[number].used = 1
        self._known[number].last_ns = ts_ns
        place = self._place(key)
        while self._slots[place]:
            place = (place + 1) & (2 * <uint64_t>self._room - 1)
        self._slots[place] = <uint32_t>number + 1
        return number


cdef class Packets:
    """See ``frames.py``."""

    def __cinit__(self):
        self.data = bytearray()

    def __len__(self):
        return PyByteArray_GET_SIZE(self.data) // <Py_ssize_t>sizeof(Row) if self.data is not None else 0

    def __getitem__(self, index):
        """See ``frames.py``."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Packet._make(RECORD.unpack_from(self.data, index * RECORD.size))

    def __iter__(self):
        return map(Packet._make, RECORD.iter_unpack(self.data))

    def __repr__(self):
        return f"<Packets {len(self)}, {self.unread} unread, {self.unknown} unknown, {self.torn} torn>"

    def clear(self):
        """See ``frames.py``."""
        self.data.clear()


cpdef Py_ssize_t parse(object block, Flows flows, Packets out) except -1:
    """See ``frames.py``."""
    cdef Py_buffer view
    cdef Py_ssize_t kept, most, made = 0
    if flows is None or out is None or out.data is None:
        raise TypeError("a block is parsed with a table of connections into packets")
    PyObject_GetBuffer(block, &view, PyBUF_SIMPLE)
    try:
        kept = PyByteArray_GET_SIZE(out.data)
        most = view.len // PACKET_HEADER
        if view.len >= BLOCK_HEADER:
            most = min(most, <Py_ssize_t>word_at(<const uint8_t*>view.buf + 12))
        PyByteArray_Resize(out.data, kept + most * <Py_ssize_t>sizeof(Row))
        made = walk(<const uint8_t*>view.buf, view.len, flows, out, <Row*>(PyByteArray_AS_STRING(out.data) + kept))
        PyByteArray_Resize(out.data, kept + made * <Py_ssize_t>sizeof(Row))
    finally:
        PyBuffer_Release(&view)
    return made


cdef Py_ssize_t walk(const uint8_t* data, Py_ssize_t size, Flows flows, Packets out, Row* row) noexcept:
    """Write the records of a block from ``row`` on; returns how many."""
    cdef uint32_t left
    cdef int64_t at, number
    cdef uint32_t step
    cdef Py_ssize_t made = 0
    cdef const uint8_t* header
    cdef uint8_t key[KEY]
    cdef uint8_t turned[KEY]
    cdef bint direction
    if size < BLOCK_HEADER:
        out.torn += 1
        return 0
    left = word_at(data + 12)
    at = word_at(data + 16)
    if at < BLOCK_HEADER:
        at = size
    while left:
        if at + PACKET_HEADER > size:
            out.torn += 1
            break
        header = data + at
        step = word_at(header)
        if not segment(data, at, min(size, at + step) if step >= PACKET_HEADER else size, key, row):
            out.unread += 1
        else:
            row.ts_ns = <int64_t>word_at(header + 4) * 1000000000 + word_at(header + 8)
            direction = memcmp(key, key + END, END) > 0
            if direction:
                memcpy(turned, key + END, END)
                memcpy(turned + END, key, END)
            number = flows._number(&turned[0] if direction else &key[0], row.ts_ns)
            if number < 0:
                out.unknown += 1
            else:
                row.flow = <uint32_t>number
                row.frame = word_at(header + 16)
                row.ifindex = <int32_t>word_at(header + 52)
                row.direction = direction
                row.outgoing = header[58] == OUTGOING
                row += 1
                made += 1
        left -= 1
        if step < PACKET_HEADER:
            out.torn += left != 0
            break
        at += step
    return made


cdef bint segment(const uint8_t* data, int64_t at, int64_t end, uint8_t* key, Row* row) noexcept:
    """Put the segment whose ring header is at ``at``, and which ends at ``end`` at the latest, into ``key`` and ``row``.

    The key is the source, then the target. False if there is none.
    """
    cdef const uint8_t* header = data + at
    cdef int64_t start = at + half_at(header + 24)
    cdef int64_t captured = word_at(header + 12)
    cdef uint32_t frame = word_at(header + 16)
    cdef uint16_t hatype = half_at(header + 56)
    cdef uint16_t vlan = 0
    cdef int64_t packet, tcp, size, length, total, options
    cdef uint32_t kind, protocol
    cdef const uint8_t* p
    cdef int tag
    if half_at(header + 24) < PACKET_HEADER or start + captured > end:
        return False
    end = start + captured
    if word_at(header + 20) & VLAN_VALID:
        vlan = word_at(header + 32) & 0xFFF
    if hatype == 1 or hatype == 772:
        packet = start + 14
        if packet > end:
            return False
        kind = short_at(data + packet - 2)
        for tag in range(MOST_TAGS):
            if kind == 0x8100 or kind == 0x88A8 or kind == 0x9100:
                if packet + 4 > end:
                    return False
                vlan = vlan or short_at(data + packet) & 0xFFF
                kind = short_at(data + packet + 2)
                packet += 4
    else:
        packet = at + half_at(header + 26)
        kind = short_at(header + 50)
    size = frame - (packet - start)
    if packet < start or size < 0:
        return False
    p = data + packet
    if kind == 0x0800:
        if packet + 20 > end:
            return False
        if not 0x45 <= p[0] <= 0x4F or short_at(p + 6) & 0x3FFF or p[9] != 6:
            return False
        total = short_at(p + 2)
        tcp = packet + (p[0] & 0xF) * 4
        memset(key, 0, 10)
        memset(key + END, 0, 10)
        key[10] = key[11] = key[END + 10] = key[END + 11] = 0xFF
        memcpy(key + 12, p + 12, 4)
        memcpy(key + END + 12, p + 16, 4)
    elif kind == 0x86DD:
        if packet + 40 > end:
            return False
        if p[0] >> 4 != 6:
            return False
        total = short_at(p + 4)
        if total:
            total += 40
        protocol = p[6]
        tcp = packet + 40
        if protocol == 0:
            if tcp + 2 > end:
                return False
            protocol = p[40]
            tcp += (p[41] + 1) * 8
        if protocol != 6:
            return False
        memcpy(key, p + 8, 16)
        memcpy(key + END, p + 24, 16)
    else:
        return False
    if tcp + 20 > end or total > size:
        return False
    p = data + tcp
    options = (p[12] >> 4) * 4
    length = (total or size) - (tcp - packet) - options
    if options < 20 or length < 0:
        return False
    memcpy(key + 16, p, 2)
    memcpy(key + END + 16, p + 2, 2)
    row.seq = long_at(p + 4)
    row.ack = long_at(p + 8)
    row.length = <uint32_t>length
    row.window = short_at(p + 14)
    row.flags = p[13]
    row.vlan = vlan
    row.wscale = window_scale(data, tcp + 20, min(tcp + options, end)) if p[13] & SYN_FLAG else -1
    return True


cdef int8_t window_scale(const uint8_t* data, int64_t at, int64_t end) noexcept:
    while at < end:
        if data[at] == 0:
            break
        if data[at] == 1:
            at += 1
            continue
        if at + 2 > end or data[at + 1] < 2:
            break
        if data[at] == 3 and data[at + 1] == 3 and at + 3 <= end:
            return <int8_t>min(data[at + 2], MOST_SCALE)
        at += data[at + 1]
    return -1
