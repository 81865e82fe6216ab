"""Hostile requests to the explorer: each must be refused with a 4xx, and the server live on.

`serve_and_attack` serves a run in a process of its own, sends what is below with plain sockets,
aborts 1,000 uploads, and counts how much memory the server has grown by. `FUZZ` sends requests
whose bytes are mutated.
"""

import contextlib
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from explored import TOKEN, small

from attacks.fuzzing import Fuzz, mutated
from monge.runs import Run
from monge.show.explore.access import Access
from monge.show.explore.addresses import bound
from monge.show.explore.server import opened, server
from monge.show.explore.shield import HEADERS

ABORTED = 1000
MOST_GROWTH = 16.0
"""MiB by which the server may grow over all of it, after a warm-up."""


def chunk(kind: bytes, body: bytes) -> bytes:
    """Of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A grey PNG file that claims a size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(pixels, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


class Client:
    """Requests byte by byte, to one address."""

    def __init__(self, port: int):
        self.port = port

    def raw(self, content: bytes, seconds: float = 30) -> bytes:
        """Sends bytes, and reads until the server closes or has answered."""
        with socket.create_connection(("127.0.0.1", self.port), seconds) as link:
            answer = b""
            # refused before all was sent, its answer may still be read
            with contextlib.suppress(OSError):
                link.sendall(content)
            with contextlib.suppress(OSError):
                while not self._whole(answer) and (more := link.recv(65536)):
                    answer += more
        return answer

    @staticmethod
    def _whole(answer: bytes) -> bool:
        head, ends, body = answer.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        return bool(ends and length and len(body) >= int(length[1]))

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        """A request with the right Host, unless another is given."""
        sent = {"Host": f"127.0.0.1:{self.port}", "Connection": "close"}
        sent["Authorization"] = f"token {TOKEN}"
        if body or method == "POST":
            sent |= {"Content-Length": str(len(body)), "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in sent.items()), "", ""]
        return self.raw("\r\n".join(lines).encode("latin-1") + body)

    def post(self, path: str, body, **headers: str) -> bytes:
        """A JSON body, or bytes as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", f"/api/runs/run/{path}", content, **headers)

    def image(self, body: bytes, kind: str = "image/png") -> bytes:
        """An upload."""
        return self.post("image", body, Content_Type=kind)


