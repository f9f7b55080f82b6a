"""API objects -> text for people. Pure: width, colour and the present time are arguments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

Row = Sequence[str]
Json = Mapping[str, Any]


def table(headers: Row, rows: Iterable[Row], indent: str = "") -> str:
    """Left-aligned columns, two spaces apart; nothing but the headers if there are no rows."""
    everything = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in everything) for column in range(len(headers))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in everything)
    return "".join(f"{indent}{line.rstrip()}\n" for line in lines)


def duration(seconds: float) -> str:
    """`7s`, `3m12s`, `5h08m`, `12d3h`."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02}m"
    return f"{whole // 86400}d{whole // 3600 % 24}h"


def ago(then: float, now: float) -> str:
    return f"{duration(now - then)} ago" if then else "-"


def quantity(value: float) -> str:
    """`0`, `7.5`, `950`, `12.3k`, `4.1M`: for rates and byte counts."""
    for unit in ("", "k", "M", "G", "T"):
        if abs(value) < 1000 or unit == "T":
            return f"{value:.0f}{unit}" if value == int(value) or abs(value) >= 100 else f"{value:.1f}{unit}"
        value /= 1000
    raise AssertionError


def weight(server: Json) -> str:
    """`3`, or `3→0` where the effective weight differs, `3→-` where the server is out of the data plane."""
    configured, effective = server["configured_weight"], server["effective_weight"]
    if effective == configured:
        return str(configured)
    return f"{configured}→{'-' if effective is None else effective}"


def health(server: Json) -> str:
    word = "draining" if server["drain"] and server["health"] != "down" else server["health"]
    return f"{word}: {server['health_reason']}" if server["health"] == "down" and server["health_reason"] else word


def services(items: Iterable[Json]) -> str:
    """The tree table of services and their servers; below it who may open connections to services, and what they did
    about new ones, if anything."""
    items = list(items)
    rows: list[Row] = []
    for service in items:
        rows.append(_service_row(service))
        rows.extend(_server_row(server) for server in service["servers"])
    headers = ("SERVICE", "SCHEDULER", "STATE", "WEIGHT", "ACTIVE", "INACTIVE", "CONN/S", "IN B/S", "OUT B/S", "STATUS")
    told = [
        (service["id"], *cells)
        for service in items
        if any(cells := (*_admission(service["admission"]), service["access"]))
    ]
    below = "\n" + table(("SERVICE", "REFUSED", "SYN COOKIES", "MSS CLAMPED", "ACCESS"), told) if told else ""
    return table(headers, rows) + below


def _admission(counted: Json | None) -> Row:
    """In packets, what is 0 left out; nothing where the data plane does not count it."""
    if counted is None:
        return "", "", ""
    words = ("sent", "accepted", "refused")
    cookies = [f"{word} {counted[f'cookies_{word}']}" for word in words if counted[f"cookies_{word}"]]
    refused = [f"{reason} {packets}" for reason, packets in counted["refused"].items() if packets]
    return ", ".join(refused), ", ".join(cookies), str(counted["mss_clamped"] or "")


def _service_row(service: Json) -> Row:
    flags = ",".join(service["scheduler_flags"])
    return (
        service["id"],
        service["scheduler"] + (f" ({flags})" if flags else ""),
        service["state"],
        "",
        *_figures(service),
        service["status"],
    )


def _server_row(server: Json) -> Row:
    return (
        f"  {server['id']}",
        server["forward"],
        health(server),
        weight(server),
        *_figures(server),
        server["status"],
    )


def _figures(item: Json) -> Row:
    counters, rates = item["counters"], item["rates"]
    return (
        str(counters["active"]),
        str(counters["inactive"]),
        quantity(rates["connections"]),
        quantity(rates["bytes_in"]),
        quantity(rates["bytes_out"]),
    )


