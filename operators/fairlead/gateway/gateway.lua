-- What HAProxy's own language cannot do: choose by weight in one step, hold requests while no pod is ready, and say what went wrong.

--
-- One Lua state for all threads (`lua-load`): HAProxy 2.6 mixes up the two kinds of state when one request uses both.

local HOLD_TIMEOUT = tonumber(os.getenv("FAIRLEAD_HOLD_TIMEOUT_MS"))
local HOLD_LIMIT = tonumber(os.getenv("FAIRLEAD_HOLD_LIMIT")) -- requests of one backend
local HOLD_BYTES = tonumber(os.getenv("FAIRLEAD_HOLD_BYTES")) -- of all requests that wait

local upstreams = Map.new("upstreams.map", Map._str)
local holds = Map.new("holds.map", Map._str) -- milliseconds, of backends whose pods are started for a request
local troubles = Map.new("troubles.map", Map._str) -- why a component cannot serve, percent-encoded, by its route
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

-- Where a request that was sent to `backend` belongs now: there, unless its route does not lead there any more. And whether its route leads anywhere.
local function current(txn, backend)
  local split = splits[txn:get_var("txn.grpc") and "grpc" or "http"]:lookup(txn:get_var("txn.route") or "")
  if not split then return backend, false end
  if split:find(backend, 1, true) then return backend, true end
  return split:find("=", 1, true) and pick(split) or split, true
end

local function now_ms()
  local t = core.now()
  return t.sec * 1000 + t.usec // 1000
end

-- Whether a backend has a usable pod. Its server `hold`, a backup, is none. HAProxy before 2.8 does not say how many servers that are no
-- backups are usable; to ask each one takes a tenth of a millisecond, so there it is done once in five.
local looked = {}

local function one_is_up(backend, proxy)
  local last, now = looked[backend], now_ms()
  if last and now - last.at < 5 then return last.up end
  local up = false
  for name, server in pairs(proxy.servers) do
    up = up or name ~= "hold" and server:get_stats().status:sub(1, 2) == "UP"
  end
  looked[backend] = { at = now, up = up }
  return up
end

local function has_pod(backend)
  local proxy = core.backends[backend]
  if not proxy then return false end
  if proxy.get_srv_act then return proxy:get_srv_act() > 0 end
  return one_is_up(backend, proxy)
end

-- What a waiting request takes: HAProxy's state and one buffer, and what the kernel takes in of a body that nobody reads. A body that does not say
-- how long it is may be long; HTTP/2 lets a client send no more of it than the buffer's worth.
local function size(txn)
  local chunked = txn.f:req_ver() ~= "2.0" and txn.sf:req_hdr("transfer-encoding") ~= ""
  return 16384 + math.min(chunked and math.huge or txn.f:req_body_size() or 0, 131072)
end

-- held[backend] = { count =, waiting = { [ticket] = { seen =, bytes =, client = } } }, where `seen` is the time at which that request was last seen
-- waiting. A client that HAProxy sees going away takes its coroutine with it, without a word; so a ticket that nobody has renewed for a second is void.
-- Of those that it does not see going away the agent tells: gone[client] is when.
local held, ticket, swept = {}, 0, 0
local gone = {}
local bytes = 0 -- of all that wait

-- The agent is told at once when requests begin, or cease, to wait at a backend: HAProxy's log is a datagram to its socket, and costs nothing while
-- nobody waits. `debug` is what goes to the log and not to stderr, too.
local function tell_agent() core.log(core.debug, "held") end

local function enter(backend, mine, entry)
  local here = held[backend]
  if not here then
    here = { count = 0, waiting = {} }
    held[backend] = here
    tell_agent()
  end
  here.waiting[mine] = entry
  here.count = here.count + 1
  bytes = bytes + entry.bytes
end

local function leave(backend, mine)
  local here = held[backend]
  local entry = here and here.waiting[mine]
  if not entry then return end
  here.waiting[mine] = nil
  here.count = here.count - 1
  bytes = bytes - entry.bytes
  if here.count == 0 then
    held[backend] = nil
    tell_agent()
  end
end

local function sweep(now)
  if now - swept < 100 then return end
  swept = now
  for backend, here in pairs(held) do
    for mine, entry in pairs(here.waiting) do
      if now - entry.seen > 1000 then leave(backend, mine) end
    end
  end
  for client, at in pairs(gone) do
    if now - at > 5000 then gone[client] = nil end
  end
end

-- Milliseconds for which a request of the backend may wait. It may change while requests wait: 0 says that nothing will come.
local function patience(backend)
  return tonumber(holds:lookup(backend)) or HOLD_TIMEOUT
end

local function refuse(txn, reason)
  txn:set_var("txn.refusal", reason)
end

