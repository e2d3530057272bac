"""HAProxy's configuration as a function of the settings and of what HAProxy should know at its start. Pure.

The state that can change at run time is written into it too (servers in the backends, maps in files beside it), so that
a HAProxy that is reloaded, or killed and started again, begins where the last one was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources

from fairlead.api import names
from fairlead.gateway.routes import EXPLAIN, Transport
from fairlead.gateway.settings import ADMIN_SOCKET, CONFIG_FILE, HOLD_SOCKET, NOTICE_SOCKET, Settings
from fairlead.gateway.state import HANDOVER, HOLD, MAPS, Slot, State, map_file

_LUA = "gateway.lua"

_STATIC_ERRORS: Mapping[int, str] = {
    400: "the request is not valid HTTP, or its headers are too large",
    403: "forbidden",
    404: "not found",
    405: "method not allowed",
    408: "the request did not arrive in time",
    410: "gone",
    413: "the request is too large",
    425: "too early",
    429: "too many requests",
    500: "the gateway failed",
    501: "not implemented by the gateway",
}

_UPSTREAM_ERRORS = (502, 503, 504)


def files(settings: Settings, state: State) -> dict[str, str]:
    """All files of the directory, by name. Raises SettingsError if the servers leave no room for connections.

    HAProxy runs in it, so they refer to each other by name alone.
    """
    contents = {map_file(name): _map_text(state.maps[name]) for name in MAPS}
    contents[_LUA] = resources.files(__package__).joinpath(_LUA).read_text()
    contents[CONFIG_FILE] = haproxy_config(settings, state)
    return contents


def fingerprint(settings: Settings) -> str:
    """Names all that a HAProxy has to be reloaded for: the configuration but for the state, and the Lua code."""
    lua = resources.files(__package__).joinpath(_LUA).read_text()
    fixed = "".join(_fixed(settings, description="", connections=settings.max_connections)) + lua
    return hashlib.sha256(fixed.encode()).hexdigest()[:16]


def haproxy_config(settings: Settings, state: State) -> str:
    backends = [_backend(name, slots, returns=name in state.returning) for name, slots in state.backends.items()]
    connections = settings.connections(sum(map(len, state.backends.values())))
    return "\n".join([*_fixed(settings, fingerprint(settings), connections), *backends])


def _fixed(settings: Settings, description: str, connections: int) -> list[str]:
    pools = [_pool(transport) for transport in Transport]
    frontends = [_frontend(settings), _returned(settings)]
    return [_global(settings, description, connections), _base(settings), *frontends, _refusals(), *pools]


def _map_text(entries: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries.items())


def _ms(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _global(settings: Settings, description: str, connections: int) -> str:
    return f"""\
# Written by the Fairlead gateway agent, again at every change: edits are lost.
global
    description {description}
    stats socket unix@{ADMIN_SOCKET} mode 600 level admin expose-fd listeners
    stats timeout 1h
    # Nothing is logged but what the Lua code tells the agent.
    log unix@{NOTICE_SOCKET} format raw local0
    maxconn {connections}
    nbthread {settings.threads}
    hard-stop-after {_ms(settings.drain_timeout)}
    setenv FAIRLEAD_HOLD_TIMEOUT_MS {round(settings.hold_timeout * 1000)}
    setenv FAIRLEAD_HOLD_LIMIT {settings.hold_limit}
    setenv FAIRLEAD_HOLD_BYTES {settings.hold_bytes}
    # Of Lua's own time, without its sleeps: a request that waits for minutes looks for its pod ten thousands of times, and 4 s would be the default.
    tune.lua.session-timeout 1h
    lua-load {_LUA}
"""


def _base(settings: Settings) -> str:
    return f"""\
