"""Connections that end: each has time limits for what its client must do, and all are counted.

A connection waits for its client while the client opens it, sends a request, or reads an answer.
Those that wait too long are cut. Where there are too many, the one that has waited longest makes
room for a new one, so that connections left open by one client lock nobody out.
"""

import asyncio
import collections
import contextlib
import errno
import json
import os
import time
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from monge.show.explore.shield import HEADERS, Refused, answer

HEAD_SECONDS = 10.0
"""Until the head of a request is whole, from its first byte or from the opening."""
IDLE_SECONDS = 15
"""Between an answer and the next request."""
SEND_SECONDS = 30.0
"""Until an answer has been read."""
MOST, MOST_OF_CLIENT = 512, 256
"""Connections, in all and of one address."""
BACKLOG = 128
"""Connections that are taken at once, fewer than one client may have: what those send is seen
before more are taken."""
RESERVED = 64
"""Files that the server itself may have open."""


def most_connections() -> int:
    """Connections in all, as far as the process may open files; it is allowed more if need be."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return MOST
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST + RESERVED + len(os.listdir("/dev/fd"))
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            enough = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (enough, hard))
            soft = enough
    return max(1, min(MOST, MOST - (wanted - soft)))


def quiet(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Passes over connections that could not be taken for want of files: there may be thousands,
    and the loop tries again."""
    error = context.get("exception")
    if not (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)):
        loop.default_exception_handler(context)


class BoundedConnection(H11Protocol):
    """HTTP/1.1 of uvicorn, with limits of time and number."""

    most = MOST
    """Connections in all, which `server` sets to what the process may have."""
    _clock: asyncio.TimerHandle | None = None
    _slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore
        super().connection_made(transport)
        # any bytes that are left unsent then count as an answer that is not read
        transport.set_write_buffer_limits(high=0)
        self.since = time.monotonic()
        self._clock = self.loop.call_later(HEAD_SECONDS, transport.abort)
        self._make_room()

    def _make_room(self) -> None:
        everyone = [one for one in self.connections if isinstance(one, BoundedConnection)]
        counts = collections.Counter(one.address for one in everyone)
        most = self.most
        if counts[self.address] <= min(MOST_OF_CLIENT, most) and len(everyone) <= most:
            return
        crowded = counts[self.address] > min(MOST_OF_CLIENT, most)
        others = [one for one in everyone if one is not self and one.waits]
        if crowded:
            others = [one for one in others if one.address == self.address]
        if not others:
            self.app = overloaded
            return
        # whoever has shown the token makes room last
        oldest = min(others, key=lambda one: (one.known, -counts[one.address], one.since))
        self.connections.discard(oldest)
        oldest.transport.abort()

    @property
    def address(self) -> str:
        """The client's."""
        return self.client[0] if self.client else ""

    @property
    def known(self) -> bool:
        """Whether its last request had the token."""
        return self.cycle is not None and bool(self.cycle.scope.get("monge.known"))

    @property
    def computes(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def waits(self) -> bool:
        """Whether it is the client's turn."""
        return not self.computes or self.cycle.more_body or self.flow.write_paused

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.computes:
            self._stop_clock()
        elif self._clock is None and not self.transport.is_closing():
            self._clock = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def on_response_complete(self) -> None:
        self._stop_clock()
        self.since = time.monotonic()
        if self.conn.trailing_data[0]:  # of requests sent ahead, which no browser does
            self.transport.close()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._slow = self._slow or self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        super().connection_lost(exc)
        self.resume_writing()

    def shutdown(self) -> None:
        """Ends the connection at once if the server waits for its client."""
        if self.waits:
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Says in JSON that bytes are no HTTP, if an answer is not already under way."""
        if self.cycle is not None:
            self.cycle.disconnected = self.cycle.disconnected or self.computes
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = json.dumps({"error": "malformed", "message": "this is no HTTP/1.1"}).encode()
            headers = [
                *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                (b"content-type", b"application/json"),
                (b"content-length", str(len(content)).encode()),
                (b"connection", b"close"),
            ]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None


async def overloaded(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers for the application where all connections are at work."""
    await answer(send, Refused(503, "busy", "too many connections: try again"))
