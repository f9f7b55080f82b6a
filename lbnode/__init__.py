"""lbnode: a clustered, highly available layer-4 load-balancer appliance.

One direction of data (README, "How it works"):

    store -> config.resolve -> Config --\\
    probes -> healthcheck ----> Verdicts -+-> plan() -> Desired -> reconcile -> data plane (kernel)
    VRRP -> election ---------> Roles ---/

Start reading at model/, then plan.py, reconcile/diff.py, election/machine.py, node.py.
"""

VERSION = "0.1.0"