def status(node: Json, now: float) -> str:
    """`lbctl status`: everything about one node on one screen."""
    store, plane = node["store"], node["dataplane"]
    connected = "connected" if store["connected"] else f"NOT CONNECTED since {ago(store['since'], now)}"
    name = f"{node['node']} (cluster {node['cluster']})"
    lines = [
        f"node        {name}, lbnode {node['version']}, up {duration(now - node['started'])}\n",
        f"store       {store['kind']} {connected} ({store['endpoint']})\n",
    ]
    if store["problem"]:
        lines.append(f"            {store['problem']}\n")
    behind = ""
    if node["programmed_revision"] < node["revision"]:
        # Tried, but refused in part: waiting changes nothing, the objects' own errors say what does.
        refused = node["settled_revision"] >= node["revision"]
        behind = ", SOME OBJECTS REFUSED: see `lbctl get`" if refused else ", NOT YET PROGRAMMED"
    lines.append(f"revision    {node['revision']}, programmed {node['programmed_revision']}{behind}\n")
    adopted = ", adopted at start" if plane["adopted"] else ""
    room = f" of {plane['connections_max']}" if plane["connections_max"] else ""  # IPVS knows no limit
    lines.append(f"data plane  {plane['kind']}: {plane['connections']}{room} connections{adopted}\n")
    for state, daemon in sorted(plane["sync_daemons"].items(), reverse=True):
        lines.append(f"  sync      {sync_daemon(state, daemon)}\n")
    if node["foreign"]:
        lines.append(f"  foreign   {', '.join(node['foreign'])}\n")
    for interface in plane["interfaces"]:
        error = f" ERROR: {interface['error']}" if interface["error"] else ""
        lines.append(f"  {interface['name']:<10}{interface['mode']}: {interface['reason']}{error}\n")
    drops = ", ".join(f"{reason} {count}" for reason, count in sorted(plane["drops"].items()) if count)
    if drops:
        lines.append(f"  dropped   {drops}\n")
    events = ", ".join(f"{event} {count}" for event, count in sorted(plane["events"].items()) if count)
    if events:
        lines.append(f"  counted   {events}\n")
    if packets := sum(plane["cpu_packets"]):
        shares = ", ".join(f"{cpu}: {100 * one / packets:.0f} %" for cpu, one in enumerate(plane["cpu_packets"]) if one)
        lines.append(f"  CPUs      {shares} of {quantity(packets)} packets\n")
    if node["roles"]:
        lines.append("\n" + roles(node["roles"], now, plane["leases"]))
    if node["sync"]:
        lines.append("\n" + sync(node["sync"]))
    lines.append("\n" + nodes(node["nodes"], now))
    if node["problems"]:
        lines.append("\n" + problems(node["problems"]))
    return "".join(lines)


def sync_daemon(state: str, daemon: Json) -> str:
    """`master on eth1, id 7, group 224.0.0.81 port 8848`"""
    where = f"{state} on {daemon['interface']}, id {daemon['syncid']}"
    return f"{where}, group {daemon['group']} port {daemon['port']}"


def roles(items: Iterable[Json], now: float, leases: Iterable[Json]) -> str:
    left = {one["group"]: lease(one["remaining_s"]) for one in leases}
    rows = (
        (
            role["group"],
            role["state"],
            str(role["priority"]),
            ago(role["since"], now),
            left.get(role["group"], "-"),
            role["active_node"] or role["active_address"] or "-",
            role["problem"] or role["reason"],
        )
        for role in items
    )
    return table(("VIP GROUP", "ROLE", "PRIORITY", "SINCE", "LEASE", "ACTIVE NODE", "WHY"), rows)


def lease(remaining_s: float | None) -> str:
    """How long a group's addresses are still served unless an advertisement extends it."""
    if remaining_s is None:
        return "dark"
    return f"{remaining_s * 1000:.0f} ms" if remaining_s > 0 else f"dark for {duration(-remaining_s)}"


def sync(items: Iterable[Json]) -> str:
    rows = (
        (
            peer["name"],
            peer["address"],
            peer["state"],
            f"{peer['lag_s'] * 1000:.0f} ms",
            str(peer["sent_records"]),
            str(peer["received_records"]),
            peer["problem"],
        )
        for peer in items
    )
    return table(("SYNC PEER", "ADDRESS", "STATE", "LAG", "SENT", "RECEIVED", "PROBLEM"), rows)


def nodes(items: Iterable[Json], now: float) -> str:
    rows = (
        (
            node["name"],
            "reachable" if node["reachable"] else "UNREACHABLE",
            ", ".join(f"{role['group']}: {role['state']}" for role in node["roles"]) or "-",
            str(node["programmed_revision"]),
            str(node["problems"]),
            ago(node["seen"], now),
        )
        for node in items
    )
    return table(("NODE", "STATE", "ROLES", "PROGRAMMED", "PROBLEMS", "SEEN"), rows)


def problems(items: Iterable[Json]) -> str:
    rows = ((p["severity"], p["where"], p["field"], f"{p['message']}{_hint(p)}") for p in items)
    return table(("PROBLEM", "WHERE", "FIELD", "MESSAGE"), rows)


def _hint(problem: Json) -> str:
    return f" ({problem['hint']})" if problem["hint"] else ""


def event(item: Json, clock: str) -> str:
    """One line of the journal; `clock` is the formatted local time."""
    why = f": {item['why']}" if item["why"] else ""
    by = f" (by {item['who']})" if item["who"] else ""
    return f"{clock}  {item['node']:<8}  {item['kind']:<9}  {item['what']}  {item['message']}{why}{by}"


def changes(items: Iterable[Json]) -> str:
    """A diff for people: one line a key, and a line for each field that differs."""
    marks = {"create": "+", "update": "~", "delete": "-"}
    lines = []
    for change in items:
        lines.append(f"{marks[change['action']]} {change['key']}\n")
        old, new = change["old"] or {}, change["new"] or {}
        for field in sorted({*old, *new}):
            if old.get(field) != new.get(field):
                before = f"{old[field]!r} → " if field in old else ""
                after = repr(new[field]) if field in new else "(removed)"
                lines.append(f"    {field}: {before}{after}\n")
    return "".join(lines)


