"""Carries out operations on services, servers and time-outs, many in one system call.

The kernel knows NEW and SET and refuses the wrong one of the two, so the writer remembers what is there. Somebody else
may have changed that: what comes from the first wrong guess on is then done again, which keeps the order. Doing it
twice is doing it once, as no two operations that are sent together are about the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from errno import EEXIST, ENOENT, ESRCH

from lbnode.dataplane.base import DeleteServer, DeleteService, Op, PutServer, PutService, SetTimeouts
from lbnode.dataplane.ipvs import codec
from lbnode.dataplane.ipvs.codec import Command
from lbnode.dataplane.ipvs.netlink import GenericNetlink
from lbnode.dataplane.ipvs.translate import to_destination, to_service
from lbnode.model import ServerId, ServiceId

WRITABLE = (PutService, DeleteService, PutServer, DeleteServer, SetTimeouts)
_ROUNDS = 3  # in which a guess may be wrong; after that somebody else is busy with the same object, which is an error

_WRONG_GUESS = {
    Command.NEW_SERVICE: EEXIST,
    Command.SET_SERVICE: ESRCH,
    Command.NEW_DEST: EEXIST,
    Command.SET_DEST: ENOENT,
}
_ABSENT = {Command.DEL_SERVICE: (ESRCH,), Command.DEL_DEST: (ENOENT, ESRCH)}  # then it is deleted


class Writer:
    def __init__(self) -> None:
        # A set for each service: one for all would stop the loop whenever it has to grow.
        self._there: dict[ServiceId, set[ServerId]] = {}

    def found(self, services: Mapping[ServiceId, Iterable[ServerId]]) -> None:
        """This is there now."""
        self._there = {service_id: set(servers) for service_id, servers in services.items()}

    def write(self, sock: GenericNetlink, ops: Iterable[Op]) -> list[int]:
        """Takes the kinds in WRITABLE. Returns each one's errno, 0 if it was done; OSError: the socket failed."""
        return [code for run in _unrelated(ops) for code in self._write(sock, run)]

    def _write(self, sock: GenericNetlink, ops: Sequence[Op]) -> list[int]:
        codes: list[int] = []
        for last in (False,) * _ROUNDS + (True,):
            rest = ops[len(codes) :]
            requests = [self._request(op) for op in rest]
            answers = sock.do_all(requests)
            done = len(rest)
            for at, (op, (command, _), code) in enumerate(zip(rest, requests, answers, strict=True)):
                self._learn(op, code)
                if code == _WRONG_GUESS.get(command) and not last:
                    done = min(done, at)
                elif code in _ABSENT.get(command, ()):
                    answers[at] = 0
            codes += answers[:done]
            if done == len(rest):
                break
        return codes

    def _request(self, op: Op) -> tuple[Command, bytes]:
        match op:
            case PutService(service):
                command = Command.SET_SERVICE if service.id in self._there else Command.NEW_SERVICE
                return command, codec.encode_service(to_service(service))
            case PutServer(service_id, server):
                there = server.id in self._there.get(service_id, ())
                body = codec.encode_destination(service_id, to_destination(server))
                return Command.SET_DEST if there else Command.NEW_DEST, body
            case DeleteService(service_id):
                return Command.DEL_SERVICE, codec.encode_key(service_id)
            case DeleteServer(service_id, server_id):
                return Command.DEL_DEST, codec.encode_destination_key(service_id, server_id)
            case SetTimeouts(timeouts):
                return Command.SET_CONFIG, codec.encode_timeouts(timeouts)
            case _:
                raise AssertionError(op)

    def _learn(self, op: Op, code: int) -> None:
        """What is there according to the kernel's answer."""
        match op:
            case PutService(service) if code in (0, EEXIST):
                self._there.setdefault(service.id, set())
            case PutService(service) if code == ESRCH:
                self._there.pop(service.id, None)
            case DeleteService(service_id) if code in (0, ESRCH):
                self._there.pop(service_id, None)
            case PutServer(service_id, server) if code in (0, EEXIST):
                self._there.setdefault(service_id, set()).add(server.id)
            case PutServer(service_id) | DeleteServer(service_id) if code == ESRCH:
                self._there.pop(service_id, None)
            case PutServer(service_id, server) if code == ENOENT:
                self._there.get(service_id, set()).discard(server.id)
            case DeleteServer(service_id, server_id) if code in (0, ENOENT):
                self._there.get(service_id, set()).discard(server_id)
            case _:
                pass


def _unrelated(ops: Iterable[Op]) -> Iterator[list[Op]]:
    """Runs in which no object comes twice, and a service neither behind its servers nor, deleted, before them."""
    run: list[Op] = []
    touched: set[object] = set()  # services, and pairs of service and server
    deleted: set[object] = set()
    for op in ops:
        service_id, server_id = _about(op)
        one = service_id if server_id is None else (service_id, server_id)
        if one in touched or service_id in deleted:
            yield run
            run = []
            touched.clear()
            deleted.clear()
        run.append(op)
        touched |= {service_id, one}
        if isinstance(op, DeleteService):
            deleted.add(service_id)
    yield run


def _about(op: Op) -> tuple[ServiceId | None, ServerId | None]:
    match op:
        case PutService(service):
            return service.id, None
        case DeleteService(service_id):
            return service_id, None
        case PutServer(service_id, server):
            return service_id, server.id
        case DeleteServer(service_id, server_id):
            return service_id, server_id
    return None, None
