"""From what the data plane contains to what it should: the operations, in an order that never makes a hole. Pure.

Within a service: the service first, new servers before changed weights, removals last. Across services: everything
that is wanted before anything that is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from lbnode.dataplane.base import DeleteServer, DeleteService, Op, PutServer, PutService, SetTimeouts
from lbnode.model import Programmed, ProgrammedService, ServiceId


def diff(desired: Programmed, actual: Programmed, others: Collection[ServiceId] = ()) -> Iterator[Op]:
    """All operations that turn `actual` into `desired`, but for services in `others`, which are not ours to remove."""
    if desired.timeouts != actual.timeouts:
        yield SetTimeouts(desired.timeouts)
    for service_id, service in desired.services.items():
        yield from diff_service(service, actual.services.get(service_id))
    for service_id in actual.services:
        if service_id not in desired.services and service_id not in others:
            yield DeleteService(service_id)


def diff_service(desired: ProgrammedService, actual: ProgrammedService | None) -> Iterator[Op]:
    """Operations for one service that is wanted; `actual` None: it is not there yet."""
    if desired is actual:
        return
    if actual is None or not same_parameters(desired, actual):
        yield PutService(replace(desired, servers={}))
    have = actual.servers if actual is not None else {}
    changed = []
    for server_id, server in desired.servers.items():
        if server_id not in have:
            yield PutServer(desired.id, server)
        elif server != have[server_id]:
            changed.append(server)
    for server in changed:
        yield PutServer(desired.id, server)
    for server_id in have:
        if server_id not in desired.servers:
            yield DeleteServer(desired.id, server_id)


def same_parameters(one: ProgrammedService, other: ProgrammedService) -> bool:
    """Equal apart from the servers."""
    return (
        one.scheduler == other.scheduler
        and one.scheduler_flags == other.scheduler_flags
        and one.persistent_s == other.persistent_s
        and one.persistent_netmask == other.persistent_netmask
        and one.persistence_engine == other.persistence_engine
        and one.one_packet == other.one_packet
        and one.syn_proxy == other.syn_proxy
        and one.mss == other.mss
        and one.access == other.access
        and one.timeouts == other.timeouts
    )
