"""lbctl: look at a node, change the cluster; `showing`, `capturing`, `changing`, `electing`, `kernel`."""
