"""Failover as clients see it: real lbnoded and keepalived in network namespaces, every pairing, side by side.

gateways  one gateway: its namespaces, its daemon, signals to all of it
echo      what answers on a gateway: its kernel and this, which no fault touches
probe     what asks, each millisecond: the VIP as any client, and both gateways' MAC addresses
calm      no fault at all, but busy cores
run       a pair of gateways, one fault after the other
judge     what the probe saw of one, as figures
results   all of them: a file that the next bench goes on from, and the table
"""
