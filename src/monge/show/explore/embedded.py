"""The explorer inside a notebook: a server in a thread of its own, and a frame for its page."""

import secrets
import threading
from html import escape

from monge._core.errors import needs
from monge.runs import Run

FRAME = """<iframe id="{name}" width="100%" height="{height}" style="border: 0"
 title="The explorer of {run}" allow="clipboard-write"></iframe>
<script>
  // a notebook at 127.0.0.1 has no cookies of localhost
  document.getElementById("{name}").src = "{page}".replace(
    "//localhost:", location.hostname === "127.0.0.1" ? "//127.0.0.1:" : "//localhost:");
</script>"""
"""The frame and its script, which alone gives it an address: an address that it replaced could
still arrive after the new one."""


class Embedded:
    """The explorer of a run, served until it is closed or Python ends.

    As the last value of a cell it is shown as a frame. The page is reached from the machine of
    Python only: for a notebook on another machine, see `monge explore`.

    Args:
        run: a trained run.
        height: of the frame, in pixels.

    Raises:
        ValueError: for a run that cannot be shown, or without the packages of the extra `explore`.
    """

    def __init__(self, run: Run, height: int = 800):
        with needs("explore"):
            from monge.show.explore.access import Access
            from monge.show.explore.addresses import bound
            from monge.show.explore.server import opened, server
        self.run, self.height = run, height
        explorers = opened([run])
        listening = bound("127.0.0.1", 0)
        self.port: int = listening.getsockname()[1]
        # a token of its own: the notebook is saved with what it shows
        self._access = Access(secrets.token_urlsafe(32), self.port)
        self._server = server(explorers, listening, "127.0.0.1", self._access, framed=True)
        self._thread = threading.Thread(
            target=self._server.run, args=([listening],), name="monge explorer", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """Where the page is opened, with its token."""
        return f"http://127.0.0.1:{self.port}/?token={self._access.token}"

    def close(self) -> None:
        """Ends the server."""
        self._server.should_exit = True
        self._thread.join()

    def __repr__(self) -> str:
        state = f"at {self.address}" if self._thread.is_alive() else "closed"
        return f"<explorer of {self.run.name} {state}>"

    def _repr_html_(self) -> str:
        if not self._thread.is_alive():
            return escape(repr(self))
        page = self.address.replace("//127.0.0.1:", "//localhost:")
        return FRAME.format(
            name=f"monge-{self.port}", page=page, height=self.height, run=escape(self.run.name)
        )
