"""Tests on a kernel with ip_vs: this machine's own, or User-Mode Linux."""
