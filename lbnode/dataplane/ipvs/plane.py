"""The IPVS data plane: lbnode's model on the kernel's ip_vs. Contract: lbnode.dataplane.base.DataPlane.

ip_vs belongs to everybody who may program it (ipvsadm, keepalived): what lbnode put there stands in a ledger, and only
that is ever taken out. Health weights and drains change a server in place, which keeps its connections.
Connections reach peers by the kernel's own sync daemons, so there are no records to exchange.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path

from lbnode.capture import Captured, CaptureRequest
from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.connection_line import line_of
from lbnode.dataplane.base import (
    Capabilities,
    DeleteService,
    Op,
    PlaneStatus,
    PutService,
    SetSyncDaemons,
    SetSysctls,
    SetTimeouts,
)
from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import Command, Daemon, Info
from lbnode.dataplane.ipvs.connections import parse_lines
from lbnode.dataplane.ipvs.ledger import Ledger
from lbnode.dataplane.ipvs.netlink import BATCH, GenericNetlink
from lbnode.dataplane.ipvs.proc import module_lists, open_connections, write_sysctls
from lbnode.dataplane.ipvs.reader import Reader
from lbnode.dataplane.ipvs.sync import commands, from_daemons, state_name
from lbnode.dataplane.ipvs.translate import (
    FORWARDING,
    NO_IP_VS,
    available_schedulers,
    check,
    explain,
    explain_daemon,
    explain_request,
    to_counters,
    to_programmed,
)
from lbnode.dataplane.ipvs.writer import WRITABLE, Writer
from lbnode.dataplane.xdp.guard import LeaseGuard
from lbnode.errors import DataPlaneError, Unsupported
from lbnode.explanation import Explanation, Question
from lbnode.model import Address, L4Protocol, Programmed, ServiceCounters, ServiceId, SyncDaemon, Timeouts
from lbnode.turns import Turns

log = logging.getLogger(__name__)

LEDGER = "ipvs"  # in run_dir

_TIMEOUTS = "time-outs"  # in the ledger: they are ours


class IpvsPlane:
    """Programs ip_vs of the network namespace in which `open` is called."""

    record_layout = "ipvs/1"
    record_size = 1

    def __init__(self, run_dir: Path, guard: LeaseGuard | None = None) -> None:
        """run_dir: holds the ledger; the same directory finds the same services ours again. guard: ip_vs serves without
        leases, so this drops before it what must not be served; None: VIP groups are served without."""
        self._ledger = Ledger(run_dir / LEDGER)
        self._guard = guard
        self._unguarded = "" if guard else "nothing holds them"  # why there are no leases
        self._netlink: GenericNetlink | None = None
        self._writer = Writer()
        self._turns = Turns()
        self._reader = Reader(self._another_socket, self._turns)
        self._adopted = False
        self._schedulers = available_schedulers(())
        self._used: set[str] = set()  # schedulers and persistence engines, whose modules are loaded then

    async def open(self, progressed: Callable[[], None] = lambda: None) -> None:  # noqa: ARG002
        self._netlink = GenericNetlink()
        try:
            await asyncio.to_thread(self._netlink.connect)
        except OSError as error:
            await self.close()
            reason = NO_IP_VS if error.errno == errno.ENOENT else f"netlink: {error}"
            raise DataPlaneError(reason, error.errno) from None
        self._schedulers = available_schedulers(await asyncio.to_thread(module_lists))
        found = await self._reader.table(lambda _, items: [item.id for item in items])
        self._adopted = bool(found)
        self._writer.found(found)
        self._ledger.open()
        await self._open_guard()

    async def _open_guard(self) -> None:
        """A kernel without what it needs is not a reason to serve nothing."""
        if self._guard is not None:
            try:
                await self._guard.open()
            except DataPlaneError as error:
                self._unguarded, self._guard = str(error), None

    async def close(self, *, unload: bool = False) -> None:
        """unload: take out what lbnode put into ip_vs, nothing else."""
        try:
            if unload:
                if self._netlink is None:
                    await self.open()
                await self._unload()
                self._ledger.remove()
        finally:  # the guard goes also where ip_vs has gone
            self._ledger.close()
            if self._guard is not None:
                await self._guard.close(unload=unload)
            if self._netlink is not None:
                self._netlink.close()
                self._netlink = None

    async def _unload(self) -> None:
        await self.apply(SetSyncDaemons({}))
        if _TIMEOUTS in self._ledger:
            self._call("setting the time-outs back", Command.SET_CONFIG, codec.encode_timeouts(Timeouts()))
            self._ledger.discard(_TIMEOUTS)
        ours = [
            service_id
            for service_id in await self._reader.table(lambda service, _: service.id)
            if self.owns(service_id)
        ]
        log.info("deleting from ip_vs: %s", ", ".join(map(str, ours)) or "nothing")
        for error in await self.apply_many([DeleteService(service_id) for service_id in ours]):
            if error is not None:
                raise error

    def owns(self, service_id: ServiceId) -> bool:
        return str(service_id) in self._ledger

    def capabilities(self) -> Capabilities:
        return Capabilities(
            kind="ipvs",
            schedulers=self._schedulers,
            forwarding=FORWARDING,
            protocols=frozenset(L4Protocol),
            families=frozenset({4, 6}),
            persistence=True,
        )

    async def status(self) -> PlaneStatus:
        """connections: when services or counters were last read; connections_max is 0: ip_vs knows no limit."""
        daemons = from_daemons(await self._reader.daemons())
        interfaces, drops, leases = self._guard.status() if self._guard is not None else ((), {}, ())
        return PlaneStatus("ipvs", interfaces, self._reader.connections, 0, drops, self._adopted, daemons, leases)

    async def info(self) -> Info:
        return codec.decode_info(self._get("reading ip_vs's version", Command.GET_INFO))

    # --- services and servers -------------------------------------------------------------------------------

    async def dump(self) -> Programmed:
        services = await self._reader.table(to_programmed)
        return Programmed(services, codec.decode_timeouts(self._get("reading the time-outs", Command.GET_CONFIG)))

    async def apply(self, op: Op) -> None:
        (error,) = await self.apply_many([op])
        if error is not None:
            raise error

    async def apply_many(self, ops: Sequence[Op]) -> Sequence[DataPlaneError | None]:
        errors: list[DataPlaneError | None] = []
        for at in range(0, len(ops), BATCH):
            for quick, some in groupby(ops[at : at + BATCH], self._is_quick):
                if quick:
                    errors += self._write(self._open_socket(), list(some))
                else:
                    errors += [await self._do(op) for op in some]
            await self._turns.take()
        return errors

    def _is_quick(self, op: Op) -> bool:
        """The kernel carries it out at once; it has not to load a module first, or to start or stop a thread."""
        if isinstance(op, PutService):
            return self._used.issuperset(_modules(op))
        return isinstance(op, WRITABLE)

    async def _do(self, op: Op) -> DataPlaneError | None:
        try:
            match op:
                case PutService():  # in a thread, on a socket made in this thread's namespace
                    sock = self._another_socket()
                    (error,) = await asyncio.to_thread(self._write_and_close, sock, [op])
                    if error is None:
                        self._used |= _modules(op)
                    return error
                case SetSyncDaemons(daemons):
                    await self._set_daemons(daemons)
                case SetSysctls(values):
                    write_sysctls(values)
        except DataPlaneError as error:
            return error
        except OSError as error:
            return explain(op, error.errno or 0)
        return None

    def _write_and_close(self, sock: GenericNetlink, ops: Sequence[Op]) -> list[DataPlaneError | None]:
        with closing(sock):
            return self._write(sock, ops)

    def _write(self, sock: GenericNetlink, ops: Sequence[Op]) -> list[DataPlaneError | None]:
        errors = [self._refusal(op) for op in ops]
        asked = [op for op, error in zip(ops, errors, strict=True) if error is None]
        try:
            codes = iter(self._writer.write(sock, asked))
        except OSError as error:
            codes = iter([error.errno or 0] * len(asked))
        return [
            self._outcome(op, next(codes)) if error is None else error for op, error in zip(ops, errors, strict=True)
        ]

    def _refusal(self, op: Op) -> DataPlaneError | None:
        """Why the kernel is not even asked."""
        try:
            check(op)
            match op:
                case PutService(service):
                    self._ledger.add(str(service.id))
                case SetTimeouts():
                    self._ledger.add(_TIMEOUTS)
        except DataPlaneError as error:
            return error
        return None

    def _outcome(self, op: Op, code: int) -> DataPlaneError | None:
        if code:
            return explain(op, code)
        try:
            if isinstance(op, DeleteService):
                self._ledger.discard(str(op.service_id))
        except DataPlaneError as error:
            return error
        return None

    async def set_leases(self, groups: Mapping[str, Collection[Address]]) -> Mapping[str, int]:
        if self._guard is not None:
            return self._guard.set_groups(groups)
        if groups and self._unguarded:
            raise DataPlaneError(
                f"VIP groups are served without leases here: {self._unguarded}. Should every process of lbnode be "
                "killed while the kernel lives, two gateways answer for their addresses"
            )
        return {}

    def lease_map(self) -> int | None:
        return None if self._guard is None else self._guard.map_fd

    # --- counters and connections ---------------------------------------------------------------------------

    async def counters(self) -> Mapping[ServiceId, ServiceCounters]:
        return await self._reader.table(to_counters)

    async def zero(self, service_id: ServiceId | None) -> None:
        body = b"" if service_id is None else codec.encode_key(service_id)
        what = "zeroing all counters" if service_id is None else f"{service_id}: zeroing its counters"
        self._call(what, Command.ZERO, body, errno.ESRCH)

    async def connections(self, wanted: ConnectionFilter = EVERY) -> AsyncIterator[Sequence[str]]:
        with open_connections() as file:
            rest = ""
            while data := await asyncio.to_thread(file.read, 1 << 16):
                whole, newline, rest = (rest + data.decode("ascii")).rpartition("\n")
                if newline and (found := [line_of(one) for one in parse_lines(whole) if wanted.matches(one)]):
                    yield found

    # --- the kernel's connection synchronisation ------------------------------------------------------------

    async def _set_daemons(self, wanted: Mapping[str, SyncDaemon]) -> None:
        owned = [state for state in ("master", "backup") if _ledger_name(state) in self._ledger]
        for command, daemon in commands(wanted, await self._reader.daemons(), owned):
            state = state_name(daemon)
            verb = "starting" if command is Command.NEW_DAEMON else "stopping"
            log.info("%s the sync daemon %s: interface %s, id %d", verb, state, daemon.interface, daemon.sync_id)
            if command is Command.NEW_DAEMON:
                self._ledger.add(_ledger_name(state))
                await self._daemon(command, daemon)
            else:
                await self._stop_daemon(daemon)
                self._ledger.discard(_ledger_name(state))

    async def _stop_daemon(self, daemon: Daemon) -> None:
        """One that does not run is success."""
        # A daemon that is stopped before it ever ran gets no answer (its thread's EINTR), but is gone when asked again.
        if await self._daemon(Command.DEL_DAEMON, daemon, errno.ESRCH, errno.ETIMEDOUT) == errno.ETIMEDOUT:
            await self._daemon(Command.DEL_DAEMON, daemon, errno.ESRCH)

    async def _daemon(self, command: Command, daemon: Daemon, *tolerated: int) -> int:
        """Returns 0 or the tolerated errno. In a thread: the kernel starts, or waits for, threads of its own."""
        sock = self._another_socket()
        try:
            await asyncio.to_thread(_do_and_close, sock, command, codec.encode_daemon(daemon))
        except OSError as error:
            if error.errno not in tolerated:
                raise explain_daemon(daemon, error.errno or 0) from None
            return error.errno
        return 0

    async def explain(self, question: Question) -> Explanation:  # noqa: ARG002
        raise Unsupported(
            "not on IPVS: the kernel's ip_vs has no way to try a packet. `lbctl get connections` lists what it tracks, "
            "`lbctl get` the servers; only the XDP/tcx data plane explains packets"
        )

    def capture(self, request: CaptureRequest) -> AsyncGenerator[Captured, None]:  # noqa: ARG002
        raise Unsupported(
            "not on IPVS: the kernel's ip_vs does not say what it does with a packet. `tcpdump -i any` shows packets "
            "without it; only the XDP/tcx data plane captures them with their verdict"
        )

    async def changed_records(self, limit: int) -> bytes:  # noqa: ARG002
        return b""

    async def all_records(self) -> AsyncIterator[bytes]:
        return
        yield b""

    async def import_records(self, records: bytes) -> int:  # noqa: ARG002
        return 0

    def by_group(self, records: bytes, group_of: Mapping[Address, str]) -> Mapping[str, bytes]:  # noqa: ARG002
        return {"": records}

    # --- the socket -----------------------------------------------------------------------------------------

    def _open_socket(self) -> GenericNetlink:
        if self._netlink is None:
            raise DataPlaneError("the IPVS data plane is not open")
        return self._netlink

    def _another_socket(self) -> GenericNetlink:
        """In the namespace of the first; may be used in another thread, or for a dump."""
        return GenericNetlink(self._open_socket().family)

    def _call(self, what: str, command: Command, body: bytes = b"", *tolerated: int) -> None:
        try:
            self._open_socket().do(command, body)
        except OSError as error:
            if error.errno not in tolerated:
                raise explain_request(what, error.errno or 0) from None

    def _get(self, what: str, command: Command) -> bytes:
        try:
            return self._open_socket().get(command)
        except OSError as error:
            raise explain_request(what, error.errno or 0) from None


def _modules(op: PutService) -> frozenset[str]:
    return frozenset({op.service.scheduler, op.service.persistence_engine} - {""})


def _do_and_close(sock: GenericNetlink, command: Command, body: bytes) -> None:
    with closing(sock):
        sock.do(command, body)


def _ledger_name(state: str) -> str:
    return f"sync daemon {state}"
