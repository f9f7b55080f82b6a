"""A connection as a line of JSON. A million of them is usual, so one expression writes it. Pure."""

from __future__ import annotations

import json

from lbnode.model import Address, Connection

_NO_ENGINE = '"pe_name":"","pe_data":""'


def line(
    protocol: str,
    client: str,
    virtual: str,
    server: str,
    state: str,
    expires_s: float,
    local: str = "null",
    engine: str = _NO_ENGINE,
) -> str:
    """What web.encode makes of a Connection, and a line break. `protocol`, the ends and `engine` are JSON already."""
    return (
        f'{{"protocol":{protocol},"client":{client},"virtual":{virtual},"server":{server},"state":"{state}",'
        f'"expires_s":{expires_s},{engine},"local":{local}}}\n'
    )


def line_of(one: Connection) -> str:
    """One that was not read out of a record."""
    engine = (
        f'"pe_name":{json.dumps(one.pe_name)},"pe_data":{json.dumps(one.pe_data)}'
        if one.pe_data or one.pe_name
        else _NO_ENGINE
    )
    return line(
        "null" if one.protocol is None else f'"{one.protocol}"',
        _end(one.client),
        _end(one.virtual),
        _end(one.server),
        one.state,
        one.expires_s,
        "null" if one.local is None else _end(one.local),
        engine,
    )


def _end(end: tuple[Address, int]) -> str:
    return f'["{end[0]}",{end[1]}]'