-- Said before a reload: what waits then goes to the new worker, because this one will hear of no new pods. (One that stops for good hears of them.)
local successor = false

core.register_cli({ "hand", "over" }, "hand over: once this worker stops, waiting requests go to another", function() successor = true end)

-- Waits until the request's backend has a usable pod. Sets txn.refusal when it cannot, txn.handover when another worker has to.
-- Traffic may move on meanwhile, or in the instant between the choice of the backend and this: the request then goes where a new one would.
-- If its service is deleted it waits on, for one that is made again under the name; but its backend may be lent to another service, whose pods are not for it.
core.register_action("hold", { "http-req" }, function(txn)
  local backend, routed = current(txn, txn:get_var("txn.backend"))
  if not routed then return refuse(txn, "unrouted") end
  local upstream = upstreams:lookup(backend)
  txn:set_var("txn.backend", backend)
  if has_pod(backend) then return end
  if successor and txn.f:stopping() then return txn:set_var("txn.handover", true) end
  if patience(backend) == 0 then return refuse(txn, "unready") end
  local began = now_ms()
  sweep(began)
  local entry = { seen = began, bytes = size(txn), client = txn.sf:src() .. ":" .. txn.sf:src_port() }
  -- The first one of a backend waits even if others have all the bytes: it wakes the pods.
  local here = held[backend]
  if HOLD_LIMIT == 0 or here and (here.count >= HOLD_LIMIT or bytes + entry.bytes > HOLD_BYTES) then return refuse(txn, "full") end
  ticket = ticket + 1
  local mine = ticket
  enter(backend, mine, entry)
  local found
  repeat
    -- 5 ms for a few; with a thousand waiting, 50 ms keeps the looking below a fifth of a core.
    core.msleep(math.max(5, held[backend] and held[backend].count // 20 or 0))
    entry.seen = now_ms()
    if not (held[backend] and held[backend].waiting[mine]) then enter(backend, mine, entry) end -- on a machine so busy that a second went by
    sweep(entry.seen)
    local belongs, leads = current(txn, backend)
    if belongs ~= backend then
      leave(backend, mine)
      backend, upstream = belongs, upstreams:lookup(belongs)
      enter(backend, mine, entry)
      txn:set_var("txn.backend", backend)
    end
    local owner = leads and upstream or upstreams:lookup(backend)
    if gone[entry.client] then
      leave(backend, mine)
      return refuse(txn, "unready")
    end
    if owner and owner ~= upstream then
      leave(backend, mine)
      return refuse(txn, "unrouted")
    end
    found = owner and has_pod(backend)
  until found or successor and txn.f:stopping() or entry.seen - began >= patience(backend)
  leave(backend, mine)
  if found then return end
  if successor and txn.f:stopping() then txn:set_var("txn.handover", true) else refuse(txn, "unready") end
end)

core.register_cli({ "forget" }, "forget ADDRESS:PORT...: clients that have closed their connections", function(_, _, ...)
  for _, client in ipairs({ ... }) do gone[client] = now_ms() end
end)

core.register_cli({ "show", "held" }, "show held: the waiting requests by backend", function(applet)
  sweep(now_ms())
  local lines = {}
  for backend, here in pairs(held) do
    lines[#lines + 1] = backend .. " " .. here.count .. "\n"
  end
  applet:send(table.concat(lines) .. "\n")
end)

-- Errors, by HTTP status where HAProxy makes them itself, else by what the rules found out.

local function workload(txn)
  local upstream = upstreams:lookup(txn:get_var("txn.backend") or "")
  return upstream and upstream:match("^(.*)/h[12]$") or txn:get_var("txn.route") or "the service"
end

-- What the status says of the component, or else where to look.
local function because(txn, else_)
  local component = (txn:get_var("txn.route") or ""):match("^[^/]+/[^/]+/[^/]+")
  local trouble = component and troubles:lookup(component)
  if not trouble then return else_ end
  return (trouble:gsub("%%(%x%x)", function(code) return string.char(tonumber(code, 16)) end))
end

local QUOTED = 200 -- characters: a path may be as long as all headers may, and would not fit into one when it is percent-encoded

local messages = {
  unknown = function(txn)
    return "no InferenceService at host " .. txn.sf:req_hdr("host"):sub(1, QUOTED) .. " and path " .. txn.sf:path():sub(1, QUOTED)
      .. "; list the hosts with: kubectl get inferenceservices -A"
  end,
  unrouted = function(txn)
    return txn:get_var("txn.route") .. " has no revision that can be served yet: "
      .. because(txn, "kubectl describe inferenceservice says why")
  end,
  unready = function(txn) return "no ready pod of " .. workload(txn) .. ": " .. because(txn, "kubectl get pods shows them") end,
  full = function(txn) return "too many requests already wait for a ready pod, of " .. workload(txn) .. " or of all services" end,
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
