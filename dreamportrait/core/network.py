"""Whether the machines of a run reach each other. PyTorch is not needed for it.

    python -m dreamportrait.core.network ADDRESS PORT NODE_RANK

checks, on machine NODE_RANK of a run, the address at which all machines meet, and prints the address by which the
others reach this machine. tools/launch/torchrun.sh calls it before torchrun, which would show traces of its own.
"""

import errno
import os
import platform
import socket
import sys
import time
from collections.abc import Callable

JOIN_SECONDS = "DREAMPORTRAIT_JOIN_SECONDS"  # how long machines and processes wait for each other at the start
RULE = "must be a name or address of the first machine that all machines can reach"


def join_seconds() -> float:
    """Return how long to wait for others at the start. The default lets errors appear within a minute."""
    text = os.environ.get(JOIN_SECONDS, "50")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < 1e6:
        raise ValueError(f"{JOIN_SECONDS}={text}: must be a number of seconds above 0")
    return seconds


def reach(address: str, port: int, patience: float) -> str:
    """Wait until something listens there. Return this machine's own address in the connection."""

    def connect(left: float) -> str:
        with socket.create_connection((address, port), timeout=max(0.1, left)) as connection:
            return str(connection.getsockname()[0])

    try:
        return _tried(connect, patience)
    except OSError as error:
        raise ValueError(
            f"nothing answers at {address}:{port} after {patience:g} s ({error.strerror or error})"
        ) from None


def own(address: str, port: int, patience: float) -> str:
    """Check that an address is this machine's, and that the port is free. Return the address as a number.

    A name may need some seconds until it is known.
    """

    def listen(left: float) -> str:
        family, kind, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a run that has just ended
            server.bind(place)
            server.listen()
            return str(place[0])

    try:
        return _tried(listen, patience)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"port {port} is in use here; end the other run, or choose another port") from None
        raise ValueError(f"{address} is not this machine ({error.strerror or error})") from None


def _tried(act: Callable[[float], str], patience: float) -> str:
    """Call a function until it succeeds. Raise its last error when the time is over, or when waiting cannot help."""
    until = time.monotonic() + patience
    while True:
        left = until - time.monotonic()
        try:
            return act(left)
        except OSError as error:
            if left <= 0 or error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
        time.sleep(0.2)


def check(address: str, port: str, node_rank: str) -> str:
    """Return the address by which the others reach this machine. Raise ValueError if they do not meet."""
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"MASTER_PORT={port}: must be a free port of the first machine, 1 to 65535")
    if not node_rank.isdecimal():
        raise ValueError(f"NODE_RANK={node_rank}: must be the number of this machine, from 0")
    meet = reach if int(node_rank) else own
    try:
        return meet(address, int(port), join_seconds())
    except ValueError as error:
        raise ValueError(
            f"machine {node_rank} ({platform.node()}), MASTER_ADDR={address}: {error}. MASTER_ADDR {RULE}"
        ) from None


if __name__ == "__main__":
    try:
        print(check(*sys.argv[1:4]))
    except ValueError as problem:
        sys.exit(f"Error: {problem}")
