"""Who reaches the explorer: the token, the bound address, connections left open, and what an
answer says."""

import asyncio
import contextlib
import errno
import http.client
import json
import re
import signal
import socket
import threading
import time
import warnings

import httpx
import pytest
from explored import ALLOWED, TOKEN, client_of, serving, small

from monge.runs import Run
from monge.show.explore import _serve, connections, explore
from monge.show.explore.access import Access, chosen
from monge.show.explore.addresses import address, bound, hosts, is_local
from monge.show.explore.history import finite, shown, without_folders
from monge.show.explore.server import opened, server
from monge.show.explore.shield import HEADERS

PATHS = ("/", "/static/app.js", "/api/runs", "/api/openapi.json", "/api/runs/wae/progress", "/x")


@pytest.fixture(scope="module")
def explorer(tmp_path_factory):
    path = tmp_path_factory.mktemp("access") / "secret-name"
    return opened([Run(small("wae-mmd", "digits", path, latent=3).path)])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "sent",
    [
        {},
        {"authorization": "token wrong"},
        {"authorization": TOKEN},
        {"authorization": f"Basic {TOKEN}"},
        {"cookie": f"monge={TOKEN}"},
    ],
)
def test_nothing_is_answered_without_the_token(address, path, sent):
    """A 403 of JSON, of the page as HTML, which name no run and forbid what the page forbids."""
    answer = httpx.get(address + path, headers=sent)
    assert answer.status_code == 403
    assert "wae" not in answer.text
    assert all(answer.headers[name] == value for name, value in HEADERS.items())
    if path == "/":
        assert "open the address that the explorer printed" in answer.text
    else:
        assert answer.json()["error"] == "no_token"


@pytest.mark.parametrize("scheme", ["token", "Bearer", "TOKEN"])
def test_a_script_sends_the_token_in_a_header(address, scheme):
    answer = httpx.get(f"{address}/api/runs", headers={"authorization": f"{scheme} {TOKEN}"})
    assert answer.status_code == 200


def test_the_page_trades_the_token_for_a_cookie(address):
    """The cookie is for HTTP of this site alone, is not the token, and opens everything."""
    port = address.rsplit(":", 1)[1]
    with httpx.Client(base_url=address) as client:
        assert client.get("/?token=wrong").status_code == 403
        assert client.get(f"/api/runs?token={TOKEN}").status_code == 403
        first = client.get(f"/?token={TOKEN}")
        assert (first.status_code, first.headers["location"]) == (303, "/")
        cookie = first.headers["set-cookie"]
        assert re.match(rf"monge-{port}-[0-9a-f]{{8}}=", cookie)
        assert {"HttpOnly", "SameSite=Strict"} <= set(cookie.split("; "))
        assert TOKEN not in cookie
        assert all(client.get(path).status_code == 200 for path in PATHS[:-1])
        assert (
            client.get("/api/runs", headers={"origin": "http://evil.example"}).status_code == 403
        )


def test_a_link_of_another_site_is_followed_twice(address):
    """A browser withholds the cookie the first time; the page sends it round once."""
    for site, again in (("cross-site", True), ("same-site", True), ("same-origin", False)):
        text = httpx.get(address, headers={"sec-fetch-site": site}).text
        assert ('http-equiv="refresh"' in text) == again


def test_a_single_token_opens_the_page_once():
    access = Access(TOKEN, 1)
    once = access.single()
    query = f"token={once}".encode()
    assert [access.opens(query), access.opens(query)] == [True, False]
    assert access.opens(f"token={TOKEN}".encode())
    assert not access.opens(b"token=")


def test_tokens_are_fresh_or_given(monkeypatch):
    monkeypatch.delenv("MONGE_TOKEN", raising=False)
    assert len({chosen(None, True) for _ in range(9)}) == 9
    assert len(chosen(None, True)) >= 40
    assert (chosen("own", False), chosen("", True)) == ("own", "")
    for token, local, name in (
        ("", False, "`token`"),
        ("a b", True, "`token`"),
        ("é", True, "`t"),
    ):
        with pytest.raises(ValueError, match=name):
            chosen(token, local)
    monkeypatch.setenv("MONGE_TOKEN", "of-the-environment")
    assert chosen(None, True) == "of-the-environment"
    monkeypatch.setenv("MONGE_TOKEN", "")
    with pytest.raises(ValueError, match="`MONGE_TOKEN` is empty"):
        chosen(None, True)


def test_an_empty_token_lets_everyone_in(explorer):
    with serving(explorer, token="") as place:
        assert httpx.get(f"{place}/api/runs").status_code == 200
        assert httpx.get(place).status_code == 200


