"""The kernel's own load balancer, ip_vs, driven over generic netlink.

Others may program ip_vs, too. What lbnode put there stands in `run_dir/ipvs`, and only that is ever deleted, by
`lbnoded --unload` as well. Services of ipvsadm or keepalived are shown as foreign and kept, or removed with the
setting `foreign_services: remove`; one that the configuration names is taken over, and the journal keeps what it was.

Connections go to the peers by ip_vs's own sync daemons, which have neither authentication nor a bulk transfer for a
joiner: an idle connection reaches it with its next packet. With `[sync]` in node.toml they run on the interface that
has `listen`'s address, with an id made of the cluster's name, by the VRRP roles: master while the node is active in
any VIP group, backup while it is backup in any, so both at once with several groups. The setting `sync_daemons`
(`lbadm --start-daemon`) names daemons that always run, or follow the roles with `by_role: true`. They exclude servers
of another address family than their service. `lbctl status` shows those that run, `lbadm -L --daemon` those that the
settings name.

`net.ipv4.vs.*` of the setting `sysctl` are in force at once, in lbnoded's network namespace, over a profile that
synchronises connections as soon as they are established (ip_vs: at the third packet), takes up unknown ones in the
middle (`sloppy_tcp`), and lets persistent clients leave a server of weight 0 (`expire_quiescent_template`).
"""
