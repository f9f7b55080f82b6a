"""Kernel settings (sysctl) of a gateway: the profile, old names, checking and applying in this network namespace."""
