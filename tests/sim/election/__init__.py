"""The election, simulated: production machines on virtual time, a network and kernels that fail, and a judge.

cluster  everything on virtual time: a discrete-event simulation, replayable from a seed
process  what the production driver does around the production core, on the simulated network
node     a gateway's power, clock, addresses and lease
network  the LAN and the paths beside it: what they lose, delay and cut
store    the shared store that names owners, and each node's daemon in front of it
judge    who serves the VIP when; overlaps, dark times, black holes (figures E1-E7, see figures)
faults   what can go wrong, with a beginning and an end
episode  one seeded cluster through a series of faults
figures  what a campaign adds up, its goals and its table
campaign many episodes on all cores: `make sim`, `make soak`, and 200,000 cluster-seconds in `make test`
mutants  deliberate bugs, which a campaign must catch
"""
