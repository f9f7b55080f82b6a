"""VRRPv3 election of the node that holds a VIP group (RFC 9568).

On the wire, pure: packet (VRRP), authentication (its trailer), endpoint (one group in both families), heartbeat (the
second path), neighbour (ARP, ND). Decisions, pure: router (parameters), machine (RFC 9568 section 6) and its events,
fence (may we take over, may we hold), placement (where addresses go), owner (what etcd names), drops, figures,
diagram.
`driver` is a process of its own, with groups (each a member there), ears, actions and the sockets of sockets, dual,
gateway, netlink and vip; succession hands over to the next one. `supervisor` is what the daemon imports; messages go
between.
This file imports nothing: the driver must start fast.
"""
