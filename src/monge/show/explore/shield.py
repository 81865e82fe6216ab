"""The shield of the page and its API: who may send requests, how large they may be, and how slow.

A page of another site can make a browser send requests to 127.0.0.1. Such a request names the
other site in its Origin header or, after DNS rebinding, in its Host header. The explorer answers
only requests whose Host and Origin match its own, and which carry its token.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monge.show.explore.access import AGAIN, PAGE, Access
from monge.show.explore.uploads import FORMATS

MOST_JSON = 4 * 2**20
MOST_IMAGE = 16 * 2**20
MOST_HELD = 64 * 2**20
"""Bytes of all bodies that are read or answered at one time."""
BODY_SECONDS = 10.0
MOST_DISCARDED, DISCARD_SECONDS, PAUSE_SECONDS = 32 * 2**20, 3.0, 0.3
"""Bytes of the rest of a body that is refused, and seconds for it in all and between two parts."""

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

FRAMED = {name: text for name, text in HEADERS.items() if name != "x-frame-options"}
FRAMED["content-security-policy"] = HEADERS["content-security-policy"].replace(
    "frame-ancestors 'none'", "frame-ancestors http://localhost:* http://127.0.0.1:*"
)
"""The headers of a page that a notebook on this machine shows in a frame."""

NO_TOKEN = (
    "open the address that the explorer printed when it started, or send its token in the header "
    "`Authorization: token …`"
)


class Refused(Exception):
    """A request that is refused before it reaches the API."""

    def __init__(self, status: int, error: str, message: str):
        super().__init__(message)
        self.status, self.error = status, error


class Gone(Exception):
    """The client has disconnected."""


class Shield:
    """Refuses requests of other sites, and bodies that are too large, too slow or of another type.

    Args:
        app: the application behind it.
        hosts: the allowed values of the Host header, host:port, or host:* for every port.
        access: who holds the token.
        framed: whether pages of this machine, such as notebooks, may show the page in a frame.
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str], access: Access, framed: bool = False):
        self.app, self.hosts, self.access, self.held = app, set(hosts), access, 0
        self.headers = FRAMED if framed else HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message.get("headers", ())}
                more = [(k.encode(), v.encode()) for k, v in self.headers.items()]
                kept = [pair for pair in more if pair[0] not in given]
                message["headers"] = [*message.get("headers", ()), *kept]
            await send(message)

        held = Held(self)
        try:
            headers = self._known(scope)
            if scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
                if self.access.opens(scope["query_string"]):
                    await redirect(guarded, self.access.cookie)
                    return
                if not self.access.holds(scope["headers"]):
                    await without_token(guarded, headers)
                    return
            if not self.access.holds(scope["headers"]):
                raise Refused(403, "no_token", NO_TOKEN)
            scope["monge.known"] = True  # which its connection sees
            if scope["method"] == "POST":
                most = self._allowed(scope["path"], headers)
                await asyncio.wait_for(held.read(receive, headers, most), BODY_SECONDS)
            elif scope["method"] not in ("GET", "HEAD"):
                await discarded(receive, scope)  # no route has it, and none reads its body
            if scope["method"] == "HEAD":
                await self.app({**scope, "method": "GET"}, receive, without_body(guarded))
            else:
                await self.app(scope, held.replay(receive), guarded)
        except Gone:
            pass
        except TimeoutError:
            message = f"the body took over {BODY_SECONDS:g} s"
            await answer(guarded, Refused(408, "too_slow", message))
        except Refused as refusal:
            await discarded(receive, scope)
            await answer(guarded, refusal)
        finally:
            held.release()

    def _known(self, scope: Scope) -> dict[bytes, bytes]:
        headers = dict(scope["headers"])
        for name in (b"host", b"origin", b"content-length", b"content-type"):
            if sum(key == name for key, _ in scope["headers"]) > 1:
                raise Refused(400, "bad_header", f"there is more than one {name.decode()}")
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name, _, port = host.rpartition(":")
        tunnelled = f"{name}:*" in self.hosts and port.isdecimal()
        if "*" in host or not (host in self.hosts or tunnelled):
            raise Refused(403, "wrong_host", "the Host is not this server's")
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() != f"http://{host}":
            raise Refused(403, "wrong_origin", "the Origin is another site")
        site = headers.get(b"sec-fetch-site", b"none")
        if scope["path"].startswith("/api") and site not in (b"none", b"same-origin"):
            raise Refused(403, "wrong_origin", "the request comes from another site")
        return headers

    def _allowed(self, path: str, headers: dict[bytes, bytes]) -> int:
        """The most bytes of the body."""
        kind = headers.get(b"content-type", b"").decode("latin-1").split(";")[0].strip().lower()
        if path.endswith("/image"):
            if kind not in FORMATS:
                raise Refused(415, "wrong_type", f"an image is one of {', '.join(FORMATS)}")
            return MOST_IMAGE
        if kind != "application/json":
            raise Refused(415, "wrong_type", "the body must be application/json")
        return MOST_JSON


