# cython: boundscheck=False, wraparound=False
"""The compiled twin of `strict`: heads that nothing is wrong with, taken apart by pointers.

Whatever it does not take at once goes to `strict`, which says what is wrong with it. So the two can differ only in what
they accept, and the tests hold that against each other (tests/http1/test_twins.py, tests/fuzz).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memchr, memcmp, memcpy

from proxy.http1 import strict
from proxy.http1.fields import CONTEXT, DROP, FORWARDED, FRAME, NOTE, REQUEST_NAMES, RESPONSE_NAMES
from proxy.http1.head cimport RequestHead, ResponseHead

ctypedef const unsigned char byte

# What may stand where; 0 is what may not.
cdef unsigned char TOKEN[256]  # of a token (RFC 9110 section 5.6.2), in lower case
cdef unsigned char TARGET[256]  # of a target: visible, no fragment (RFC 9112 section 3.2)

cdef enum:
    BLOCK = 128  # bytes
    SLOTS = 256  # places of a table of names: four times what is in it
    LONGEST = 32  # bytes of the longest name that means anything to the proxy
    MOST_LINES = 1024  # lines of a head that are kept on the stack; a head of more is for `strict`


cdef enum:
    CLAIM = 1  # `fields.FORWARDED`
    TRACE = 2  # `fields.CONTEXT`


cdef struct Name:
    Py_ssize_t length  # 0: no name in this place
    unsigned char text[LONGEST]  # in lower case
    int action
    unsigned int group  # a bit: CLAIM, TRACE or neither
    void* key  # the bytes object, kept alive by KEYS


cdef struct Names:
    unsigned long long lengths  # a bit for each length that a name has
    Name slots[SLOTS]


cdef Names REQUEST, RESPONSE
cdef list KEYS = []
cdef int _NOTE = NOTE, _DROP = DROP, _FRAME = FRAME


cdef inline unsigned int place(byte* lower, Py_ssize_t length) noexcept nogil:
    """Where a name is looked for first: a hash of its length, its first, middle and last byte."""
    return (length * 37 + lower[0] * 7 + lower[length >> 1] * 31 + lower[length - 1] * 131) & (SLOTS - 1)


cdef void fill(Names* names, dict table):
    cdef Name* slot
    cdef unsigned int at
    for row in set(each for each in table.values() if each is not None):
        action, key = row
        if len(key) > LONGEST:
            raise ValueError(key)
        KEYS.append(key)
        at = place(<byte*>PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key))
        while names.slots[at].length:
            at = (at + 1) & (SLOTS - 1)
        slot = &names.slots[at]
        slot.length = PyBytes_GET_SIZE(key)
        memcpy(slot.text, PyBytes_AS_STRING(key), slot.length)
        slot.action = action
        slot.group = CLAIM if key in FORWARDED else TRACE if key in CONTEXT else 0
        names.lengths |= 1ULL << slot.length
        slot.key = <void*>key


cdef void prepare():
    cdef int c
    for c in range(256):
        TOKEN[c] = 0
        TARGET[c] = 0x21 <= c < 0x7F and c != c"#"
    for c in b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz":
        TOKEN[c] = c
    for c in b"ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        TOKEN[c] = c + 32
    fill(&REQUEST, REQUEST_NAMES)
    fill(&RESPONSE, RESPONSE_NAMES)


prepare()

cdef bytes GET = b"GET", HEAD = b"HEAD", POST = b"POST", PUT = b"PUT", DELETE = b"DELETE"
cdef bytes PATCH = b"PATCH", OPTIONS = b"OPTIONS"
cdef bytes OK = b"200 OK"
cdef bytes EMPTY = b""


cdef struct Lines:
    Py_ssize_t count
    byte* start[MOST_LINES]
    byte* end[MOST_LINES]  # where its CR is


cdef bint cut(byte* text, Py_ssize_t size, Lines* lines) noexcept nogil:
    """Cut a head at its line ends; False if it has another control character, or too many lines."""
    cdef Py_ssize_t controls = 0, at = 0, stop
    cdef unsigned char some
    cdef byte* end = text + size
    cdef byte* begin = text
    cdef byte* cr
    while at < size:  # in blocks whose count fits a byte, which the compiler turns into vectors
        stop = min(at + BLOCK, size)
        some = 0
        while at < stop:
            some += ((text[at] < 0x20) & (text[at] != 9)) | (text[at] == 0x7F)
            at += 1
        controls += some
    lines.count = 0
    while True:
        if lines.count == MOST_LINES:
            return False
        cr = <byte*>memchr(begin, c"\r", end - begin)
        lines.start[lines.count] = begin
        if cr is NULL:
            lines.end[lines.count] = end
            lines.count += 1
            # Every control character is half of a CRLF.
            return controls == 2 * (lines.count - 1)
        if cr + 1 == end or cr[1] != c"\n":
            return False
        lines.end[lines.count] = cr
        lines.count += 1
        begin = cr + 2


cdef inline byte* find(byte* begin, byte* end, unsigned char wanted) noexcept nogil:
    return <byte*>memchr(begin, wanted, end - begin)


cdef Name* look_up(Names* names, byte* lower, Py_ssize_t length) noexcept nogil:
    """The row of a name, which is in lower case; NULL for one that just passes."""
    cdef unsigned int slot
    if length > LONGEST or not names.lengths >> length & 1:
        return NULL
    slot = place(lower, length)
    while names.slots[slot].length:
        if names.slots[slot].length == length and memcmp(names.slots[slot].text, lower, length) == 0:
            return &names.slots[slot]
        slot = (slot + 1) & (SLOTS - 1)
    return NULL


cdef bytes take_fields(Lines* lines, Names* names, bint underscores, dict noted, unsigned int* groups):
    """The lines that pass; notes the others' values. None if there is anything to object to."""
    cdef Py_ssize_t index, at, length, passed = 0, runs = 0
    cdef byte* name
    cdef byte* end
    cdef byte* colon
    cdef Name* row
    cdef bint underscore
    cdef unsigned char c
    cdef unsigned char lower[LONGEST]
    cdef unsigned char* out
    cdef bytes value, fields
    cdef object key
    # Runs of lines that pass, which lie together in the head as they will in the result.
    cdef byte* run_start[MOST_LINES]
    cdef Py_ssize_t run_size[MOST_LINES]
    cdef byte* open_end = NULL
    for index in range(1, lines.count):
        name = lines.start[index]
        end = lines.end[index]
        # The name, up to its colon: anything else that is of no token is for `strict`.
        length = 0
        underscore = False
        while True:
            c = TOKEN[name[length]]
            if c == 0:
                break
            lower[length & (LONGEST - 1)] = c
            underscore |= c == c"_"
            length += 1
        colon = name + length
        if length == 0 or colon >= end or colon[0] != c":":
            return None
        if underscore and not underscores:
            continue
        row = look_up(names, lower, length)
        if row is not NULL:
            if row.action == _DROP:
                continue
            key = <object>row.key
            groups[0] |= row.group
            colon += 1
            while colon < end and (colon[0] == c" " or colon[0] == c"\t"):
                colon += 1
            at = end - colon
            while at > 0 and (colon[at - 1] == c" " or colon[at - 1] == c"\t"):
                at -= 1
            value = PyBytes_FromStringAndSize(<char*>colon, at)
            if noted and key in noted:
                if row.action == _FRAME:
                    return None
                value = <bytes>noted[key] + b", " + value
            noted[key] = value
            if row.action != _NOTE:
                continue
        # The last line of a head has no CRLF of its own here: its four bytes end the head.
        length = end - name + 2
        passed += length
        if open_end == name:
            run_size[runs - 1] += length
        else:
            run_start[runs] = name
            run_size[runs] = length
            runs += 1
        open_end = name + length
    if not passed:
        return EMPTY
    fields = PyBytes_FromStringAndSize(NULL, passed)
    out = <unsigned char*>PyBytes_AS_STRING(fields)
    for index in range(runs - 1):
        memcpy(out, run_start[index], run_size[index])
        out += run_size[index]
    memcpy(out, run_start[runs - 1], run_size[runs - 1] - 2)
    out += run_size[runs - 1]
    (out - 2)[0] = c"\r"
    (out - 1)[0] = c"\n"
    return fields


