"""Health checks of real servers, usable on their own: imports nothing from lbnode.

spec.Target, spec.CheckSpec --> runner --> probes/* --> tracker (rise/fall) --> spec.Verdict
"""
