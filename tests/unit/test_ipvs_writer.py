"""The writer against a model of ip_vs that others program too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from errno import EEXIST, ENOENT, ERANGE, ESRCH
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from lbnode.dataplane.base import DeleteServer, DeleteService, Op, PutServer, PutService
from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import Command
from lbnode.dataplane.ipvs.translate import to_destination, to_service
from lbnode.dataplane.ipvs.writer import Writer
from lbnode.model import ForwardingMethod, ProgrammedServer, ProgrammedService, ServerId, ServiceId

SERVICES = [ServiceId.of("tcp", "192.0.2.10", port) for port in (80, 443)]
SERVERS = [ServerId.parse(f"198.51.100.{n}:80") for n in (21, 22)]
SCHEDULERS, WEIGHTS, REFUSED = ("rr", "wlc"), (1, 2, 3), 3
PUT_SERVICES = [PutService(ProgrammedService(one, scheduler)) for one in SERVICES for scheduler in SCHEDULERS]
PUT_SERVERS = [
    PutServer(one, ProgrammedServer(server, weight, ForwardingMethod.MASQUERADE))
    for one in SERVICES
    for server in SERVERS
    for weight in WEIGHTS
]
OPS: list[Op] = [
    *PUT_SERVICES,
    *PUT_SERVERS,
    *(DeleteService(one) for one in SERVICES),
    *(DeleteServer(one, server) for one in SERVICES for server in SERVERS),
]
BODIES: dict[bytes, Op] = {
    **{codec.encode_service(to_service(op.service)): op for op in PUT_SERVICES},
    **{codec.encode_destination(op.service_id, to_destination(op.server)): op for op in PUT_SERVERS},
    **{codec.encode_key(one): DeleteService(one) for one in SERVICES},
    **{codec.encode_destination_key(one, server): DeleteServer(one, server) for one in SERVICES for server in SERVERS},
}
Table = dict[ServiceId, tuple[str, dict[ServerId, int]]]


@dataclass
class Kernel:
    """As do_ip_vs_set_ctl() and ip_vs_genl_set_cmd() answer. One weight is refused (ERANGE)."""

    table: Table = field(default_factory=dict)
    calls: int = 0

    def do_all(self, requests: Sequence[tuple[Command, bytes]]) -> list[int]:
        self.calls += 1
        return [self._do(command, BODIES[body]) for command, body in requests]

    def _do(self, command: Command, op: Op) -> int:
        match op:
            case PutService(service):
                there = service.id in self.table
                if there is (command is Command.NEW_SERVICE):
                    return EEXIST if there else ESRCH
                servers = self.table[service.id][1] if there else {}
                self.table[service.id] = (service.scheduler, servers)
            case DeleteService(service_id):
                return 0 if self.table.pop(service_id, None) else ESRCH
            case PutServer(service_id) | DeleteServer(service_id) if service_id not in self.table:
                return ESRCH
            case PutServer(_, server) if server.weight == REFUSED:
                return ERANGE
            case PutServer(service_id, server):
                servers = self.table[service_id][1]
                there = server.id in servers
                if there is (command is Command.NEW_DEST):
                    return EEXIST if there else ENOENT
                servers[server.id] = server.weight
            case DeleteServer(service_id, server_id):
                return 0 if self.table[service_id][1].pop(server_id, None) else ENOENT
        return 0


def wanted(table: Table, ops: Sequence[Op]) -> list[int]:
    """One after the other, putting what is there as well as what is not; changes `table`. Each one's errno."""
    kernel = Kernel(table)
    codes = []
    for op in ops:
        new = isinstance(op, PutService) and op.service.id not in table
        new = new or (isinstance(op, PutServer) and op.server.id not in table.get(op.service_id, ("", {}))[1])
        command = (
            (Command.NEW_SERVICE if new else Command.SET_SERVICE)
            if isinstance(op, PutService)
            else (Command.NEW_DEST if new else Command.SET_DEST)
        )
        code = kernel._do(command, op)
        codes.append(0 if isinstance(op, DeleteService | DeleteServer) else code)
    return codes


MANY = st.lists(st.sampled_from(OPS), max_size=12)


def copied(table: Table) -> Table:
    return {key: (scheduler, dict(servers)) for key, (scheduler, servers) in table.items()}


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(MANY, MANY), min_size=1, max_size=5))
def test_whatever_others_do_between_the_result_is_that_of_one_after_the_other(
    rounds: list[tuple[list[Op], list[Op]]],
) -> None:
    kernel, writer = Kernel(), Writer()
    for theirs, ours in rounds:
        wanted(kernel.table, theirs)
        expected = copied(kernel.table)
        codes = wanted(expected, ours)
        assert writer.write(cast("Any", kernel), ours) == codes
        assert kernel.table == expected


def test_a_right_guess_is_one_call_and_a_wrong_one_one_more() -> None:
    kernel, writer = Kernel(), Writer()
    ops = [PUT_SERVICES[0], PUT_SERVERS[0], PUT_SERVERS[3], PUT_SERVICES[2]]
    for expected in (1, 2):
        assert writer.write(cast("Any", kernel), ops) == [0] * 4
        assert kernel.calls == expected
    kernel.table.clear()
    assert writer.write(cast("Any", kernel), ops) == [0] * 4
    assert kernel.calls == 4
    successor = Writer()
    successor.found({key: servers for key, (_, servers) in kernel.table.items()})
    assert successor.write(cast("Any", kernel), ops) == [0] * 4
    assert kernel.calls == 5
