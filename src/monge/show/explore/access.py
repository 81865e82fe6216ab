"""Who may use the explorer: whoever has the token of the address that it prints, as in Jupyter.

Every account of a machine reaches its loopback address. The page is opened once with the token in
its address, and has a cookie from then on; a script sends the token in a header.
"""

import hmac
import os
import re
import secrets
from urllib.parse import parse_qsl

PAGE = (
    '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">{again}\n<title>monge</title>\n'
    "<p>This page needs a token: open the address that the explorer printed when it started.</p>\n"
    "</html>\n"
)
AGAIN = '\n<meta http-equiv="refresh" content="0; url=/?">'


def chosen(token: str | None, local: bool) -> str:
    """The token of a server: the one given, else `MONGE_TOKEN`, else a fresh one.

    Args:
        token: "" for a server without one, which only this machine may reach.
        local: whether only this machine can reach the server.

    Raises:
        ValueError: for a token that no address can hold, or none where others reach the server.
    """
    name = "token"
    if token is None and "MONGE_TOKEN" in os.environ:
        name, token = "MONGE_TOKEN", os.environ["MONGE_TOKEN"]
        if not token:
            raise ValueError("`MONGE_TOKEN` is empty: unset it for a fresh token")
    if token is None:
        return secrets.token_urlsafe(32)
    if not token and not local:
        raise ValueError("`token` is empty, but others can reach this address: leave it out")
    if not re.fullmatch(r"[A-Za-z0-9._~-]{0,256}", token):
        raise ValueError(f"`{name}` must be at most 256 letters, digits and . _ ~ -")
    return token


class Access:
    """The token of a server, and the cookie that stands for it.

    Args:
        token: "" to let everyone in.
        port: the cookie is named after it, and by chance, because cookies of a host are shared by
            its ports, and tunnels to two machines may end on one.
    """

    def __init__(self, token: str, port: int):
        self.token, self.name = token, f"monge-{port}-{secrets.token_hex(4)}"
        self._session, self._once = secrets.token_urlsafe(32), ""

    @property
    def cookie(self) -> str:
        """The value of a header that sets the cookie."""
        return f"{self.name}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    def single(self) -> str:
        """A token that opens the page once, for a command line that others may see."""
        self._once = secrets.token_urlsafe(32)
        return self._once

    def opens(self, query: bytes) -> bool:
        """Whether the query of the page's address holds the token."""
        given = dict(parse_qsl(query.decode("latin-1"))).get("token", "")
        if self._once and _same(given, self._once):
            self._once = ""
            return True
        return bool(self.token) and _same(given, self.token)

    def holds(self, headers: list[tuple[bytes, bytes]]) -> bool:
        """Whether a request carries the token or the cookie."""
        if not self.token:
            return True
        for name, value in headers:
            text = value.decode("latin-1")
            if name == b"authorization":
                scheme, _, given = text.partition(" ")
                if scheme.lower() in ("token", "bearer") and _same(given.strip(), self.token):
                    return True
            if name == b"cookie":
                pairs = (one.strip().partition("=") for one in text.split(";"))
                if any(
                    key == self.name and _same(given, self._session) for key, _, given in pairs
                ):
                    return True
        return False


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())