def sysctl(findings: Iterable[Json]) -> str:
    rows = (
        (
            "ok" if f["actual"] == f["wanted"] else "-" if f["actual"] is None else "DIFFERS",
            f["key"],
            f["wanted"],
            f["actual"] if f["actual"] is not None else "-",
            f["note"],
        )
        for f in findings
    )
    return table(("", "KEY", "WANTED", "ACTUAL", "NOTE"), rows)


def connections(items: Iterable[Json]) -> Iterable[str]:
    yield f"{'PROTO':<6}{'EXPIRES':>9}  {'STATE':<12}{'CLIENT':<24}{'VIRTUAL':<24}{'SERVER':<24}LOCAL\n"
    for c in items:
        ends = (f"{c[end][0]}:{c[end][1]}" for end in ("client", "virtual", "server"))
        client, virtual, server = ends
        row = f"{c['protocol'] or 'ip':<6}{c['expires_s']:>8.0f}s  {c['state']:<12}{client:<24}{virtual:<24}"
        local = c.get("local")
        yield f"{row}{server:<24}{local[0]}:{local[1]}\n" if local else f"{row}{server}\n"


def heir(status: Any, node: str, group: str, resting: Collection[str] = ()) -> str:
    """Who takes the VIP group when the node gives it up: of the Backups that the store tells of the best one, else one
    that the node hears; "" = nobody. resting: nodes in maintenance, which may still be told of as Backups."""
    found = [
        (role["priority"], other["name"])
        for other in status["nodes"]
        for role in other["roles"]
        if other["reachable"] and other["name"] != node and role["group"] == group and role["state"] == "backup"
    ]
    here = (role for one in status["nodes"] if one["name"] == node for role in one["roles"])
    heard: Sequence[str] = next((role["backups"] for role in here if role["group"] == group), ())
    names = [name for _, name in sorted(found, reverse=True)] + list(heard)
    return next((name for name in names if name not in resting), "")


def moves(status: Any, node: str, groups: Iterable[str], resting: Collection[str] = ()) -> str:
    """What happens to these VIP groups when the node gives them up."""
    lines = []
    for group in groups:
        best = heir(status, node, group, resting)
        lines.append(f"{group}: {node} -> {best}" if best else f"{group}: stays at {node}, no other node is backup")
    return "".join(line + "\n" for line in lines)


def election(group: str, status: Json, timeline: Iterable[tuple[str, Json]]) -> str:
    """A VIP group on every node, and what this node's journal tells of it: (local time, event), oldest first."""
    rows = [
        (node["name"], role["state"], str(role["priority"]), ago(role["since"], status["time"]), role["reason"])
        for node in status["nodes"]
        for role in node["roles"]
        if role["group"] == group
    ]
    text = f"{group}\n" + table(("NODE", "ROLE", "PRIORITY", "SINCE", "WHY"), rows, "  ")
    for clock, item in timeline:
        text += f"  {clock}  {item['node']}  {item['message']}{': ' if item['why'] else ''}{item['why']}\n"
    return text + "\n"


def explanation(item: Json) -> str:
    """What would become of a packet: the decision first, then what it rests on."""
    hop = item["next_hop"]
    facts = [
        ("packet", f"{item['packet']}, in by {item['interface']} ({item['hook']})"),
        ("verdict", f"{item['verdict']} ({item['reason']})"),
        ("service", f"{item['service']}, scheduler {item['scheduler']}" if item["service"] else ""),
        ("connection", item["connection"]),
        ("server", f"{item['server']}, {item['forward']}" if item["server"] else ""),
        ("next hop", _next_hop(hop) if hop else ""),
        ("counters", ", ".join(f"{name} +{count}" for name, count in item["counters"].items())),
    ]
    text = f"{item['question']}\n{item['text']}\n\n"
    text += "".join(f"  {name:<11} {value}\n" for name, value in facts if value)
    for name, title in (("before", "as it comes in"), ("after", "as it leaves"), ("answer", "what its sender gets")):
        if item[name]:
            text += f"\n  {title}\n" + "".join(f"    {line}\n" for line in item[name])
    if item["candidates"]:
        rows = [
            (one["server"], str(one["weight"]), str(one["active"]), str(one["inactive"]), one["why_not"] or "yes")
            for one in item["candidates"]
        ]
        text += "\n" + table(("SERVER", "WEIGHT", "ACTIVE", "INACTIVE", "MAY BE CHOSEN"), rows, "  ")
        if item["candidates_left_off"]:
            text += f"  and {item['candidates_left_off']} more\n"
    return text + "".join(f"\nnote: {note}\n" for note in item["notes"])


def _next_hop(hop: Json) -> str:
    to = " ".join(part for part in (hop["address"], hop["mac"] or "(not resolved)") if part)
    return f"{to} by {hop['interface']}" if hop["interface"] else to
