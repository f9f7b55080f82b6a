"""Packet in, BPF_PROG_TEST_RUN, packet out: the compiled data plane on single packets, without interfaces.

bench.py     Bench: a private instance of the object (its maps are pinned nowhere), services and servers put into it by
             the product's own Tables, time turned by hand, every packet that comes out checked (all checksums)
wire.py      the namespace that the programs run in, its addresses and next hops
traffic.py   the packets that tests give to the bench
conftest.py  the fixture `bench`, and `entry`: every test runs through xdp_lb and through tc_lb
test_*.py    by feature: forwarding methods, states and time-outs, ICMP, bad packets, full table, records, schedulers
test_matrix.py  every mode, family, protocol and edge, judged as the mutations are
test_fuzz.py  mutated frames by the million: seeds.py (valid ones), mutations.py, judge.py (what may come out)

The sequences of servers are compared with choices of the real IPVS: tests/reference/ipvs-schedulers.json.
"""
