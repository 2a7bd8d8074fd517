-- Posts `size` bytes in chunks of 16 KiB; the request is made once.
local made

function init()
   local chunk, parts = 16384, {}
   for offset = 0, size - 1, chunk do
      local length = math.min(chunk, size - offset)
      parts[#parts + 1] = string.format("%x\r\n", length) .. string.rep("x", length) .. "\r\n"
   end
   made = "POST /sink HTTP/1.1\r\nHost: bench.test\r\nTransfer-Encoding: chunked\r\n\r\n" .. table.concat(parts) .. "0\r\n\r\n"
end

function request()
   return made
end