WILDCARDS = ("0", "0x0", "0.0", "0.0.0.0", "00", "::", "::0", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0")


@pytest.mark.parametrize(
    "host",
    [*WILDCARDS, "", " ", "nowhere.invalid", "8.8.8.8", "a" * 70, "x\0", "1.2.3.4.5", "é.é"],
)
def test_what_is_no_single_address_is_refused(host):
    with pytest.raises(ValueError, match=r"^`host` .*127\.0\.0\.1") as refusal:
        bound(host, 0)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("host", ["127.1", "127.0.0.1", "localhost", "LOCALHOST", "0x7f.1", "::1"])
def test_a_loopback_address_is_known_however_it_is_written(explorer, host):
    """The printed address opens the page, and a Host of another name does not."""
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6")
    with serving(explorer, host) as place, client_of(place) as client:
        assert re.fullmatch(r"http://(127\.0\.0\.1|localhost|\[::1\]):\d+", place)
        assert client.get("/api/runs").status_code == 200
        port = place.rsplit(":", 1)[1]
        for name, code in ((f"localhost:{port}", 200), (f"evil:{port}", 403), ("localhost", 403)):
            assert client.get("/api/runs", headers={"host": name}).status_code == code


def test_a_tunnel_from_another_port_is_answered_and_its_own_page_alone(explorer):
    """As `ssh -L 9000:127.0.0.1:8642`: a loopback name with any port, whose Origin is the same."""
    with serving(explorer) as place, client_of(place) as client:
        for host in ("localhost:9000", "127.0.0.1:9000"):
            asked = {f"http://{host}": 200, place: 403, "http://evil:9000": 403}
            for origin, code in asked.items():
                headers = {"host": host, "origin": origin}
                assert client.get("/api/runs", headers=headers).status_code == code
        for host in (
            "evil:9000",
            "localhost:x",
            "localhost:",
            "localhost:*",
            "localhost.evil:9000",
        ):
            assert client.get("/api/runs", headers={"host": host}).status_code == 403


def test_whoever_has_shown_the_token_makes_room_last(explorer):
    """One account of a machine, without the token, does not cut off another's open page."""
    with serving(explorer) as place, client_of(place) as client, contextlib.ExitStack() as stack:
        assert client.get("/api/runs").status_code == 200
        (kept,) = client._transport._pool.connections  # pyright: ignore
        held(place, PHASES["nothing"], 400, stack)
        assert client.get("/api/runs").status_code == 200
        assert client._transport._pool.connections == [kept]  # pyright: ignore


def test_tunnels_to_two_servers_do_not_sign_each_other_out():
    """A browser that reaches both by one name keeps both cookies."""
    one, other = Access("a", 8642), Access("b", 8642)
    assert one.cookie.partition("=")[0] != other.cookie.partition("=")[0]


def test_a_refusal_reaches_a_client_that_is_still_sending(explorer):
    """As of a photograph that is too large, or of another type."""
    with serving(explorer) as place:
        port = int(place.rsplit(":", 1)[1])
        for path, kind, size, code in (
            ("image", "image/png", 20_000_000, 413),
            ("image", "image/heic", 3_000_000, 415),
            ("decode", "application/json", 20_000_000, 413),
        ):
            link = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            headers = {**ALLOWED, "Content-Type": kind}
            link.request("POST", f"/api/runs/secret-name/{path}", bytes(size), headers)
            reply = link.getresponse()
            assert (reply.status, set(json.loads(reply.read()))) == (code, {"error", "message"})
            link.close()


def test_there_are_fewer_connections_than_files_may_be_open():
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        allowed = connections.most_connections()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert 0 < allowed <= min(connections.MOST, soft - connections.RESERVED)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_connections_that_cannot_be_taken_are_not_told_one_by_one(caplog):
    loop = asyncio.new_event_loop()
    error = OSError(errno.EMFILE, "too many open files")
    connections.quiet(loop, {"message": "socket.accept()", "exception": error})
    assert not caplog.records
    connections.quiet(loop, {"message": "another", "exception": ValueError("x")})
    assert caplog.records
    loop.close()


def test_interrupts_while_it_ends_change_nothing(explorer):
    with bound("127.0.0.1", 0) as listening:
        running = server(explorer, listening, "127.0.0.1", Access(TOKEN, 1))
        for _ in range(3):
            running.handle_exit(signal.SIGINT, None)
        assert running.should_exit
        assert not running.force_exit


def test_the_bound_address_says_who_can_reach_it():
    with bound("127.0.0.5", 0) as listening:
        port = listening.getsockname()[1]
        assert is_local(listening)
        assert hosts(listening, "127.0.0.5") == ["127.0.0.5:*", "localhost:*"]
        assert address(listening, "127.0.0.5") == f"http://127.0.0.5:{port}/"


ALLOW = b" HTTP/1.1\r\nHost: HOST\r\nAuthorization: AUTH\r\n"
JSON = ALLOW + b"Content-Type: application/json\r\n"
DECODE = b"POST /api/runs/secret-name/decode" + JSON
PHASES = {
    "nothing": b"",
    "a part of a line": b"GET / HT",
    "a part of a head": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
    "a second request": b"GET /api/runs" + ALLOW + b"\r\nGET / HT",
    "a body": DECODE + b"Content-Length: 99\r\n\r\n{",
    "the body of a GET": b"GET /api/runs" + ALLOW + b"Content-Length: 99999\r\n\r\n{",
    "an answer": (b"GET /static/style.css" + ALLOW + b"\r\n") * 999,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}


def held(place: str, content: bytes, count: int, stack: contextlib.ExitStack) -> list:
    """Connections that send something, and read nothing."""
    host = place.removeprefix("http://")
    sent = content.replace(b"HOST", host.encode()).replace(b"AUTH", f"token {TOKEN}".encode())
    links = []
    for _ in range(count):
        link = socket.create_connection(("127.0.0.1", int(host.rsplit(":", 1)[1])), 10)
        stack.enter_context(link)
        link.settimeout(0.2)
        with contextlib.suppress(OSError):
            link.sendall(sent)
        links.append(link)
    return links


def ended(link: socket.socket) -> bool:
    """Whether the server has ended a connection."""
    link.settimeout(5)
    try:
        while link.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@pytest.mark.parametrize("phase", PHASES)
def test_connections_left_open_lock_nobody_out(explorer, phase):
    """While 300 connections wait in a phase, an honest client is answered, or told to come back
    and answered soon."""
    with serving(explorer) as place, contextlib.ExitStack() as stack:
        held(place, PHASES[phase], 300, stack)
        began = time.monotonic()
        for _ in range(3):
            with client_of(place) as client:
                while (answer := client.get("/api/runs")).status_code == 503:
                    time.sleep(int(answer.headers["retry-after"]))
                assert answer.status_code == 200
                body = {"codes": [[0.0, 0.0, 0.0]]}
                assert client.post("/api/runs/secret-name/decode", json=body).status_code == 200
        assert time.monotonic() - began < connections.HEAD_SECONDS


@pytest.mark.parametrize("phase", PHASES)
def test_connections_left_open_are_ended(explorer, phase, monkeypatch):
    """Whatever a client does not do, it is waited for only so long."""
    for name in ("HEAD_SECONDS", "SEND_SECONDS"):
        monkeypatch.setattr(connections, name, 0.5)
    monkeypatch.setattr("monge.show.explore.shield.BODY_SECONDS", 0.5)
    monkeypatch.setattr("monge.show.explore.server.IDLE_SECONDS", 1)
    with serving(explorer) as place, contextlib.ExitStack() as stack:
        links = held(place, PHASES[phase], 3, stack)
        time.sleep(2.5 if phase == "an answer" else 0)
        assert all(ended(link) for link in links)


def answer_to(place: str, content: bytes) -> tuple[int, dict[str, str], bytes]:
    host = place.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", int(host.rsplit(":", 1)[1])), 10) as link:
        link.sendall(content.replace(b"HOST", host.encode()))
        reply = http.client.HTTPResponse(link)
        reply.begin()
        return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\x00\x01\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nX: " + b"a" * 2**15, 400),
        (b"GET /api/x" + ALLOW + b"\r\n", 404),
        (b"PUT /api/runs" + JSON + b"Content-Length: 2\r\n\r\n{}", 405),
        (DECODE + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (DECODE + b"Content-Length: 99999999\r\n\r\n", 413),
    ],
)
def test_every_refusal_is_json_with_the_headers_of_the_page(explorer, content, code):
    with serving(explorer) as place:
        sent = content.replace(b"AUTH", f"token {TOKEN}".encode())
        status, headers, body = answer_to(place, sent)
    assert status == code
    assert headers["content-type"] == "application/json"
    assert set(json.loads(body)) == {"error", "message"}
    assert headers | HEADERS == headers


