# cython: boundscheck=False, wraparound=False, cdivision=True
"""The compiled twin of `tracks`: the same packets in the same order, in the memory that they take and no more."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.dict cimport PyDict_GetItem
from cpython.ref cimport PyObject
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from proxy.layers.packet cimport Row
from proxy.layers.tracks import MOST_TAPS, PACKETS, WIDTH

cdef enum:
    SYN_FLAG = 0x02
    FIRST_ROOM = 8  # packets; half as many more as they come

cdef Py_ssize_t _most = PACKETS
cdef Py_ssize_t _taps = MOST_TAPS


cdef int64_t _stamp(object value) except? -1:
    """A time; what is beyond every stamp is as good as the last one there is."""
    if value > INT64_MAX:
        return INT64_MAX
    return INT64_MIN if value < INT64_MIN else value


cdef class Track:
    """See ``tracks.py``."""

    def __dealloc__(self):
        free(self._rows)

    def __len__(self):
        return self._count

    def __repr__(self):
        return f"Track({self._count} packets)"

    @property
    def first_ns(self):
        """See ``tracks.py``."""
        if not self._count:
            raise IndexError("no packets")
        return self._rows[self._first].ts_ns

    @property
    def last_ns(self):
        """See ``tracks.py``."""
        if not self._count:
            raise IndexError("no packets")
        return self._rows[self._first + self._count - 1].ts_ns

    def add(self, bytes row not None):
        """See ``tracks.py``."""
        if PyBytes_GET_SIZE(row) != <Py_ssize_t>sizeof(Row):
            raise ValueError(f"a packet of {len(row)} bytes; one is kept in {WIDTH}")
        self._add(<const Row*>PyBytes_AS_STRING(row))

    def forget(self, before_ns):
        """See ``tracks.py``."""
        return self._forget(_stamp(before_ns))

    cpdef bytes window(self, object start_ns, object end_ns):
        """See ``tracks.py``."""
        cdef int64_t start = _stamp(start_ns)
        cdef int64_t end = _stamp(end_ns)
        cdef Py_ssize_t low = self._before(start)
        cdef Py_ssize_t high = self._count if end == INT64_MAX else self._before(end + 1)
        if low >= high:
            return b""
        return PyBytes_FromStringAndSize(<char*>(self._rows + self._first + low), (high - low) * <Py_ssize_t>sizeof(Row))

    cdef int _add(self, const Row* row) except -1:
        cdef Py_ssize_t at = self._count
        cdef Row* rows
        if at and row.ts_ns < self._rows[self._first + at - 1].ts_ns:
            if row.ts_ns < self.floor_ns:
                return 0
            at = self._before(row.ts_ns + 1)
        if self._first + self._count == self._room:
            self._make_room()
        rows = self._rows + self._first
        if at < self._count:
            memmove(rows + at + 1, rows + at, (self._count - at) * sizeof(Row))
        rows[at] = row[0]
        self._count += 1
        if self._count > _most:
            self._forget(rows[_most // 4].ts_ns)
        return 0

    cdef int _make_room(self) except -1:
        """For one more behind the last: where others were dropped, or in a larger piece."""
        cdef Row* rows
        cdef Py_ssize_t room = max(FIRST_ROOM, self._room + self._room // 2)
        if self._first > self._room // 2:
            memmove(self._rows, self._rows + self._first, self._count * sizeof(Row))
            self._first = 0
            return 0
        rows = <Row*>realloc(self._rows, room * sizeof(Row))
        if rows is NULL:
            raise MemoryError
        self._rows = rows
        self._room = room
        return 0

    cdef Py_ssize_t _before(self, int64_t ts_ns) noexcept:
        """How many are stamped before a time."""
        cdef Row* rows = self._rows + self._first
        cdef Py_ssize_t low = 0
        cdef Py_ssize_t high = self._count
        cdef Py_ssize_t middle
        while low < high:
            middle = (low + high) // 2
            if rows[middle].ts_ns < ts_ns:
                low = middle + 1
            else:
                high = middle
        return low

    cdef Py_ssize_t _forget(self, int64_t before_ns) noexcept:
        cdef Py_ssize_t gone = self._before(before_ns)
        cdef Py_ssize_t room
        cdef Row* rows
        if not gone:
            return 0
        self.floor_ns = max(self.floor_ns, before_ns)
        self._first += gone
        self._count -= gone
        if not self._count:
            free(self._rows)
            self._rows = NULL
            self._room = self._first = 0
        elif self._room > 2 * self._count and self._room > FIRST_ROOM:
            room = max(FIRST_ROOM, self._count + self._count // 2)
            rows = <Row*>malloc(room * sizeof(Row))
            if rows is not NULL:  # else it stays where it is
                memcpy(rows, self._rows + self._first, self._count * sizeof(Row))
                free(self._rows)
                self._rows = rows
                self._room = room
                self._first = 0
        return gone


cdef class Tracks:
    """See ``tracks.py``."""

    def __cinit__(self):
        self.at = [None] * MOST_TAPS

    def __len__(self):
        """See ``tracks.py``."""
        cdef Py_ssize_t kept = 0
        for track in self.at:
            if track is not None:
                kept += (<Track>track)._count
        return kept

    def forget(self, before_ns):
        """See ``tracks.py``."""
        cdef Py_ssize_t gone = 0
        cdef int64_t before = _stamp(before_ns)
        for track in self.at:
            if track is not None:
                gone += (<Track>track)._forget(before)
        return gone


def sort_in(data, Py_ssize_t tap, dict known not None, make):
    """See ``tracks.py``."""
    cdef Py_buffer view
    cdef const Row* row
    cdef Py_ssize_t number, kept = 0
    cdef list opening = []
    cdef PyObject* found
    cdef Tracks tracks
    cdef Track track
    if not 0 <= tap < _taps:
        raise IndexError("no such tap")
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        row = <const Row*>view.buf
        for number in range(view.len // <Py_ssize_t>sizeof(Row)):
            flow = row.flow
            found = PyDict_GetItem(known, flow)
            if found is NULL:
                tracks = make()
                known[flow] = tracks
            else:
                tracks = <Tracks?><object>found
            track = tracks.at[tap]
            if track is None:
                track = Track.__new__(Track)
                tracks.at[tap] = track
            kept -= track._count
            track._add(row)
            kept += track._count
            if row.flags & SYN_FLAG:
                opening.append(PyBytes_FromStringAndSize(<const char*>row, sizeof(Row)))
            row += 1
    finally:
        PyBuffer_Release(&view)
    return kept, opening
