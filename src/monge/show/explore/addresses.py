"""Where the explorer listens: the bound address, not the text of `host`, says who can reach it."""

import errno
import ipaddress
import re
import socket


def bound(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ValueError: for a host that is no single address of this machine, or an address that is
            not available.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"`port` must be from 0 to 65535, got {port}")
    wrong = f"`host` {host!r} is not an address of this machine"
    try:
        # "" is refused, where bind would take it for every address
        # in brackets as it is printed
        bare = host.strip().removeprefix("[").removesuffix("]")
        found = socket.getaddrinfo(bare or " ", port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # UnicodeError is a ValueError
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{wrong}: {reason}: give 127.0.0.1, the default") from None
    family, *_, where = min(found, key=lambda one: one[0] != socket.AF_INET)
    try:
        listening = socket.create_server(where, family=family, backlog=128)  # pyright: ignore
    except OSError as error:
        reason = error.strerror or error
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise ValueError(
                f"`port` {port} of {host} is not available: {reason}: give another"
            ) from None
        raise ValueError(f"{wrong}: {reason}: give 127.0.0.1, the default") from None
    if address_of(listening).is_unspecified:
        listening.close()
        raise ValueError(
            f"`host` {host!r} stands for every address of this machine: give a single one, by "
            "which the page is opened; the default is 127.0.0.1"
        )
    # connections inherit it; without it the body of a reply waits 40 ms for the head's receipt
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def address_of(listening: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address that a socket is bound to; an IPv4 address that is written as IPv6 as IPv4."""
    found = ipaddress.ip_address(listening.getsockname()[0].partition("%")[0])
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def is_local(listening: socket.socket) -> bool:
    """Whether only this machine can reach a socket."""
    return address_of(listening).is_loopback


def names(listening: socket.socket, host: str) -> list[str]:
    """The names in a Host header that mean a socket, that of its address first."""
    address = address_of(listening)
    first = f"[{address}]" if address.version == 6 else str(address)
    given = host.strip().lower()
    spoken = [given] if re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", given) else []
    local = ["localhost"] if is_local(listening) else []
    return list(dict.fromkeys([first, *spoken, *local]))


def hosts(listening: socket.socket, host: str) -> list[str]:
    """The values of the Host header that a socket answers to; `:*` stands for every port, by which
    a tunnel to this machine's loopback address may be reached."""
    port, known = listening.getsockname()[1], names(listening, host)
    wanted = "*" if is_local(listening) else port
    return [f"{name}:{wanted}" for name in known] + (known if port == 80 else [])


def address(listening: socket.socket, host: str) -> str:
    """Where the page is opened: by the name that was given, if it is one rather than a number."""
    known, given = names(listening, host), host.strip().lower()
    name = given if given in known and given[0].isalpha() else known[0]
    return f"http://{name}:{listening.getsockname()[1]}/"
