"""lbctl: look at a node and change the cluster. Its verbs by kind: `showing`, `changing`, `electing`, `kernel`."""
