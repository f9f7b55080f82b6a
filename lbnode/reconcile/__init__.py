"""Makes the data plane contain what plan() wants.

    Desired ─▶ diff ─▶ ops ─▶ plane.apply_many diff, retry: pure     loop: the driver     statuses: how it went
                 ▲ what the plane contains     status per object ─▶ lbctl, UI, apply --wait

At start it reads what is there and changes only what differs: a restart disturbs no connection.
"""
