"""Answers UDP datagrams from the address they were sent to, with this gateway's name in front.

`python -m tests.bench.failover.echo NAME PORT`. Stands for what a gateway forwards: it runs whatever happens to the
daemon, so who answers is decided by the kernel alone: does it hold the address, and may it serve it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

IP_PKTINFO = 8  # linux/in.h; Python's socket module names it from 3.12 on


def main() -> None:
    name, port = sys.argv[1].encode(), int(sys.argv[2])
    with contextlib.suppress(PermissionError):  # a busy machine shall not look like a gap; the gateways have 10
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        echo.bind(("", port))
        while True:
            data, ancillary, _, peer = echo.recvmsg(64, 64)
            # struct in_pktinfo: interface, local address of the answer, address the datagram was sent to
            destination = ancillary[0][2][8:12]
            info = bytes(4) + destination + bytes(4)
            try:
                echo.sendmsg([name + data], [(socket.IPPROTO_IP, IP_PKTINFO, info)], 0, peer)
            except OSError:  # the address has just been taken off, or the link is down
                continue


if __name__ == "__main__":
    main()
