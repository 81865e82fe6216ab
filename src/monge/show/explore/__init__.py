"""The explorer: a page that shows and steers trained models, and the JSON API behind it."""

from collections.abc import Sequence

from monge._core.errors import needs
from monge.runs import Run


def explore(
    runs: Sequence[Run], host: str = "127.0.0.1", port: int = 8642, *, browser: bool = False
) -> None:
    """Serves the explorer of some runs until it is interrupted.

    Args:
        runs: trained runs, which the page calls by the names of their directories.
        host: the address that serves the page; the default can only be reached from this machine.
        port: 0 for a free one.
        browser: open the page.

    Raises:
        ValueError: for a run that cannot be shown, an address that is not available, or without
            the packages of the extra `explore`.
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