def test_too_many_connections_at_work_are_a_503_to_come_back_for(explorer, monkeypatch):
    monkeypatch.setattr(connections, "MOST_OF_CLIENT", 1)
    monkeypatch.setattr(connections.BoundedConnection, "waits", False)
    with serving(explorer) as place, client_of(place) as one, client_of(place) as two:
        assert one.get("/api/runs").status_code == 200
        answer = two.get("/api/runs")
    assert (answer.status_code, answer.json()["error"]) == (503, "busy")
    assert int(answer.headers["retry-after"]) >= 1


ODD = (
    "[]",
    "3",
    '"text"',
    "null",
    "{}",
    '{"step": "a"}',
    '{"step": -1, "seconds": 1}',
    '{"step": 1e400, "seconds": 1}',
    '{"step": 7, "seconds": "x", "epoch": 0, "loss": "text"}',
    '{"step": 8, "seconds": 1, "epoch": 0, "loss": NaN}',
    '{"step": 9, "seconds": 1, "epoch": 0, "loss": [1]}',
    '{"step": 10, "seconds": 1, "epoch": 0, "loss": ' + "9" * 400 + "}",
    "[" * 100_000,
    "\x00\x1b[31m",
)


@pytest.mark.parametrize("line", ODD)
def test_odd_lines_of_a_log_are_no_fault_of_the_server(tmp_path, explorer, line):
    run = explorer["secret-name"].run
    log, evaluation = run.path / "metrics.jsonl", run.path / "evaluation.json"
    before = log.read_bytes()
    with serving(explorer) as place, client_of(place) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            log.write_text(f"{line}\n")
            for text in (line, f'{{"protocol": {{"a": {line}}}, "figures": {{"FD": {line}}}}}'):
                evaluation.write_text(text)
                answer = client.get("/api/runs/secret-name/progress")
                assert answer.status_code in (200, 409), answer.text
                assert str(run.path.parent) not in answer.text
        finally:
            log.write_bytes(before)
            evaluation.unlink()


