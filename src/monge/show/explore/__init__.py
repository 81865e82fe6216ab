"""The explorer: a page that shows and steers trained models, and the JSON API behind it."""

from collections.abc import Sequence

from monge._core.errors import needs
from monge.runs import Run


def explore(
    runs: Sequence[Run], host: str = "127.0.0.1", port: int = 8642, *, browser: bool = False
) -> None:
    """Serves the explorer of some runs until it is interrupted.

    Arguments:
        runs: trained runs, which the page shows by their directories' names.
        host: the address that the page is opened at; this machine alone by default.
        port: 0 for a free one.
        browser: open the page.

    Raises:
        ValueError: for a run that cannot be shown, an address that cannot be had, or without the
            packages of the extra `explore`.
    """
    with needs("explore"):
        from monge.show.explore.server import bound, opened, server
    listening = bound(host, port)
    running = server(opened(runs), host, listening.getsockname()[1])
    address = f"http://{host}:{listening.getsockname()[1]}/"
    print(f"exploring {', '.join(run.name for run in runs)} at {address} (ctrl-c ends it)")
    if browser:
        import webbrowser

        webbrowser.open(address)
    running.run([listening])
