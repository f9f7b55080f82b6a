"""The verb `capture`: packets of the data plane, with what became of them, into a file or a pipe."""

from __future__ import annotations

import argparse
import contextlib
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO

from lbnode.cli.client import EXIT_FAILED, EXIT_USAGE, ApiError, Client
from lbnode.cli.lbctl.verbs import Verbs

_PACKET, _STATISTICS = 6, 5  # kinds of blocks in pcapng
_INBOUND = 1


def add_to(verbs: Verbs) -> None:
    sub = verbs.add(
        "capture",
        capture,
        "write packets as they come in and as they leave, with what became of them, as pcapng for Wireshark, tcpdump. "
        "Until a limit is reached, or Ctrl-C. All conditions must hold",
    )
    sub.add_argument("-w", "--write", metavar="FILE", required=True, help="- is standard output: | tcpdump -nr -")
    sub.add_argument("--service", metavar="ID", default="", help="for example tcp:192.0.2.10:80; both directions")
    sub.add_argument("--server", metavar="ADDRESS[:PORT]", default="", help="to or from this real server")
    sub.add_argument("--client", metavar="PREFIX", default="", help="either end is in it: 203.0.113.0/24")
    sub.add_argument("--protocol", choices=("tcp", "udp", "sctp", "icmp", "icmp6"), default="")
    sub.add_argument("--port", type=int, default=0, help="of either end")
    sub.add_argument(
        "--verdict",
        dest="verdicts",
        action="append",
        choices=("to-server", "to-client", "dropped", "passed", "answered"),
        help="can be given several times (default: all)",
    )
    sub.add_argument("--reason", default="", help="of dropped ones: a name that `lbctl status` and /metrics count by")
    sub.add_argument("-c", "--count", type=int, default=1000, help="packets (default: 1000)")
    sub.add_argument("--seconds", type=float, default=60.0, help="(default: 60)")
    sub.add_argument("-s", "--snap", type=int, default=256, help="bytes of each frame (default: 256)")
    sub.add_argument("--rate", type=int, default=1000, help="packets per second; others are left out (default: 1000)")


def capture(arguments: argparse.Namespace, client: Client) -> int:
    names = ("service", "server", "client", "protocol", "port", "reason", "count", "seconds", "snap", "rate")
    body = {name: getattr(arguments, name) for name in names} | {"verdicts": arguments.verdicts or []}
    if arguments.write == "-" and sys.stdout.isatty():
        raise ApiError("-w -: a terminal cannot show pcapng; write to a file, or to `| tcpdump -nr -`", EXIT_USAGE)
    packets = missed = 0
    # Begun before the file is opened: a refusal leaves a file that is there as it is.
    with (
        client.stream("/api/v1/capture", body) as answer,
        _opened(arguments.write) as target,
        contextlib.suppress(KeyboardInterrupt),
    ):
        for block in _blocks(answer):
            target.write(block)
            target.flush()
            (kind,) = struct.unpack_from("=I", block)
            packets += kind == _PACKET and _came_in(block)
            if kind == _STATISTICS:
                (missed,) = struct.unpack_from("=Q", block, 24)
    print(f"lbctl: {packets} packets" + (f", {missed} more were left out" if missed else ""), file=sys.stderr)
    return 0


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdout.buffer
        return
    try:
        file = open(path, "wb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ApiError(f"{path}: {error.strerror}", EXIT_FAILED) from error
    with file:
        yield file


def _blocks(answer: BinaryIO) -> Iterator[bytes]:
    """Whole ones: the file is readable wherever the capture ends."""
    while len(head := answer.read(8)) == 8:
        _, length = struct.unpack("=II", head)
        yield head + answer.read(length - 8)


def _came_in(block: bytes) -> bool:
    """By the first option of a packet's block, its flags."""
    (captured,) = struct.unpack_from("=I", block, 20)
    (flags,) = struct.unpack_from("=I", block, 28 + captured + -captured % 4 + 4)
    return bool(flags & 3 == _INBOUND)