cdef inline bytes method_of(byte* text, Py_ssize_t length):
    """A method, as the one object there is of each usual one; None if it is no token."""
    cdef Py_ssize_t at
    if length == 3:
        if memcmp(text, b"GET", 3) == 0:
            return GET
        if memcmp(text, b"PUT", 3) == 0:
            return PUT
    elif length == 4:
        if memcmp(text, b"POST", 4) == 0:
            return POST
        if memcmp(text, b"HEAD", 4) == 0:
            return HEAD
    elif length == 5 and memcmp(text, b"PATCH", 5) == 0:
        return PATCH
    elif length == 6 and memcmp(text, b"DELETE", 6) == 0:
        return DELETE
    elif length == 7 and memcmp(text, b"OPTIONS", 7) == 0:
        return OPTIONS
    if not length:
        return None
    for at in range(length):
        if TOKEN[text[at]] == 0:
            return None
    return PyBytes_FromStringAndSize(<char*>text, length)


cdef RequestHead request(
    bytes head, Py_ssize_t most_line, Py_ssize_t most_fields, bint underscores, Py_ssize_t size
):
    cdef Lines lines
    cdef byte* text = <byte*>PyBytes_AS_STRING(head)
    cdef byte* end
    cdef byte* space
    cdef byte* target
    cdef Py_ssize_t at, length
    cdef RequestHead made
    cdef unsigned int groups = 0
    cdef Py_ssize_t mark
    cdef bint plain
    cdef bytes method, fields
    cdef dict noted
    if not cut(text, size, &lines) or lines.count - 1 > most_fields:
        return None
    end = lines.end[0]
    if end - text > most_line:
        return None
    space = find(text, end, c" ")
    if space is NULL:
        return None
    method = method_of(text, space - text)
    if method is None:
        return None
    target = space + 1
    space = find(target, end, c" ")
    if space is NULL or space == target or end - space != 9 or memcmp(space, b" HTTP/1.", 8) != 0:
        return None
    if space[8] != c"1" and space[8] != c"0":
        return None
    length = space - target
    mark = -1
    plain = target[0] == c"/"
    for at in range(length):
        if not TARGET[target[at]]:
            return None
        if mark < 0:
            if target[at] == c"?":
                mark = at
            elif target[at] == c"%" or (
                (target[at] == c"/" or target[at] == c".") and at and target[at - 1] == c"/"
            ):
                plain = False
    noted = {}
    fields = take_fields(&lines, &REQUEST, underscores, noted, &groups)
    if fields is None:
        return None
    made = RequestHead.__new__(RequestHead)
    made.method = method
    made.target = PyBytes_FromStringAndSize(<char*>target, length)
    made.mark = mark
    made.plain = plain
    made.claims = groups & CLAIM
    made.context = groups & TRACE
    made.minor = space[8] - c"0"
    made.fields = fields
    made.noted = noted
    return made