defaults base
    mode http
    timeout connect {_ms(settings.connect_timeout)}
    timeout client {_ms(settings.client_timeout)}
    timeout http-request 30s
    timeout http-keep-alive 75s
    timeout queue {_ms(settings.queue_timeout)}
    timeout server 60s
    retries 3
    option redispatch 1
    option abortonclose
    # A reload would close idle connections at once, and a request that is on its way there would be lost.
    option idle-close-on-response
{_errors()}
"""


def _errors() -> str:
    # Below HTTP's rules (bytes that are not HTTP/1) HAProxy answers 400 with a page of its own. An empty errorfile would
    # silence that, but 2.8 then leaves the connection open for ever.
    lines = [
        f"""http-error status {code} content-type application/json string '{{"error": "{text}"}}'"""
        for code, text in _STATIC_ERRORS.items()
    ]
    lines += [
        f"""http-error status {code} content-type application/json lf-string "%[lua.error_json({code})]" \
hdr grpc-status "%[lua.grpc_status({code})]" hdr grpc-message "%[lua.grpc_message({code})]"{" hdr retry-after 1" if code == 503 else ""}"""
        for code in _UPSTREAM_ERRORS
    ]
    return "\n".join(f"    {line}" for line in lines)


def _frontend(settings: Settings) -> str:
    binds = "\n".join(f"    bind {address}" for address in settings.bind)
    prefix = names.PATH_PREFIX
    return f"""\
frontend gateway from base
{binds}
    option forwardfor
    # Read by the frontend `returned` alone.
    unique-id-format "%[var(txn.backend)] %[var(txn.route)]"
    http-request set-var(txn.grpc) bool(true) if {{ req.hdr(content-type) -m beg application/grpc }}
    # A service with an explainer has a second entry, for these.
    http-request set-var(txn.explain) str({EXPLAIN}) if {{ path_end {EXPLAIN} }}
    http-request set-var(txn.route) req.hdr(host),host_only,lower,concat(,txn.explain),map_str({map_file("hosts")})
    http-request set-var(txn.route) req.hdr(host),host_only,lower,map_str({map_file("hosts")}) if !{{ var(txn.route) -m found }} {{ var(txn.explain) -m found }}
    http-request set-var(txn.by_path) path,field(3,/,2),concat(,txn.explain),map_str({map_file("paths")}) if !{{ var(txn.route) -m found }} {{ path_beg {prefix}/ }}
    http-request set-var(txn.by_path) path,field(3,/,2),map_str({map_file("paths")}) if !{{ var(txn.route) -m found }} !{{ var(txn.by_path) -m found }} {{ var(txn.explain) -m found }} {{ path_beg {prefix}/ }}
    http-request set-var(txn.route) var(txn.by_path) if {{ var(txn.by_path) -m found }}
    http-request replace-path {prefix}/[^/]+/[^/]+/?(.*) /\\1 if {{ var(txn.by_path) -m found }}
    http-request set-var(txn.backend) var(txn.route),map_str({map_file("http")}) if !{{ var(txn.grpc) -m found }}
    http-request set-var(txn.backend) var(txn.route),map_str({map_file("grpc")}) if {{ var(txn.grpc) -m found }}
    http-request set-var(txn.backend) var(txn.backend),lua.pick if {{ var(txn.backend) -m sub = }}
    http-request set-header x-request-id %[uuid] if !{{ req.fhdr(x-request-id) -m found }}
    http-request set-header x-forwarded-proto http if !{{ req.fhdr(x-forwarded-proto) -m found }}
    # A worker that a reload replaced counts no server as usable: the action looks closer.
    http-request lua.hold if {{ var(txn.backend) -m found }} {{ var(txn.backend),nbsrv eq 0 }}
    use_backend refusals if !{{ var(txn.backend) -m found }} || {{ var(txn.refusal) -m found }}
{_ONWARD}
{_GRPC_ERRORS}
"""


_ONWARD = f"""\
    use_backend {HANDOVER} if {{ var(txn.handover) -m found }}
    use_backend %[var(txn.backend)]"""
_GRPC_ERRORS = """\
    # gRPC's errors are its own, in an HTTP response without fault and without body.
    http-after-response set-header content-type application/grpc if { status 502:504 } { var(txn.grpc) -m found }
    http-after-response set-status 200 if { status 502:504 } { var(txn.grpc) -m found }"""


def _returned(settings: Settings) -> str:
    """A request that the last pod of its backend has refused is past the place where others wait: the backend's backup server `hold` leads here."""
    return f"""\
# Requests that have been in a backend already, or in another worker, and wait again.
frontend returned from base
    bind unix@{HOLD_SOCKET} mode 600 accept-proxy
    http-request set-var(txn.grpc) bool(true) if {{ req.hdr(content-type) -m beg application/grpc }}
    http-request set-var(txn.backend) fc_pp_unique_id,word(1,' ')
    http-request set-var(txn.route) fc_pp_unique_id,word(2,' ')
    unique-id-format "%[var(txn.backend)] %[var(txn.route)]"
    http-request lua.hold
    use_backend refusals if {{ var(txn.refusal) -m found }}
{_ONWARD}
{_GRPC_ERRORS}

# From a worker that a reload has replaced, which hears of no new pods, to its successor.
backend {HANDOVER} from base
    timeout server {_ms(settings.drain_timeout)}
    server next unix@{HOLD_SOCKET} proto h2 send-proxy-v2 proxy-v2-options unique-id
"""