def without_body(send: Send) -> Send:
    """What the API sends an answer to HEAD through. It ends with its headers, since the client
    does not wait for more before it sends another request."""

    async def headers_only(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return headers_only


async def discarded(receive: Receive, scope: Scope) -> None:
    """Reads the rest of a body that is refused: a client that is still sending it would find its
    connection cut before it reads why."""
    headers = dict(scope["headers"])
    if b"expect" in headers or not headers.keys() & {b"content-length", b"transfer-encoding"}:
        return
    count, end = 0, time.monotonic() + DISCARD_SECONDS
    with contextlib.suppress(TimeoutError):
        while count < MOST_DISCARDED and time.monotonic() < end:
            message = await asyncio.wait_for(receive(), PAUSE_SECONDS)
            count += len(message.get("body", b""))
            if not message.get("more_body", False):
                return


class Held:
    """The body of a request, which counts towards the limit on all bodies."""

    def __init__(self, shield: Shield):
        self.shield, self.body = shield, bytearray()

    async def read(self, receive: Receive, headers: dict[bytes, bytes], most: int) -> None:
        """Reads the body, and refuses it as soon as it is longer than `most` bytes."""
        too_large = Refused(413, "too_large", f"the body is over {most:,} bytes")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 12 or int(length) > most:
            raise too_large
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            part, more = message.get("body", b""), message.get("more_body", False)
            self.body += part
            self.shield.held += len(part)
            if len(self.body) > most:
                raise too_large
            if self.shield.held > MOST_HELD:
                raise Refused(503, "busy", "too many bodies at once: try again")

    def replay(self, receive: Receive) -> Receive:
        """What the API receives: the whole body, then any further messages."""
        waiting = True

        async def first_the_body() -> Message:
            nonlocal waiting
            if not waiting:
                return await receive()
            waiting = False
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}

        return first_the_body

    def release(self) -> None:
        """The body is no longer held."""
        self.shield.held -= len(self.body)
        self.body.clear()


async def answer(send: Send, refusal: Refused) -> None:
    """Sends a refusal, after which the connection is closed: its body may not have been read."""
    content = json.dumps({"error": refusal.error, "message": str(refusal)}).encode()
    headers = {"content-type": "application/json", "connection": "close", **HEADERS}
    if refusal.status == 503:
        headers["retry-after"] = "1"
    await _reply(send, refusal.status, headers, content)


async def redirect(send: Send, cookie: str) -> None:
    """Sends the cookie, and the browser to the page's address without the token."""
    await _reply(send, 303, {"location": "/", "set-cookie": cookie}, b"")


async def without_token(send: Send, headers: dict[bytes, bytes]) -> None:
    """Says where the token is found.

    A browser that follows a link of another site withholds the cookie, which is for this site
    only. It is sent to the same address once more, now by a page of this site.
    """
    followed = headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin")
    content = PAGE.format(again=AGAIN if followed else "").encode()
    kind = {"content-type": "text/html; charset=utf-8", "connection": "close"}
    await _reply(send, 403, kind, content)


async def _reply(send: Send, status: int, headers: dict[str, str], content: bytes) -> None:
    sent = headers | {"content-length": str(len(content))}
    pairs = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": content})
