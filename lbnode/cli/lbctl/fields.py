"""What a document may contain, as `lbctl apply --help` prints it. Pure; the schema itself is lbnode.config.schema."""

FIELDS = """\
Fields of a document (YAML or JSON). In the store each object is a JSON document of its own, below /lbnode/CLUSTER/.

services/SERVICE                 SERVICE is what it matches: tcp:192.0.2.10:80, udp:[2001:db8::10]:53, fwmark:7
  scheduler                      rr wrr lc wlc (default) lblc lblcr dh sh sed nq fo ovf mh twos
  flags                          of the scheduler: sh-port, sh-fallback, mh-port, mh-fallback, flag-1, flag-2, flag-3
  persistent                     seconds; persistent_netmask: 24, or "255.0.255.0"; persistence_engine: sip
  one_packet                     true: each datagram is scheduled for itself
  syn_proxy                      half-open connections from which on SYNs are answered with cookies; 0: always
  mss                            octets, 88 to 65495: larger ones in SYN and SYN-ACK become this
  allow, deny                    lists of prefixes: who may open connections
  new_connections                {rate, burst, prefix}: per second, at once, for each prefix of so many bits
  timeouts                       {tcp, tcp_fin, udp}: seconds, in place of those of settings
  vip_group, check               the name of one; or the check itself
  when_down, when_all_down       weight-zero (default) or remove; refuse (default) or keep-last
services/SERVICE/servers/ADDRESS:PORT
  weight, drain                  1, false
  forward                        masquerade (default), direct, tunnel, fullnat
  toa                            of fullnat; true (default): a TCP option tells the server the client's address
  upper_threshold, lower_threshold   connections
  tunnel_type                    ipip (default), gue, gre; tunnel_port; tunnel_checksum: nocsum, csum, remcsum
vip-groups/NAME
  vrid, addresses, priorities    1 to 255; ADDRESS/LENGTH [dev INTERFACE], both families move as one; {NODE: 1 to 254}
  interface                      else the one that has the first address's network
  advert_interval                seconds, 0.01 to 40.95; default 0.1
  preempt, preempt_delay, startup_delay
  track                          list of one of gateway, interface, dataplane, sync, service (with share), script, file;
                                 with weight: lowers the priority by it, else ends the node's part; interval: seconds
  policy                         availability (default), consistency
  authentication                 auto (default), off, receive-only, permissive, enforce
  virtual_mac                    true: RFC 9568 section 7.3, on a macvlan of the active node
  unicast_peers                  in place of multicast
  version, checksum              3, or 2 for a migration; auto (default), rfc9568, pseudo-header
  local_addresses                those of addresses that fullnat gives connections as sources
checks/NAME                      or in a service
  type, port                     see below; else the server's port
  interval, timeout, jitter      seconds, the time-out for the whole attempt; share of the interval
  rise, fall                     attempts until the verdict changes
  tcp                            a connection is accepted
  http, https                    method, path, host, expected_statuses, body_match (regular expression);
                                 https: tls_verify, tls_ca_file, tls_server_name
  dns                            a question over UDP is answered without error: dns_name (.), dns_type (SOA)
  ping                           an ICMP echo request is answered
  udp                            a datagram of payload is answered with reply, or by anything if that is ""; without
                                 reply, if no ICMP error comes within timeout. Hexadecimal, x in reply for any digit
  smtp                           the server greets, takes a HELO and a QUIT: helo (the gateway's name)
  script                         /etc/lbnode/checks/SCRIPT of the gateway ends with status 0: script, arguments;
                                 CHECK_ADDRESS and CHECK_PORT in its environment; what it prints first is the reason
settings
  timeouts, sysctl               {tcp, tcp_fin, udp}; {NAME: VALUE}
  maintenance                    nodes that hold nothing which another one could hold
  dataplane                      auto, xdp, ipvs: of nodes whose node.toml says auto, when they start
  XDP: local_addresses           {NODE: addresses}, for fullnat in services whose VIP group has none
  XDP: drop                      {ip_options, bad_checksums}: such packets do not pass
  IPVS: foreign_services         keep (default), remove
  IPVS: sync_daemons             {by_role, master, backup}; each {interface, syncid, maxlen, group, port, ttl}
"""
