-- Every rule in turn, in steps that are no neighbours; `rules` over `hosts` hosts. One rule: the host of all others.
local number = 0

function request()
   if rules == 1 then
      return wrk.format("GET", "/team-0/service-0/items", { Host = "bench.test" })
   end
   number = (number + 7919) % rules
   local host = math.floor(number * hosts / rules)
   while math.floor((host + 1) * rules / hosts) <= number do host = host + 1 end
   while math.floor(host * rules / hosts) > number do host = host - 1 end
   local path = string.format("/team-%d/service-%d/items", host, number)
   return wrk.format("GET", path, { Host = string.format("team-%d.bench.test", host) })
end
