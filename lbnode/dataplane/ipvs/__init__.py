"""The kernel's own load balancer, ip_vs, driven over generic netlink."""
