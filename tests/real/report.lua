-- What wrk measured, as one line of JSON: exact counts, where wrk's own summary rounds. Latencies in microseconds.
local line = '{"requests": %d, "microseconds": %d, "bytes": %d, "p50": %d, "p90": %d, "p99": %d, "p999": %d, "max": %d, ' ..
             '"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}'

function done(summary, latency, requests)
   local errors = summary.errors
   io.write("\n", string.format(line, summary.requests, summary.duration, summary.bytes,
      latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9),
      latency.max,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status), "\n")
end
