"""`monge explore`: the server of the explorer, by default only for this machine."""

import asyncio
import re
import socket
from collections.abc import Sequence

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from monge.runs import Run
from monge.show.explore.routes import site
from monge.show.explore.service import Explorer

HEADER_SECONDS = 10.0


class Impatient(H11Protocol):
    """HTTP/1.1 that closes connections on which no request arrives."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore
        super().connection_made(transport)
        self.patience = self.loop.call_later(HEADER_SECONDS, self._hang_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self.patience.cancel()
        super().connection_lost(exc)

    def _hang_up(self) -> None:
        if self.cycle is None:
            self.transport.close()


def identifiers(names: Sequence[str]) -> list[str]:
    """Unique names of lower case letters, digits and dashes."""
    unique: list[str] = []
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "run"
        count = 1 + sum(other == plain or other.startswith(f"{plain}--") for other in unique)
        unique.append(plain if count == 1 else f"{plain}--{count}")
    return unique


def opened(runs: Sequence[Run]) -> dict[str, Explorer]:
    """The explorers of runs by identifier."""
    names = identifiers([run.name for run in runs])
    return {name: Explorer(run) for name, run in zip(names, runs)}


def bound(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ValueError: for a host that is no single address, or an address that is not available.
    """
    if host in ("", "0.0.0.0", "::"):
        raise ValueError(
            f"`host` {host!r} is every address of this machine: give the one by which the page "
            "is opened, 127.0.0.1 by default"
        )
    if not 0 <= port <= 65535:
        raise ValueError(f"`port` must be from 0 to 65535, got {port}")
    try:
        listening = socket.create_server((host, port), backlog=128)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"`port` {port} of {host} is not available: {reason}: give another"
        ) from None
    # connections inherit it; without it the body of a reply waits 40 ms for the head's receipt
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def server(explorers: dict[str, Explorer], host: str, port: int) -> uvicorn.Server:
    """A server of open runs, not yet started, that answers at an address."""
    local = ("127.0.0.1", "localhost")
    names = local if host in local else (host,)
    hosts = [f"{name}:{port}" for name in names] + (list(names) if port == 80 else [])
    config = uvicorn.Config(
        site(explorers, hosts),
        http=Impatient,
        ws="none",
        lifespan="off",
        log_level="error",
        server_header=False,
        limit_concurrency=100,
        timeout_keep_alive=15,
        h11_max_incomplete_event_size=2**14,
    )
    return uvicorn.Server(config)
