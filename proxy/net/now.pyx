"""The compiled twin of ``now.py``."""

from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec


cpdef long long time_ns() noexcept:
    """Unix time in nanoseconds."""
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <long long>now.tv_sec * 1000000000 + now.tv_nsec
