"""What `lbadm -h` and `-v` print, and what it says when it cannot begin. Pure."""

VERSION = "ipvsadm v1.31 2019/12/24 (compiled with popt and IPVS v1.2.1)"
NO_IP_VS = "Can't initialize ipvs: {}\nAre you sure that IP Virtual Server is built in the kernel or as module?"
NOT_ROOT = "Permission denied (you must be root)"
HELP = f"""{VERSION}
Usage: the commands of ipvsadm(8). SERVICE is one of
  -t|-u|--sctp-service ADDRESS[:PORT]    -f MARK [-6]

  lbadm -A|-E SERVICE [-s scheduler] [-b flags] [-p [seconds]] [-M netmask] [-o]    add or change a service
  lbadm -D SERVICE                          remove a service             lbadm -C   remove all
  lbadm -a|-e SERVICE -r ADDRESS[:PORT] [-g|-m|-i|--fullnat] [-w weight] [-x upper] [-y lower]  add or change a server
        [--tun-type ipip|gue|gre] [--tun-port port] [--tun-nocsum|--tun-csum|--tun-remcsum]
  lbadm -d SERVICE -r ADDRESS[:PORT]        remove a server
  lbadm [-L|-l] [SERVICE | -c | --timeout | --daemon] [-n] [--stats | --rate | --thresholds | --persistent-conn |
        --tun-info] [-X|--exact] [--nosort]
  lbadm -S [-n] [--full]                    print commands that make this table again; --full: thresholds, timeouts
                                            and daemons too
  lbadm -R                                  do the commands on standard input, all of them or none
  lbadm -Z [SERVICE]                        zero counters
  lbadm --set tcp tcpfin udp                connection timeouts in seconds; 0 keeps one
  lbadm --start-daemon master|backup [--mcast-interface name] [--syncid id] [--sync-maxlen bytes]
        [--mcast-group address] [--mcast-port port] [--mcast-ttl ttl]
  lbadm --stop-daemon master|backup         IPVS only, as --start-daemon
  lbadm --direct ...                        any of these on this kernel's own ip_vs, as ipvsadm does; LBADM_DIRECT=1 too
  lbadm --install-as-ipvsadm DIRECTORY      link lbadm there as ipvsadm, ipvsadm-save and ipvsadm-restore

Changes go to the cluster's configuration: every gateway follows. Listings show this gateway's data plane.
"""
