"""`monge explore`: the server of the explorer, by default only for this machine."""

import re
import socket
from collections.abc import Sequence
from types import FrameType

import uvicorn

from monge.runs import Run
from monge.show.explore.access import Access
from monge.show.explore.addresses import hosts
from monge.show.explore.connections import (
    BACKLOG,
    IDLE_SECONDS,
    BoundedConnection,
    most_connections,
)
from monge.show.explore.routes import site
from monge.show.explore.service import Explorer


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


class InterruptedOnce(uvicorn.Server):
    """A server that ends in order, however often it is interrupted meanwhile."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            super().handle_exit(sig, frame)


def server(
    explorers: dict[str, Explorer],
    listening: socket.socket,
    host: str,
    access: Access,
    framed: bool = False,
) -> uvicorn.Server:
    """A server of open runs, not yet started, that answers at a socket by its names; `framed`
    where a notebook may show its page."""
    BoundedConnection.most = most_connections()
    config = uvicorn.Config(
        site(explorers, hosts(listening, host), access, framed),
        backlog=BACKLOG,
        http=BoundedConnection,
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,  # addresses hold the token
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=2**14,
    )
    return InterruptedOnce(config)