cdef inline Py_ssize_t size_of(bytes head, Py_ssize_t end) except -1:
    """The bytes of a head; never more than there are."""
    cdef Py_ssize_t size = len(head)
    return end if 0 <= end < size else size


cpdef RequestHead scan_request(
    bytes head, Py_ssize_t most_line, Py_ssize_t most_fields, bint underscores=False, Py_ssize_t end=-1
):
    """See `strict.scan_request`."""
    cdef RequestHead made = request(head, most_line, most_fields, underscores, size_of(head, end))
    if made is None:
        made = strict.scan_request(head, most_line, most_fields, underscores, end)
    return made


cdef ResponseHead response(bytes head, Py_ssize_t most_fields, Py_ssize_t size):
    cdef Lines lines
    cdef byte* text = <byte*>PyBytes_AS_STRING(head)
    cdef Py_ssize_t length
    cdef ResponseHead made
    cdef unsigned int groups = 0
    cdef bytes fields
    cdef dict noted
    if not cut(text, size, &lines) or lines.count - 1 > most_fields:
        return None
    length = lines.end[0] - text
    if length < 14 or memcmp(text, b"HTTP/1.", 7) != 0 or text[8] != c" " or text[12] != c" ":
        return None
    if text[7] != c"1" and text[7] != c"0":
        return None
    if not (c"1" <= text[9] <= c"9" and c"0" <= text[10] <= c"9" and c"0" <= text[11] <= c"9"):
        return None
    noted = {}
    fields = take_fields(&lines, &RESPONSE, True, noted, &groups)
    if fields is None:
        return None
    made = ResponseHead.__new__(ResponseHead)
    made.status = (text[9] - c"0") * 100 + (text[10] - c"0") * 10 + text[11] - c"0"
    if length == 15 and memcmp(text + 9, b"200 OK", 6) == 0:
        made.reason = OK
    else:
        made.reason = PyBytes_FromStringAndSize(<char*>text + 9, length - 9)
    made.minor = text[7] - c"0"
    made.fields = fields
    made.noted = noted
    return made


cpdef ResponseHead scan_response(bytes head, Py_ssize_t most_fields, Py_ssize_t end=-1):
    """See `strict.scan_response`."""
    cdef ResponseHead made = response(head, most_fields, size_of(head, end))
    if made is None:
        made = strict.scan_response(head, most_fields, end)
    return made


cpdef Py_ssize_t find_end(bytes data, Py_ssize_t start=0) except? -2:
    """See ``scan.py``."""
    cdef Py_ssize_t size = len(data)
    cdef byte* text = <byte*>PyBytes_AS_STRING(data)
    cdef byte* stop = text + size - 3  # no empty line begins behind it
    cdef byte* at
    if start < 0:
        raise ValueError(start)
    at = text + start
    while at < stop:
        at = <byte*>memchr(at, c"\r", stop - at)
        if at is NULL:
            return -1
        if at[1] == c"\n" and at[2] == c"\r" and at[3] == c"\n":
            return at - text
        at += 1
    return -1


cpdef Py_ssize_t find_slash(bytes path, Py_ssize_t start) except? -2:
    """See ``scan.py``."""
    cdef Py_ssize_t size = len(path)
    cdef byte* text = <byte*>PyBytes_AS_STRING(path)
    cdef byte* at
    if start < 0:
        raise ValueError(start)
    if start >= size:
        return -1
    at = <byte*>memchr(text + start, c"/", size - start)
    return -1 if at is NULL else at - text
