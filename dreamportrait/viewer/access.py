"""Who may reach the viewer: this machine alone, because the viewer has no password and no encryption."""

import ipaddress
import platform


def check_host(host: str, port: int) -> str:
    """Raise ValueError unless `host` is an address of this machine that others cannot reach; return it."""
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback:
        raise ValueError(
            f"--host {host}: the viewer has no password, so it only listens on this machine (127.0.0.1). From another "
            f"computer, forward the port with `ssh -N -L {port}:127.0.0.1:{port} {platform.node() or 'HOST'}` and open "
            f"http://127.0.0.1:{port} there"
        )
    return host
