"""What the real thing does, as captured facts, and lbnode beside it.

ipvsadm/cases.json, more.json and traffic.json: name -> {note, steps}, where a step is a command with what ipvsadm 1.31
answered on the ip_vs of Linux 6.1.176; cases, lbadm, shapes and traffic compare. more.json holds what generated
commands (generate, differential) brought to light; capture makes such files. ipvs-schedulers.json: which server ip_vs
chose for each new connection; schedulers plays it. `python -m tests.reference` runs all of it.
"""
