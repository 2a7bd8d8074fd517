from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef packed struct Row:  # `frames.RECORD`
    int64_t ts_ns
    uint32_t flow
    uint32_t seq
    uint32_t ack
    uint32_t length
    uint16_t window
    uint8_t flags
    int8_t wscale
    uint8_t direction
    uint8_t outgoing
    uint16_t vlan
    int32_t ifindex
    uint32_t frame


cdef struct Known:
    uint8_t key[36]  # the lower endpoint first: address and port of each
    uint8_t used
    int64_t last_ns


cdef class Flows:
    cdef readonly uint32_t limit
    cdef uint32_t _room  # of _known and _free, half of that of _slots
    cdef uint32_t _met  # the first of _known that never was in use
    cdef uint32_t _spare  # how many _free holds
    cdef Known* _known
    cdef uint32_t* _free
    cdef uint32_t* _slots  # a number and one by hash, 0 where there is none
    cdef uint64_t _seed

    cdef uint64_t _place(self, const uint8_t* key) noexcept
    cdef int64_t _look_up(self, const uint8_t* key) noexcept
    cdef void _fill(self) noexcept
    cdef bint _grow(self) noexcept
    cdef int64_t _number(self, const uint8_t* key, int64_t ts_ns) noexcept


cdef class Packets:
    cdef readonly bytearray data
    cdef public int64_t unread
    cdef public int64_t unknown
    cdef public int64_t torn


cpdef Py_ssize_t parse(object block, Flows flows, Packets out) except -1
