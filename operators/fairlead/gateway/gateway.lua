-- What HAProxy's own language cannot do: choose by weight in one step, hold requests while no pod is ready, and say what went wrong.

--
-- One Lua state for all threads (`lua-load`): HAProxy 2.6 mixes up the two kinds of state when one request uses both.

local HOLD_TIMEOUT = tonumber(os.getenv("FAIRLEAD_HOLD_TIMEOUT_MS"))
local HOLD_LIMIT = tonumber(os.getenv("FAIRLEAD_HOLD_LIMIT")) -- requests of one backend

local upstreams = Map.new("upstreams.map", Map._str)
local holds = Map.new("holds.map", Map._str) -- milliseconds, of backends whose pods are started for a request
local splits = { http = Map.new("http.map", Map._str), grpc = Map.new("grpc.map", Map._str) } -- by route

-- Weighted choice: "100:h1-0001=80,h1-0002=100" is h1-0001 in 80 of 100 cases, else h1-0002.
local arms_of, known = {}, 0

local function parse(split)
  if known >= 1000 then arms_of, known = {}, 0 end -- splits that no service has any more
  local arms = { total = tonumber(split:match("^%d+")) }
  for backend, upto in split:gmatch("([^:=,]+)=(%d+)") do
    arms[#arms + 1] = { backend = backend, upto = tonumber(upto) }
  end
  arms_of[split], known = arms, known + 1
  return arms
end

local function pick(split)
  local arms = arms_of[split] or parse(split)
  local drawn = math.random(arms.total)
  for _, arm in ipairs(arms) do
    if drawn <= arm.upto then return arm.backend end
  end
end

core.register_converters("pick", pick)

-- Where a request that was sent to `backend` belongs now: there, unless its route does not lead there any more.
local function current(txn, backend)
  local split = splits[txn:get_var("txn.grpc") and "grpc" or "http"]:lookup(txn:get_var("txn.route"))
  if not split or split:find(backend, 1, true) then return backend end
  return split:find("=", 1, true) and pick(split) or split
end

local function now_ms()
  local t = core.now()
  return t.sec * 1000 + t.usec // 1000
end

-- held[backend][ticket] is the time at which that request was last seen waiting. A client that goes away takes its coroutine with it,
-- without a word; so a ticket that nobody has renewed for a second is void.
local held, ticket, swept = {}, 0, 0
local counts = {}

local function sweep(now)
  if now - swept < 100 then return end
  swept = now
  for backend, tickets in pairs(held) do
    local count = 0
    for number, seen in pairs(tickets) do
      if now - seen > 1000 then tickets[number] = nil else count = count + 1 end
    end
    counts[backend] = count
    if count == 0 then held[backend], counts[backend] = nil, nil end
  end
end

local function leave(backend, mine)
  if held[backend] and held[backend][mine] then
    held[backend][mine] = nil
    counts[backend] = (counts[backend] or 1) - 1
  end
end

-- Waits until the request's backend has a usable server. Sets txn.refusal when it cannot.
-- Traffic may move on meanwhile, or in the instant between the choice of the backend and this: the request then goes where a new one would.
core.register_action("hold", { "http-req" }, function(txn)
  local backend = current(txn, txn:get_var("txn.backend"))
  txn:set_var("txn.backend", backend)
  if txn.c:nbsrv(backend) > 0 then return end
  local now = now_ms()
  local timeout = tonumber(holds:lookup(backend)) or HOLD_TIMEOUT
  local deadline = now + timeout
  sweep(now)
  local waiting = counts[backend] or 0
  if timeout == 0 or waiting >= HOLD_LIMIT then
    txn:set_var("txn.refusal", waiting >= HOLD_LIMIT and HOLD_LIMIT > 0 and "full" or "unready")
    return
  end
  ticket = ticket + 1
  local mine = ticket
  held[backend] = held[backend] or {}
  counts[backend] = waiting + 1
  while now < deadline do
    held[backend] = held[backend] or {}
    held[backend][mine] = now
    -- 5 ms for a few; with a thousand waiting, 50 ms keeps the looking below a fifth of a core.
    core.msleep(math.max(5, (counts[backend] or 0) // 20))
    local belongs = current(txn, backend)
    if belongs ~= backend then
      leave(backend, mine)
      backend = belongs
      held[backend] = held[backend] or {}
      held[backend][mine] = now
      counts[backend] = (counts[backend] or 0) + 1
      txn:set_var("txn.backend", backend)
    end
    if txn.c:nbsrv(backend) > 0 then break end
    now = now_ms()
    sweep(now)
  end
  leave(backend, mine)
  if now >= deadline then txn:set_var("txn.refusal", "unready") end
end)

core.register_cli({ "show", "held" }, "show held: waiting requests by backend", function(applet)
  sweep(now_ms())
  for backend, count in pairs(counts) do
    if count > 0 then applet:send(backend .. " " .. count .. "\n") end
  end
end)

-- Errors, by HTTP status where HAProxy makes them itself, else by what the rules found out.

local function workload(txn)
  local upstream = upstreams:lookup(txn:get_var("txn.backend") or "")
  return upstream and upstream:match("^(.*)/h[12]$") or txn:get_var("txn.route") or "the service"
end

local messages = {
  unknown = function(txn)
    return "no InferenceService at host " .. txn.sf:req_hdr("host") .. " and path " .. txn.sf:path()
      .. "; list the hosts with: kubectl get inferenceservices -A"
  end,
  unrouted = function(txn)
    return txn:get_var("txn.route") .. " has no revision that can be served yet; kubectl describe inferenceservice says why"
  end,
  unready = function(txn) return "no ready pod of " .. workload(txn) .. "; kubectl get pods shows them" end,
  full = function(txn) return "too many requests already wait for a ready pod of " .. workload(txn) end,
  ["502"] = function(txn) return "a pod of " .. workload(txn) .. " closed the connection before it had answered" end,
  ["503"] = function(txn) return "no pod of " .. workload(txn) .. " took the request: all are busy, or refuse connections" end,
  ["504"] = function(txn) return "no answer from " .. workload(txn) .. " within its timeout" end,
}

local grpc_status = { unknown = "5", ["504"] = "4" }

local function message(txn, kind)
  if kind == "refused" then kind = txn:get_var("txn.refusal") or "unrouted" end
  return messages[kind](txn)
end

-- Clients choose hosts and paths: what they sent is quoted with nothing in it that could end a JSON string or a header.
core.register_fetches("error_json", function(txn, kind)
  if txn:get_var("txn.grpc") then return "" end
  local text = message(txn, kind):gsub('["\\]', "'"):gsub("[^ -~]", "?")
  return '{"error": "' .. text .. '"}'
end)

-- nil is a header that is left out.
core.register_fetches("grpc_status", function(txn, kind)
  return txn:get_var("txn.grpc") and (grpc_status[kind] or "14") or nil
end)

core.register_fetches("grpc_message", function(txn, kind)
  if not txn:get_var("txn.grpc") then return nil end
  return (message(txn, kind):gsub("[^ -$&-~]", function(c) return string.format("%%%02X", c:byte()) end))
end)
