from fairlead.gateway.answers import BackendStats, Load, backend_stats, entries, held, info, loads, servers
from fairlead.gateway.state import Slot

HEADER = "# pxname,svname,qcur,qmax,scur,smax,slim,stot,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,req_tot,last_chk,\n"
STATE_HEADER = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state\n"


def server_line(backend: str, server: str, admin: int, address: str = "10.0.0.1", port: int = 8080) -> str:
    return f"3 {backend} 1 {server} {address} 2 {admin} 1 1 0 6 3 4 6 0 0 0 - {port} - 0 0 - - 0\n"


def test_the_load_of_a_server_is_read_though_a_later_column_is_quoted() -> None:
    answer = HEADER + 'h1-0001,s1,2,0,3,0,10,0,,,,,,,,"no, it said ""no""",\nh1-0001,s2,0,0,0,0,,0,,,,,,,,,\n\n'
    assert loads(answer) == {("h1-0001", "s1"): Load(10, 5), ("h1-0001", "s2"): Load(0, 0)}


def test_what_a_backend_has_answered_includes_its_errors() -> None:
    answer = HEADER + 'h1-0001,BACKEND,1,0,4,0,,0,0,100,20,3,7,1,140,"a, b",\n\n'
    assert backend_stats(answer) == {"h1-0001": BackendStats(4, 1, 140, 131, 7)}


def test_of_a_backend_that_haproxy_does_not_know_there_are_no_lines() -> None:
    for answer in ("No such proxy.\n\n", "\n", ""):
        assert loads(answer) == {} == backend_stats(answer)


def test_a_slot_is_its_address_its_admin_state_and_its_load() -> None:
    answer = STATE_HEADER + (
        server_line("h1-0001", "s1", 0)
        + server_line("h1-0001", "s2", 0x08, "10.0.0.2")
        + server_line("h1-0001", "s3", 0x01, "127.0.0.1", 9)
        + server_line("h1-0001", "hold", 0)
        + server_line("h1-0002", "s1", 0x09)
        + server_line("h1-0002", "hold", 0x01)
        + server_line("handover", "next", 0)
        + "\n"
    )
    load = {(b, s): Load(0, 0) for b in ("h1-0001", "h1-0002") for s in ("s1", "s2", "s3")} | {
        ("h1-0001", "s2"): Load(4, 2)
    }
    backends, returning = servers(answer, load)
    assert backends == {
        "h1-0001": [Slot("10.0.0.1", 8080, "ready"), Slot("10.0.0.2", 8080, "drain", 4, 2), Slot()],
        "h1-0002": [Slot("10.0.0.1", 8080, "maint")],
    }
    assert returning == {"h1-0001"}


def test_maps_held_requests_and_info() -> None:
    assert entries("0x55 a.b 100:h1-0001=80,h1-0002=100\n0x56 c d e\n\n") == {
        "a.b": "100:h1-0001=80,h1-0002=100",
        "c": "d e",
    }
    assert held("h1-0001 3\nh2-0001 1\n\n") == {"h1-0001": 3, "h2-0001": 1}
    assert info("Name: HAProxy\nPid: 12\ndescription: ab:cd\n")["description"] == "ab:cd"
