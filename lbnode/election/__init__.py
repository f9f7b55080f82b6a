"""VRRPv3 election of the node that holds a VIP group (RFC 9568).

packet and machine are pure; `placement` decides where addresses go; `driver` is a process of its own with all the
sockets; `supervisor` is what the daemon imports. This file imports nothing: the driver must start fast.
"""
