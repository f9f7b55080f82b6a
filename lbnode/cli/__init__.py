"""Command line tools: lbctl, and lbadm with ipvsadm's grammar. Both speak the HTTP API over the node's unix socket."""
