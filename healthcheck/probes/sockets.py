"""The socket of a probe."""

from __future__ import annotations

import socket
import struct

from healthcheck.probes.errors import raise_if_local
from healthcheck.spec import Target

# struct linger {l_onoff, l_linger}: close(2) sends RST and leaves nothing behind. With FIN, each probe would hold a
# source port in TIME_WAIT for 60 s: 600,000 of them at 10,000 probes/s. Customary for health checks (HAProxy too).
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def open_socket(target: Target) -> socket.socket:
    """A non-blocking TCP socket of the target's family; ProbeImpossible if this machine has none left."""
    family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise_if_local(error.errno or 0)
        raise
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    return sock


def address_of(target: Target) -> tuple[str, int]:
    """Where to connect to: the check's own port if it has one, else the server's."""
    return str(target.address), target.spec.port or target.port
