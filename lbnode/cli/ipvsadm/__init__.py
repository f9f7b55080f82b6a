"""lbadm: ipvsadm(8)'s grammar, answers and listings, on a cluster or on this kernel's own ip_vs.

On purpose different from ipvsadm 1.31:

- `-L` and `-S` sort by number (a mark by the number that is shown); ipvsadm's order is wrong for addresses, or marks,
  more than 2^31 apart.
- A server's counters are whole from 2^32 on; ipvsadm cuts them off. In `-L` they are up to a second old (IPVS itself
  renews some every 2 s); in `-L -c` and with `--direct` they are of this moment.
- `-R` is one transaction: with a mistake nothing is changed, and the line is named. ipvsadm, and `--direct`, goes on
  after what the kernel refused, and ends half way at a wrong value.
- `-S --full` also saves thresholds, timeouts, daemons, and marks from 2^31 on and the third flag of sh and mh as they
  are.
- `-h` prints a text of its own.
- Without lbnoded: one line that names the socket, exit 2. `--direct` without ip_vs: ipvsadm's two lines, exit 2.
- What the data plane refuses (on XDP `--pe` and virtual addresses that are not unicast, on IPVS what its kernel alone
  knows): `error: ...` of the object, exit 255; the configuration keeps it, `-S` shows it, `-L` does not.
- `-L` and `-S` show services that somebody else put into ip_vs; `-A` takes one over, other changes are answered `No
  such service`, `--direct` makes them.
- `--start-daemon` on XDP is kept in the cluster's settings and shown; only IPVS has such daemons.
"""
