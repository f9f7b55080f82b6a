"""lbadm: ipvsadm(8)'s grammar, answers and listings, on a cluster or on this kernel's own ip_vs."""