def test_no_folder_of_this_machine_is_shown():
    config = {
        "recipe": "wae-mmd",
        "options": {"known": "/home/someone/secret/mask.png"},
        "data": {"name": "/home/someone/x.csv", "dir": "/d", "cache": "C:\\Users\\x\\c"},
    }
    text = json.dumps(shown(config))
    assert not re.search("someone|Users|/d|secret", text)
    assert "x.csv" in text
    for before, after in (
        ("`data` '/home/some one/x y.npy' is gone", "`data` 'x y.npy' is gone"),
        ("no file at /home/me/x.npy: give another", "no file at x.npy: give another"),
        ("~/runs/a and C:\\Users\\me\\b", "a and b"),
        ("speed in km/h, 3 / 4", "speed in km/h, 3 / 4"),
    ):
        assert without_folders(before) == after
    began = time.process_time()
    without_folders("'" + "/" * 10**6)
    assert time.process_time() - began < 1
    assert [finite(x) for x in (1, 2.5, "3", None, True, [1], float("inf"), 10**400)] == [
        1, 2.5, None, None, None, None, None, None,
    ]  # fmt: skip


def test_it_serves_inside_a_running_loop(explorer, capsys):
    """As in Jupyter: until it is interrupted."""
    run = explorer["secret-name"].run
    seen: list[int] = []

    def ask() -> None:
        for _ in range(200):
            time.sleep(0.1)
            if found := re.search(r"(http://\S+)/\?token=(\S+)", capsys.readouterr().out):
                headers = {"authorization": f"token {found[2]}"}
                seen.append(httpx.get(f"{found[1]}/api/runs", headers=headers).status_code)
                break
        signal.raise_signal(signal.SIGINT)

    async def cell() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=ask).start()
        explore([run], port=0)

    former = signal.getsignal(signal.SIGINT)
    try:
        asyncio.run(cell())
    finally:
        signal.signal(signal.SIGINT, former)
    assert seen == [200]


def test_an_interrupt_waits_for_the_server_to_end():
    """An interrupted `Thread.join` takes a thread that runs on for ended."""
    ended: list[bool] = []

    class Server:
        should_exit = False

        def run(self, sockets):
            time.sleep(0.2)
            signal.raise_signal(signal.SIGINT)
            while not self.should_exit:
                time.sleep(0.05)
            time.sleep(0.5)
            ended.append(True)

    async def cell() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with socket.socket() as listening:
            _serve(Server(), listening)
            assert ended == [True]

    former = signal.getsignal(signal.SIGINT)
    try:
        asyncio.run(cell())
    finally:
        signal.signal(signal.SIGINT, former)


def test_the_token_costs_nothing_measurable():
    """Less than 50 µs a request."""
    access = Access(TOKEN, 8642)
    headers = [(b"host", b"x"), (b"authorization", ALLOWED["Authorization"].encode())]
    began = time.process_time()
    assert all(access.holds(headers) for _ in range(2000))
    assert time.process_time() - began < 2000 * 50e-6
