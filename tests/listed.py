"""What a data plane lists, as connections again."""

from __future__ import annotations

from lbnode.connection_filter import EVERY, ConnectionFilter
from lbnode.dataplane.base import DataPlane
from lbnode.model import Connection
from web.encode import adapter


def connection(line: str) -> Connection:
    found: Connection = adapter(Connection).validate_json(line)
    return found


async def listed(plane: DataPlane, wanted: ConnectionFilter = EVERY) -> list[Connection]:
    return [connection(line) async for chunk in plane.connections(wanted) for line in chunk]
