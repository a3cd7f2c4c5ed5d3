"""Free TCP ports on loopback.

Ports are found, never assumed. They are taken from below the range that the kernel gives to outgoing connections, so
that a server that restarts seldom finds its port taken; and the last port is tried first, so that it stays the same.
A port found free may be taken before it is used: who starts a server tries again with another.
"""

import random
import socket

PORTS = range(15_000, 32_000)
TRIES = 200


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Say whether a server could listen on `host`:`port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def find_port(preferred: int | None = None, *, host: str = "127.0.0.1", taken: frozenset[int] = frozenset()) -> int:
    """Return a free port, `preferred` if it is; never one of `taken`. Raises `OSError` if none is found."""
    if preferred and preferred not in taken and is_free(preferred, host):
        return preferred
    for _ in range(TRIES):
        port = random.choice(PORTS)  # noqa: S311  any will do; nothing secret
        if port not in taken and is_free(port, host):
            return port
    raise OSError(f"no free port found on {host}")
