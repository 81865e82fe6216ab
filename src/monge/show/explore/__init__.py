"""The explorer: a page that shows and steers trained models, and the JSON API behind it."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from monge._core.errors import needs
from monge.runs import Run

if TYPE_CHECKING:
    import uvicorn


def explore(
    runs: Sequence[Run],
    host: str = "127.0.0.1",
    port: int = 8642,
    *,
    browser: bool = False,
    token: str | None = None,
) -> None:
    """Serves the explorer of some runs until it is interrupted.

    It prints the address of the page, which holds a token. Whoever has the token may use the
    explorer: the page, or a script that sends `Authorization: token …`.

    Args:
        runs: trained runs, which the page calls by the names of their directories.
        host: the address that serves the page; the default can only be reached from this machine.
        port: 0 for a free one.
        browser: open the page.
        token: by default the environment variable `MONGE_TOKEN`, or a fresh one; "" lets everyone
            in who can reach a loopback address.

    Raises:
        ValueError: for a run that cannot be shown, an address that is not available, a token that
            cannot be part of an address, or without the packages of the extra `explore`.
    """
    with needs("explore"):
        from monge.show.explore.access import Access, chosen
        from monge.show.explore.addresses import address, bound, is_local
        from monge.show.explore.server import opened, server
    with bound(host, port) as listening:
        token = chosen(token, is_local(listening))
        access = Access(token, listening.getsockname()[1])
        running = server(opened(runs), listening, host, access)
        page = address(listening, host)
        shown = f"{page}?token={token}" if token else page
        names = ", ".join(run.name for run in runs)
        print(f"exploring {names} at {shown} (ctrl-c ends it)", flush=True)
        if browser:
            import webbrowser

            shown = f"{page}?token={access.single()}" if token else page
            # a browser on a terminal is waited for, and waits for the server
            threading.Thread(target=webbrowser.open, args=(shown,), daemon=True).start()
        _serve(running, listening)


def _serve(running: "uvicorn.Server", listening: socket.socket) -> None:
    """Serves until it is interrupted, in a thread where the caller's has a loop, as in Jupyter."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        running.run([listening])
        return
    done = threading.Event()  # an interrupted join takes the thread for ended

    def serve() -> None:
        try:
            running.run([listening])
        finally:
            done.set()

    threading.Thread(target=serve, name="monge explorer").start()
    task = asyncio.current_task()  # which the first interrupt of `asyncio.run` only cancels
    try:
        while not done.wait(0.5) and not (task is not None and task.cancelling()):
            pass
    except KeyboardInterrupt:
        pass
    finally:
        running.should_exit = True
        done.wait()
