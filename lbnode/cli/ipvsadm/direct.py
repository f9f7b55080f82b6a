"""`lbadm --direct`: ipvsadm's commands on this kernel's own ip_vs, without a node: for rescue, scripts and comparing.

Everything is as with ipvsadm itself, also that `-R` goes on after what the kernel refuses and ends at a wrong option.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from lbnode.cli.ipvsadm import listing
from lbnode.cli.ipvsadm.grammar import TRY_HELP, USAGE, Command, parse
from lbnode.cli.ipvsadm.help import HELP, NO_IP_VS, VERSION
from lbnode.cli.ipvsadm.kernel import connection_row, daemon_row, explain, request, service_row
from lbnode.cli.ipvsadm.restore import script
from lbnode.cli.ipvsadm.show import show
from lbnode.cli.ipvsadm.values import GrammarError, Host, OptionError, Refused
from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import Service
from lbnode.dataplane.ipvs.connections import parse_lines
from lbnode.dataplane.ipvs.netlink import GenericNetlink
from lbnode.model import ServiceId, Timeouts

CONNECTIONS = "/proc/net/ip_vs_conn"

Json = Mapping[str, Any]


def run(argv: Sequence[str], host: Host, lines: Iterable[bytes]) -> int:
    """One ipvsadm call; returns the exit code. `lines`: the script of -R."""
    with closing(GenericNetlink()) as netlink:
        try:
            netlink.connect()
            info = codec.decode_info(netlink.get(codec.Command.GET_INFO))
        except OSError as error:
            code = error.errno if os.geteuid() == 0 else errno.EPERM
            raise GrammarError(NO_IP_VS.format(explain("", code or 0))) from None
        kernel = Kernel(netlink, info)
        command = parse(argv, host)
        if command.name == "restore":
            return _restore(lines, kernel, host)
        _execute(command, kernel, host)
    return 0


def _restore(lines: Iterable[bytes], kernel: Kernel, host: Host) -> int:
    """The exit code is that of the last command; GrammarError ends the script."""
    result = 0
    for words in filter(None, script(lines)):
        try:
            command = parse(words, host)
            if command.name == "restore":
                raise GrammarError(TRY_HELP, USAGE)
            _execute(command, kernel, host)
        except (OptionError, Refused) as error:
            print(error, file=sys.stderr)
            result = USAGE
        else:
            result = 0
            if command.name in ("help", "version"):
                break
    return result


def _execute(command: Command, kernel: Kernel, host: Host) -> None:
    match command.name:
        case "help":
            print(HELP, end="")
        case "version":
            print(VERSION)
        case "list" | "save":
            for line in show(command, kernel, host):
                print(line)
        case _:
            kernel.change(command)


class Kernel:
    """ip_vs as a Source, and what changes it."""

    def __init__(self, netlink: GenericNetlink, info: codec.Info) -> None:
        self._netlink = netlink
        self._info = info

    def change(self, command: Command) -> None:
        """Refused: what the kernel says no to, or does not know."""
        if command.forward == "fullnat":
            raise Refused("Full NAT is not supported by ip_vs: only lbnode's XDP/tcx data plane forwards so")
        number, body = request(command)
        try:
            self._netlink.do(number, body)
        except TimeoutError:
            # A sync daemon that is stopped before it ever ran gets no answer (its thread's EINTR).
            if number is not codec.Command.DEL_DAEMON:
                raise
        except OSError as error:
            raise Refused(explain(command.name, error.errno or 0)) from None

    def title(self) -> str:
        return listing.title(self._info.version, self._info.connection_table_size)

    def services(self) -> Sequence[Json]:
        return [self._row(codec.decode_service(body)) for body in self._dump(codec.Command.GET_SERVICE)]

    def service(self, service_id: ServiceId) -> Json | None:
        try:
            body = self._netlink.get(codec.Command.GET_SERVICE, codec.encode_key(service_id))
        except ProcessLookupError:
            return None
        return self._row(codec.decode_service(body))

    def connections(self) -> Iterable[Json]:
        try:
            with open(CONNECTIONS) as file:
                return [connection_row(item) for item in parse_lines(file.read())]
        except OSError:
            raise GrammarError(f"cannot open file {CONNECTIONS}", 1) from None

    def timeouts(self) -> Timeouts:
        return codec.decode_timeouts(self._netlink.get(codec.Command.GET_CONFIG))

    def daemons(self) -> Mapping[str, Json]:
        found = [codec.decode_daemon(body) for body in self._dump(codec.Command.GET_DAEMON)]
        return {daemon.state.name.lower(): daemon_row(daemon) for daemon in found}

    def _row(self, service: Service) -> Json:
        bodies = self._dump(codec.Command.GET_DEST, codec.encode_key(service.id))
        return service_row(service, [codec.decode_destination(body, service.id.family) for body in bodies])

    def _dump(self, command: codec.Command, body: bytes = b"") -> list[bytes]:
        return [found for bodies in self._netlink.dump(command, body) for found in bodies]
