"""What would become of a packet: the real program runs it, beside the live tables, and its traces are read."""
