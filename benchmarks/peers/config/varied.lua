-- A path and a query of its own for every request, so that nothing kept by path can stay small by luck.
local number = 0

function request()
   number = number + 1
   return wrk.format("GET", string.format("/items/%d?page=%d", number, number % 977))
end