def _refusals() -> str:
    return """\
# No server will see these requests.
backend refusals from base
    http-request return status 200 content-type application/grpc lf-string "%[lua.error_json(refused)]" hdr grpc-status 5 hdr grpc-message "%[lua.grpc_message(unknown)]" if { var(txn.grpc) -m found } !{ var(txn.route) -m found }
    http-request return status 200 content-type application/grpc lf-string "%[lua.error_json(refused)]" hdr grpc-status 14 hdr grpc-message "%[lua.grpc_message(refused)]" if { var(txn.grpc) -m found }
    http-request return status 404 content-type application/json lf-string "%[lua.error_json(unknown)]" if !{ var(txn.route) -m found }
    http-request return status 503 content-type application/json lf-string "%[lua.error_json(refused)]" hdr retry-after 1
"""


def _pool(transport: Transport) -> str:
    """Two random servers, the less busy one: it is fair to slow pods, and unlike leastconn retries elsewhere without a pause.

    A refused connection takes the server out at once, until a check can connect to it. A server that nobody calls is looked at twice a minute:
    with thousands of them, more would be most of what an idle gateway does.
    """
    protocol = "proto h2 " if transport is Transport.GRPC else ""
    return f"""\
defaults {transport} from base
    balance random(2)
    http-request set-timeout server var(txn.backend),map_str_int({map_file("timeouts")},60000)
    # A pod that dies without a word may have acted on what it was told to do, but not on what it was only asked.
    retry-on conn-failure empty-response
    http-request disable-l7-retry unless METH_GET or METH_OPTIONS
    default-server {protocol}check inter 30s fastinter 100ms downinter 100ms rise 1 fall 2 observe layer4 error-limit 1 on-error mark-down
"""


def _backend(name: str, slots: Sequence[Slot], *, returns: bool) -> str:
    """Spare slots at the end are one line; those before them have to keep their numbers."""
    used = max((number + 1 for number, slot in enumerate(slots) if slot.admin != "maint"), default=0)
    lines = [f"backend {name} from {name.partition('-')[0]}"]
    for number, slot in enumerate(slots[:used], start=1):
        limit = f" maxconn {slot.maxconn}" if slot.maxconn else ""
        state = "" if slot.admin == "ready" else " disabled"
        lines.append(f"    server s{number} {_address(slot)}{limit}{state}")
    if used < len(slots):
        lines.append(f"    server-template s {used + 1}-{len(slots)} {_address(Slot())} disabled")
    disabled = "" if returns else " disabled"
    lines.append(
        f"    server {HOLD} unix@{HOLD_SOCKET} backup no-check send-proxy-v2 proxy-v2-options unique-id{disabled}"
    )
    return "\n".join(lines) + "\n"


def _address(slot: Slot) -> str:
    return f"[{slot.address}]:{slot.port}" if ":" in slot.address else f"{slot.address}:{slot.port}"