def strangers(client: Client) -> Iterator[tuple[str, bytes]]:
    """Who asks from elsewhere, and what does not exist."""
    for host in ("evil.example", "127.0.0.1", f"localhost.evil:{client.port}", ""):
        yield f"host {host!r}", client.request("GET", "/api/runs", Host=host)
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{client.port}"):
        yield f"origin {origin!r}", client.request("GET", "/api/runs", Origin=origin)
    yield "no host", client.raw(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    two = f"Host: 127.0.0.1:{client.port}\r\n" * 2
    yield "two hosts", client.raw(f"GET / HTTP/1.1\r\n{two}\r\n".encode())
    yield "another site's fetch", client.request("GET", "/api/runs", Sec_Fetch_Site="cross-site")
    for name in (
        "",
        "token",
        "token x",
        f"Basic {TOKEN}",
        f"token {TOKEN}x",
        f"token {TOKEN[:-1]}",
    ):
        for path in ("/", "/static/app.js", "/api/runs", "/api/openapi.json", "/favicon.ico"):
            yield f"{path} for {name!r}", client.request("GET", path, Authorization=name)
    yield "a wrong token", client.request("GET", "/?token=x", Authorization="")
    yield (
        "a token for the API",
        client.request("GET", f"/api/runs?token={TOKEN}", Authorization=""),
    )
    cookie = f"monge-{client.port}={TOKEN}"
    yield "a made-up cookie", client.request("GET", "/", Authorization="", Cookie=cookie)
    for path in (
        "/static/../api.py",
        "/static/%2e%2e/api.py",
        "/static/..%2f..%2fcli.py",
        "/static//etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/api/runs/..%2f..%2fetc/progress",
        "/api/runs/%2Fetc%2Fpasswd/progress",
        "/api/runs/run%00/progress",
        "/api/runs/RUN/progress",
        "/api/runs/run/test?first=-1",
        "/api/runs/run/test?first=99999999",
        "/api/runs/run/test?count=1e9",
        "/api/runs/run/map/..",
        "/api/nothing",
    ):
        yield f"path {path}", client.request("GET", path)
    yield "method", client.request("DELETE", "/api/runs", b"{}")
    yield "no HTTP", client.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
    head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\nX: ".encode()
    yield "a header of 1 MB", client.raw(head + b"a" * 2**20 + b"\r\n\r\n")


def bodies(client: Client) -> Iterator[tuple[str, bytes]]:
    """What is no JSON, or no argument."""
    zero = [0.0, 0.0, 0.0]
    for name, body in {
        "no JSON": b"{",
        "no body": b"",
        "an array": b"[]",
        "a number": b"1",
        "NaN": b'{"codes": [[NaN, 0, 0]]}',
        "infinity": b'{"codes": [[Infinity, 0, 0]]}',
        "1e999": b'{"codes": [[1e999, 0, 0]]}',
        "1e30": b'{"codes": [[1e30, 0, 0]]}',
        "a number of 10,000 digits": b'{"codes": [[' + b"9" * 10_000 + b", 0, 0]]}",
        "deep": b"[" * 100_000,
        "deep codes": b'{"codes": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        "no UTF-8": b'{"codes": "\xff\xfe"}',
        "a lone surrogate": b'{"\\ud800": 1}',
        "a text": {"codes": "x" * 1000},
        "null": {"codes": None},
        "no codes": {"codes": []},
        "short": {"codes": [[0.0]]},
        "long": {"codes": [[0.0] * 4000]},
        "ragged": {"codes": [zero, [0.0]]},
        "many": {"codes": [zero] * 101},
        "far": {"codes": [[1e4, 0.0, 0.0]]},
        "unknown": {"codes": [zero], "path": "/etc/passwd"},
        "bad base64": {"codes": [zero], "given": {"data": "%%%"}},
    }.items():
        yield f"decode {name}", client.post("decode", body)
    for name, body in {
        "count": {"count": 10**9},
        "seed": {"seed": -1},
        "a huge seed": {"seed": 10**40},
        "temperature": {"temperature": 1e300},
        "sampler": {"sampler": "../../etc"},
    }.items():
        yield f"sample {name}", client.post("sample", body)
    yield "an index", client.post("reconstruct", {"sample": {"index": 10**12}})
    yield (
        "frames",
        client.post("interpolate", {"a": {"index": 0}, "b": {"index": 1}, "frames": 10**6}),
    )
    yield "plain text", client.post("decode", b"{}", Content_Type="text/plain")
    yield "a form", client.post("decode", b"a=1", Content_Type="application/x-www-form-urlencoded")
    yield "a bad view", client.post("decode", {"codes": [zero]}, X_View="a b\x01"[:3])
    yield "5 MB of JSON", client.post("decode", b" " * (5 * 2**20))
    yield "a claimed 10 GB", client.post("decode", b"{}", Content_Length=str(10 * 2**30))
    yield "a negative length", client.post("decode", b"{}", Content_Length="-1")
    host = (
        f"Host: 127.0.0.1:{client.port}\r\nAuthorization: token {TOKEN}\r\n"
        "Content-Type: application/json\r\n"
    )
    head = f"POST /api/runs/run/decode HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n"
    part = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    yield "5 MB in chunks", client.raw(head.encode() + part * 80 + b"0\r\n\r\n")
    yield "a broken chunk", client.raw(head.encode() + b"zz\r\n\r\n")


def uploads(client: Client) -> Iterator[tuple[str, bytes]]:
    """What is not an image, or too large a one."""
    yield "nothing", client.image(b"")
    yield "a text", client.image(b"hello")
    yield "a cut file", client.image(png(8, 8, bytes(72))[:-30])
    yield "a claimed 60,000 × 60,000", client.image(png(60_000, 60_000))
    yield "a bomb of 30,000 × 30,000", client.image(png(30_000, 30_000, bytes(10**8)))
    yield "a bomb of 5,001 × 5,000", client.image(png(5_001, 5_000, bytes(5_002 * 5_000)))
    yield "17 MB", client.image(bytes(17 * 2**20))
    yield (
        "a claimed 1 GB",
        client.post("image", b"x", Content_Type="image/png", Content_Length=str(2**30)),
    )
    yield "SVG", client.image(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")
    yield "PDF as PNG", client.image(b"%PDF-1.4\n%%EOF")
    yield "EPS as PNG", client.image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    yield "HTML", client.image(b"<html>", "text/html")
    yield "a pickle", client.image(b"\x80\x04\x95.", "application/octet-stream")


def slow(client: Client) -> bytes:
    """A body of which a byte comes each second."""
    head = (
        f"POST /api/runs/run/decode HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n"
        f"Authorization: token {TOKEN}\r\nContent-Type: application/json\r\n"
        "Content-Length: 1000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", client.port), 30) as link:
        link.sendall(head.encode())
        link.settimeout(1)
        for _ in range(25):
            try:
                link.sendall(b" ")
                if answer := link.recv(65536):
                    return answer
            except TimeoutError:
                pass
    return b""


def silent(client: Client) -> bytes:
    """A header that never ends: there is nobody to answer, the server hangs up."""
    with socket.create_connection(("127.0.0.1", client.port), 30) as link:
        link.sendall(b"GET / HT")
        return link.recv(65536) or b"HTTP/1.1 400 hung up"


def abort_uploads(client: Client, count: int) -> None:
    """Uploads that claim 8 MB, send a little, and are cut."""
    head = (
        f"POST /api/runs/run/image HTTP/1.1\r\nHost: 127.0.0.1:{client.port}\r\n"
        f"Authorization: token {TOKEN}\r\nContent-Type: image/png\r\n"
        f"Content-Length: {8 * 2**20}\r\n\r\n"
    ).encode()
    for i in range(count):
        with socket.create_connection(("127.0.0.1", client.port), 30) as link:
            if i % 2:  # cut off with a reset rather than an end
                link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.sendall(head + png(8, 8)[:20] + bytes(200_000))
            time.sleep(0.003)  # at once, most would be refused unread: too many connections


def status(answer: bytes) -> int:
    """Of an HTTP answer; 0 where there is none."""
    found = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    return int(found[1]) if found else 0


def resident(process: int) -> float:
    """MiB of memory that a process holds, on Linux."""
    text = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    assert found
    return int(found[1]) / 1024


def alive(client: Client) -> bool:
    """Whether an honest question is answered."""
    honest = {"codes": [[0.0, 0.0, 0.0]]}
    return status(client.post("decode", honest)) == 200


def attack(port: int, process: int) -> dict:
    """Sends everything; what was answered, and by how much the process has grown."""
    client = Client(port)
    assert alive(client), "the run must be known as run, and have 3 codes"
    # the first of each kind load modules and fill caches, and where many overlap threads start
    for generator in (uploads, bodies, strangers):
        list(generator(client))
    abort_uploads(client, ABORTED)
    before = resident(process)
    answers = [*strangers(client), *bodies(client), *uploads(client)]
    answers += [("a slow body", slow(client)), ("a silent header", silent(client))]
    abort_uploads(client, ABORTED)
    time.sleep(1)
    return {
        "statuses": {name: status(answer) for name, answer in answers},
        "tracebacks": [name for name, answer in answers if b"Traceback" in answer],
        "alive": alive(client),
        "aborted": ABORTED,
        "grown": resident(process) - before,
        "resident": resident(process),
    }


def serve_and_attack(run: Path) -> dict:
    """The same, on `monge explore` of a run named run with 3 codes, in a process of its own."""
    command = [sys.executable, "-m", "monge", "explore", str(run), "--port", "0"]
    environment = os.environ | {"MONGE_TOKEN": TOKEN}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found
            return attack(int(found[1]), process.pid)
        finally:
            process.terminate()


def prepare(folder: Path) -> int:
    """The port of a server of a tiny run, which ends with this process."""
    listening = bound("127.0.0.1", 0)
    port = listening.getsockname()[1]
    explorers = opened([Run(small("wae-mmd", "digits", folder / "run", latent=3).path)])
    running = server(explorers, listening, "127.0.0.1", Access(TOKEN, port))
    threading.Thread(target=running.run, args=([listening],), daemon=True).start()
    return port


def case(port: int, rng: random.Random) -> None:
    """A request whose bytes are mutated, which gets a whole answer or is no request."""
    path, body = rng.choice(HONEST)
    content = json.dumps(body).encode() if body is not None else b""
    lines = [
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: token {TOKEN}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *rng.sample(EXTRA, rng.randrange(3)),
    ]
    head = "\r\n".join([*lines, "", ""]).encode()
    if rng.random() < 0.5 and content:
        sent = head + mutated(content, rng)
    else:
        sent = mutated(head + content, rng)
    answer = Client(port).raw(sent, seconds=0.2)
    if not answer:
        raise ValueError("no answer: the request is not whole")
    code, (top, _, text) = status(answer), answer.partition(b"\r\n\r\n")
    if code == 100:
        raise ValueError("no answer but 100: the request is not whole")
    assert all(name.encode() in top.lower() for name in HEADERS), answer[:500]
    assert code < 500 or code == 503, answer[:500]
    assert b"Traceback" not in answer
    if code >= 400 and not sent.startswith(b"HEAD") and b"text/html" not in top:
        problem = json.loads(text)
        assert set(problem) == {"error", "message"}
        raise ValueError(f"{code} {problem['error']}")
    if code >= 400:
        raise ValueError(f"{code} of the page")


HONEST = (
    ("/", None),
    ("/static/app.js", None),
    ("/api/runs", None),
    ("/api/runs/run/progress", None),
    ("/api/runs/run/test?first=3&count=2", None),
    ("/api/runs/run/decode", {"codes": [[0.1, 0.2, 0.3], [1, 2, -0.5]]}),
    ("/api/runs/run/sample", {"count": 3, "seed": 1, "temperature": 0.5}),
    ("/api/runs/run/interpolate", {"a": {"index": 0}, "b": {"index": 1}, "frames": 3}),
    ("/api/runs/run/reconstruct", {"sample": {"index": 2}}),
)
EXTRA = (
    "Connection: close",
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "Transfer-Encoding: chunked",
    "Range: bytes=0-3",
    "If-None-Match: *",
    "Cookie: monge-1=x; =; ;;a",
    "X-View: page/map",
    "Accept-Encoding: gzip",
    "X-Forwarded-For: 10.0.0.1",
)
FUZZ = Fuzz("requests", prepare, case)
