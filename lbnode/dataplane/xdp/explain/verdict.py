"""From what the program left behind to words: which service, connection and server, and why not when not. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lbnode.dataplane.xdp import layout
from lbnode.dataplane.xdp.counts import Gauge
from lbnode.dataplane.xdp.explain import headers, probe
from lbnode.dataplane.xdp.explain.table import Entry
from lbnode.dataplane.xdp.explain.traces import Traces
from lbnode.dataplane.xdp.layout import Event, State
from lbnode.dataplane.xdp.mirror import Server, Service
from lbnode.explanation import Candidate, Explanation, NextHop, Question
from lbnode.model import ForwardingMethod, ServiceId, TunnelType, format_endpoint

MAX_CANDIDATES = 64

# In the order in which they outweigh each other.
_DROPS: Mapping[Event, str] = {
    Event.DROP_NO_LEASE: "{vip} is of VIP group {group}, whose lease has ended on this node: another node may serve it",
    Event.DROP_DENIED: "{client} may open no connection to {service}: its lists `allow` and `deny` keep it out",
    Event.DROP_RATE: "{client}, or its network, opens connections to {service} faster than `new_connections` allows",
    Event.DROP_NO_SERVER: "no server of {service} takes a new connection",
    Event.DROP_OVERLOADED: "no server of {service} takes a new connection: some are at their upper thresholds",
    Event.DROP_TABLE_FULL: "the connection table has no room for it: both buckets of its hash hold live connections "
    "that cannot be moved",
    Event.DROP_NO_LOCAL_PORT: "no port of the local addresses is free towards {server}: full NAT cannot translate it",
    Event.DROP_SERVER_GONE: "its connection's server was deleted; the next packet that opens a connection gets another",
    Event.DROP_TOO_BIG: "it does not fit: the next hop takes {mtu} bytes, of which {overhead} are the tunnel's header",
    Event.DROP_UNFRAGMENTED: "it does not fit; the stack could only fragment what it routes: masqueraded, to a server",
    Event.DROP_NO_ROUTE: "this node has no route to {end} that it can take, or {interface} forwards nothing",
    Event.DROP_TTL: "its time to live ran out",
    Event.DROP_IP_HEADER: "its IP header is malformed: version or lengths contradict each other, or the frame",
    Event.DROP_IP_CHECKSUM: "the checksum of its IP header is wrong",
    Event.DROP_L4_HEADER: "its {protocol} header is malformed: cut off, or lengths that contradict each other",
    Event.DROP_L4_CHECKSUM: "its {protocol} checksum is wrong, and `drop` of the settings has bad_checksums",
    Event.DROP_TCP_FLAGS: "no TCP sends this combination of flags",
    Event.DROP_LAND: "it claims to come from the VIP itself",
    Event.DROP_IP_OPTIONS: "it has IP options, and `drop` of the settings has ip_options",
    Event.DROP_BUNDLE: "it is a bundle of segments to a tunnel with checksums, which the kernel cannot cut",
    Event.DROP_NOT_OPEN: "its connection began with a SYN cookie, and {server} has not answered yet",
    Event.DROP_ERROR: "the packet could not be rewritten",
}


@dataclass(frozen=True, slots=True)
class Scene:
    """What there was around the packet."""

    interface: str
    hook: str  # "xdp" | "tcx" | "tc"
    services: Mapping[ServiceId, Service]
    servers: Mapping[int, layout.Server]  # the one that was counted, and the entry's
    gauges: Mapping[int, Gauge]  # of the service's servers before the packet, by index
    now_ms: int
    group: str  # the VIP group of the target; empty: in none
    macs: Mapping[bytes, str]  # of this node's interfaces -> name
    names: Mapping[int, str]  # ifindex -> name


def expires_ms(entry: Entry, now_ms: int) -> int:
    """Until the entry counts for nothing any more; negative: since then."""
    idle = (now_ms - entry.last_ms) & 0xFFFFFFFF
    return entry.timeout_ms - idle


def match(services: Mapping[ServiceId, Service], question: Question, mark: int) -> Service | None:
    """The service that a new connection would be for: find_service of sched.h, which is ip_vs_service_find."""
    address, port = question.target.address, question.target.port
    six = address.version == 6
    found = services.get(ServiceId(None, None, 0, fwmark=mark, inet6=six)) if mark else None
    return (
        found
        or services.get(ServiceId(question.protocol, address, port, inet6=six))
        or services.get(ServiceId(question.protocol, address, 0, inet6=six))
    )


def explain(question: Question, frame: bytes, known: Entry | None, traces: Traces, scene: Scene) -> Explanation:
    """`frame` was run because the table had `known` for it: the entry before; None: there was none, or it was over."""
    base = Explanation(
        str(question),
        probe.name(question.protocol, known=known is not None),
        scene.interface,
        scene.hook,
        verdict="passed",
        reason="",
        text="",
        before=headers.describe(frame),
        counters={event.label: count for event, count in traces.events.items()},
        notes=tuple(_notes(question, known, scene)),
    )
    index = traces.server if traces.server is not None else known.server if known is not None else None
    server = scene.servers.get(index) if index is not None else None
    service = _service(question, server, scene)
    if service is not None and service.entry.scheduler is layout.Scheduler.TWOS and known is None:
        base = replace(base, notes=(*base.notes, "twos draws servers at random: the next packet may get another"))
    base = replace(base, **_about(service, server))  # type: ignore[arg-type]
    # Only a packet that found no entry asked the scheduler.
    if service is not None and known is None and Event.DROP_NO_LEASE not in traces.events:
        listed = list(service.servers.values())
        base = replace(
            base,
            candidates=tuple(_candidate(one, scene.gauges.get(one.index)) for one in listed[:MAX_CANDIDATES]),
            candidates_left_off=max(0, len(listed) - MAX_CANDIDATES),
        )
    if dropped := next((event for event in _DROPS if event in traces.events), None):
        return _dropped(base, dropped, traces, server, question, scene)
    if Event.COOKIE_SENT in traces.events and service is not None:
        return _answered(base, traces, service)
    if traces.server is None or server is None:
        return _passed(base, question, traces, service, scene)
    return _forwarded(base, known, traces, service, server, scene)


def _service(question: Question, server: layout.Server | None, scene: Scene) -> Service | None:
    if server is None:
        return match(scene.services, question, question.mark if scene.hook != "xdp" else 0)
    return next((one for one in scene.services.values() if one.entry.index == server.service), None)


def _about(service: Service | None, server: layout.Server | None) -> Mapping[str, str]:
    about: dict[str, str] = {}
    if service is not None:
        programmed = service.programmed
        flags = "".join(f", {flag}" for flag in sorted(programmed.scheduler_flags))
        about |= {"service": str(programmed.id), "scheduler": programmed.scheduler + flags}
    if server is not None:
        about |= {"server": format_endpoint(server.address, server.port), "forward": _method(server)}
    return about


def _method(server: layout.Server) -> str:
    return f"tunnel ({server.tunnel.type})" if server.forward is ForwardingMethod.TUNNEL else str(server.forward)


def _candidate(server: Server, gauge: Gauge | None) -> Candidate:
    """may_get of sched_walk.h in words."""
    gauge = gauge or Gauge(0, 0)
    upper = server.programmed.upper_threshold
    why_not = ""
    if server.programmed.weight == 0:
        why_not = "weight 0: drained, or its health check fails"
    elif upper and upper <= gauge.overloaded:
        why_not = f"overloaded: it reached its upper threshold of {upper} connections"
    return Candidate(str(server.programmed.id), server.programmed.weight, gauge.active, gauge.inactive, why_not)


def _notes(question: Question, known: Entry | None, scene: Scene) -> list[str]:
    notes = []
    if question.mark and scene.hook == "xdp":
        notes.append("at XDP a packet has no firewall mark yet: the mark was left out")
    if known is not None and known.state is State.TIME_WAIT and known.inward:
        notes.append("the connection is in TIME_WAIT: a SYN from the same port would begin a new one")
    return notes


# --- outcomes ---------------------------------------------------------------------------------------------------------


def _dropped(
    base: Explanation,
    event: Event,
    traces: Traces,
    server: layout.Server | None,
    question: Question,
    scene: Scene,
) -> Explanation:
    hop = server.hop if server is not None else None
    overhead = 0
    if server is not None and server.forward is ForwardingMethod.TUNNEL:
        overhead = layout.tunnel_overhead(server.address.version, server.tunnel)
    text = _DROPS[event].format(
        vip=question.target.address,
        client=question.source.address,
        group=scene.group or "(unknown)",
        protocol=str(question.protocol).upper(),
        service=base.service or "the service",
        server=base.server or "the server",
        end="the client" if traces.counted.packets_out else base.server or "the server",
        interface=scene.interface,
        mtu=hop.mtu if hop else "its route's MTU in",
        overhead=overhead,
    )
    answered = Event.ICMP_SENT in traces.events
    if event is Event.DROP_NO_SERVER:
        text += ": it has none" if not base.candidates else ""
    if answered:
        text += "; the sender is told by ICMP"
    return replace(
        base,
        verdict="dropped",
        reason=event.label,
        text=text,
        answer=headers.describe(traces.frame) if answered else (),
    )


def _answered(base: Explanation, traces: Traces, service: Service) -> Explanation:
    """Under a SYN flood."""
    text = (
        f"{service.programmed.syn_proxy} or more connections of {base.service} are half-open: the gateway answers with "
        "a SYN cookie, and asks the scheduler when the client's ACK brings it back"
    )
    return replace(
        base, verdict="answered", reason="syn-cookie", text=text, answer=headers.describe(traces.frame), candidates=()
    )


def _passed(
    base: Explanation, question: Question, traces: Traces, service: Service | None, scene: Scene
) -> Explanation:
    """To the network stack, as if the data plane were not there."""
    target, source = question.target, question.source
    if Event.NO_CONNECTION in traces.events:
        return replace(
            base,
            reason="no-connection",
            text="no connection of it is tracked, and it does not begin one: the stack answers",
        )
    if service is not None:  # nothing in the program does this
        return replace(base, reason="passed", text="the program left it to the network stack")
    others = sorted(str(one) for one in scene.services if one.address == target.address)
    if others:
        text = (
            f"{target.address} is a VIP, but nothing serves {question.protocol} port {target.port}: {', '.join(others)}"
        )
        return replace(base, reason="no-service", text=text)
    text = f"{target.address} is not a VIP: no service has this address; the network stack goes on with the packet"
    of = sorted(str(key) for key, one in scene.services.items() if source in one.servers)
    notes = base.notes
    if of:
        note = f"{source} is a server of {', '.join(of)}, but no connection is tracked that this could be a reply in"
        notes += (note + "; with direct routing and tunnels replies do not pass here",)
    return replace(base, reason="not-a-vip", text=text, notes=notes)


def _forwarded(
    base: Explanation,
    known: Entry | None,
    traces: Traces,
    service: Service | None,
    server: layout.Server,
    scene: Scene,
) -> Explanation:
    outward = traces.counted.packets_out > 0
    base = replace(base, connection=_connection(known, traces, service, scene))
    if server.flags & layout.ServerFlag.LOCAL and not outward:
        text = f"{base.server} is this node's own address: the packet goes up its network stack as it is"
        return replace(base, verdict="local", reason=_reason(known, outward), text=text)
    if traces.events.keys() & {Event.STACK}:
        text = (
            "a route that only the network stack can use, or to be fragmented: the rewritten packet goes up the stack"
        )
        return replace(base, verdict="passed", reason="stack", text=text, after=_after(traces, server))
    hop = _next_hop(traces, server, scene, outward=outward)
    base = replace(base, verdict="to-client" if outward else "to-server", reason=_reason(known, outward))
    text = _sentence(base, known, traces, service, outward=outward)
    after = _after(traces, server)
    announced, left = _mss(base.before), _mss(after)
    if announced != left:
        text += f"; its MSS of {announced} becomes the service's `mss`, {left}"
    if Event.NO_NEIGHBOUR in traces.events:
        text += "; the next hop is not resolved now: the kernel asks for it, and sends the packet then"
    return replace(base, text=text, next_hop=hop, after=after)


def _mss(lines: Sequence[str]) -> str:
    """That the described packet announces; empty: it does not."""
    found = re.search(r", MSS (\d+)", lines[-1])
    return found[1] if found else ""


def _reason(known: Entry | None, outward: bool) -> str:
    return "reply" if outward else "new-connection" if known is None else "connection"


def _sentence(base: Explanation, known: Entry | None, traces: Traces, service: Service | None, *, outward: bool) -> str:
    if outward:
        return f"a reply of {base.server}: it goes to the client in the VIP's name"
    if known is not None:
        return f"its connection is tracked: it goes to the connection's server {base.server}"
    persistent = service is not None and service.programmed.persistent_s > 0
    if persistent and not traces.new_template:
        return f"a new connection of a client that persistence keeps at {base.server}"
    return f"a new connection: the scheduler {base.scheduler} chooses {base.server}"


def _connection(known: Entry | None, traces: Traces, service: Service | None, scene: Scene) -> str:
    if known is not None:
        left_s = max(0, expires_ms(known, scene.now_ms)) / 1000
        return f"in the table: {known.state.name}, expires in {left_s:.0f} s without packets"
    if Event.UNTRACKED in traces.events:
        return "the table is full: the hash leads each of its packets to the same server, without an entry"
    if traces.entry is None:
        return "none is kept: each datagram is scheduled anew (one-packet scheduling)"
    text = f"new, {traces.entry.state.name}"
    if Event.EVICTED in traces.events:
        text += ", in place of a half-open or finished one: the table is full"
    if service is not None and service.programmed.persistent_s:
        template = "a new one" if traces.new_template else "the one that is there"
        text += f"; the client's template (persistence, {service.programmed.persistent_s:g} s): {template}"
    return text


def _after(traces: Traces, server: layout.Server) -> tuple[str, ...]:
    gue = server.forward is ForwardingMethod.TUNNEL and server.tunnel.type is TunnelType.GUE
    return headers.describe(traces.frame, server.tunnel.port if gue else 0)


def _next_hop(traces: Traces, server: layout.Server, scene: Scene, *, outward: bool) -> NextHop:
    """Interface and MAC address. The address is not in the frame: whoever knows the routes adds it."""
    if Event.NO_NEIGHBOUR in traces.events:
        return NextHop("", "", "")
    by_mac = scene.macs.get(traces.frame[6:12], "")
    interface = by_mac if outward or server.hop is None else scene.names.get(server.hop.ifindex, by_mac)
    return NextHop(interface, "", headers.mac(traces.frame[:6]))
