"""From one set of pinned maps to another of a new layout or size, without losing a connection.

btf (what a kernel's type information says of a map), fields (from one layout to another, field by field), pins (sets of
maps and where they are pinned), carry (what a new set takes over), successor (the change under traffic).
"""
