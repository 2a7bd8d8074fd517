cpdef long long time_ns() noexcept
