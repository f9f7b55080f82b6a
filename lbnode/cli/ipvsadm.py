"""lbadm: ipvsadm's commands and output, acting on the cluster's configuration and reading the local data plane."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from lbnode.cli import ipvsadm_listing as listing
from lbnode.cli.client import ApiError, Client, segment
from lbnode.cli.ipvsadm_grammar import Command, GrammarError, parse

# How long a change may take to reach the local data plane before lbadm says so.
PROGRAMMED_WITHIN_S = 5.0
REFUSED = 255  # ipvsadm's exit code when the kernel says no

HELP = """lbadm takes the everyday commands of ipvsadm(8):
  lbadm -A|-E -t|-u|-f|--sctp-service ADDRESS:PORT [-s scheduler] [-b flags] [-p [seconds]] [-M netmask] [-o]
  lbadm -D    -t|-u|-f ADDRESS:PORT                       remove a service
  lbadm -C                                                remove all services
  lbadm -a|-e -t|-u|-f SERVICE -r SERVER [-g|-m|-i] [-w weight] [-x upper] [-y lower]
  lbadm -d    -t|-u|-f SERVICE -r SERVER                  remove a server
  lbadm -L|-l [-n] [-c | --stats | --rate | --thresholds] [--exact] [-t|-u|-f SERVICE]
  lbadm -S [-n]                                           print commands that make this table again
  lbadm -Z [-t|-u|-f SERVICE]                             zero counters
Changes go to the cluster's configuration: every gateway follows. Listings show this gateway's data plane.
"""


class Refused(Exception):
    """What the kernel would say, with ipvsadm's exit code 255."""


def main(argv: Sequence[str] | None = None) -> int:
    try:
        command = parse(sys.argv[1:] if argv is None else argv)
        return _run(command, Client())
    except GrammarError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Refused as error:
        print(error, file=sys.stderr)
        return REFUSED
    except ApiError as error:
        print(f"lbadm: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


def _run(command: Command, client: Client) -> int:
    if command.name == "help":
        print(HELP, end="")
    elif command.name == "version":
        print("lbadm, an ipvsadm v1.31 for lbnode")
    elif command.name == "list":
        _list(command, client)
    elif command.name == "save":
        for line in listing.saved(_services(client), _namer(command)):
            print(line)
    elif command.name == "zero":
        if command.service is not None:
            _one_service(command, client)
        client.call("POST", "/api/v1/zero", {"service": str(command.service) if command.service else None})
    else:
        _change(command, client)
    return 0


# --- listing -------------------------------------------------------------------------------------------------


def _list(command: Command, client: Client) -> None:
    namer = _namer(command)
    if "connection" in command.options:
        for line in listing.connections(client.lines("/api/v1/connections"), namer):
            print(line)
        return
    view = next((view for view in ("stats", "rate", "thresholds") if view in command.options), "")
    one = command.service is not None
    services = [_one_service(command, client)] if one else _services(client)
    for line in listing.table(services, view, namer, exact="exact" in command.options, full=not one):
        print(line)


def _services(client: Client) -> list[Any]:
    return list(client.get("/api/v1/services")["services"])


def _one_service(command: Command, client: Client) -> Any:
    for service in _services(client):
        if service["id"] == str(command.service):
            return service
    raise Refused("No such service")


def _namer(command: Command) -> listing.Namer:
    return listing.numeric if "numeric" in command.options else _names


def _names(address: str, port: int | None, protocol: str) -> str:
    """Host and service names where the system knows them, as ipvsadm shows without -n."""
    try:
        host = socket.gethostbyaddr(address)[0]
    except OSError:
        host = f"[{address}]" if ip_address(address).version == 6 else address
    if port is None:
        return host
    try:
        return f"{host}:{socket.getservbyport(port, protocol)}"
    except OSError:
        return f"{host}:{port}"


# --- changing ------------------------------------------------------------------------------------------------


def _change(command: Command, client: Client) -> None:
    put: dict[str, Any] = {}
    delete: list[str] = []
    answer = client.get("/api/v1/document")
    services: Mapping[str, Any] = answer["document"].get("services") or {}
    if command.name == "flush":
        delete = [f"services/{service}" for service in services]
    elif command.name.endswith("service"):
        put, delete = _change_service(command, services)
    else:
        put, delete = _change_server(command, services)
    if not put and not delete:
        return
    body = {"put": put, "delete": delete, "expect_revision": answer["revision"], "dry_run": False}
    result = client.call("POST", "/api/v1/changes", body)
    _await_programmed(client, result["revision"], command)


def _change_service(command: Command, services: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    name = str(command.service)
    key = f"services/{name}"
    if command.name == "add-service" and name in services:
        raise Refused("Service already exists")
    if command.name != "add-service" and name not in services:
        raise Refused("No such service")
    if command.name == "delete-service":
        return {}, [key]
    # What ipvsadm has no word for (checks, VIP group) stays; what it has is set, given or not, as -E does.
    own = ("servers", "scheduler", "flags", "persistent", "persistent_netmask", "one_packet")
    document = {field: value for field, value in (services.get(name) or {}).items() if field not in own}
    document["scheduler"] = command.scheduler or "wlc"
    if command.sched_flags:
        document["flags"] = sorted(command.sched_flags)
    if command.persistent_s:
        document["persistent"] = command.persistent_s
    if command.netmask is not None:
        document["persistent_netmask"] = command.netmask
    if command.one_packet:
        document["one_packet"] = True
    return {key: document}, []


def _change_server(command: Command, services: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    service = services.get(str(command.service))
    if service is None:
        raise Refused("Service not defined")
    servers: Mapping[str, Any] = service.get("servers") or {}
    name = str(command.server)
    key = f"services/{command.service}/servers/{name}"
    if command.name == "add-server" and name in servers:
        raise Refused("Destination already exists")
    if command.name != "add-server" and name not in servers:
        raise Refused("No such destination")
    if command.name == "delete-server":
        return {}, [key]
    document: dict[str, Any] = {
        "weight": 1 if command.weight is None else command.weight,
        "forward": command.forward or "direct",
    }
    if (servers.get(name) or {}).get("drain"):
        document["drain"] = True
    if command.upper_threshold:
        document["upper_threshold"] = command.upper_threshold
    if command.lower_threshold:
        document["lower_threshold"] = command.lower_threshold
    return {key: document}, []


def _await_programmed(client: Client, revision: int, command: Command) -> None:
    """Return when this gateway has tried it, so that the next listing shows it; what it refused is an error."""
    deadline = time.monotonic() + PROGRAMMED_WITHIN_S
    while client.get("/api/v1/status")["settled_revision"] < revision:
        if time.monotonic() >= deadline:
            raise ApiError(
                f"stored at revision {revision}, but not in this gateway's data plane after "
                f"{PROGRAMMED_WITHIN_S:g} s; see `lbctl status`",
                1,
            )
        time.sleep(0.01)
    if command.service is None or command.name in ("delete-service", "delete-server"):
        return
    service = client.get(f"/api/v1/services/{segment(str(command.service))}")
    servers = [server for server in service["servers"] if server["id"] == str(command.server)]
    for item in (service, *servers):
        if item["status"].startswith("error"):
            raise Refused(f"{item['id']}: {item['status']}")


if __name__ == "__main__":
    sys.exit(main())
