"""The first file system of a kernel that boots."""

from __future__ import annotations


def initramfs(files: dict[str, bytes]) -> bytes:
    """Executable files by path, in the format "newc" (Documentation/driver-api/early-userspace/buffer-format.rst)."""
    entries = [(name, 0o100755, content) for name, content in files.items()]
    folders = sorted({name.rpartition("/")[0] for name in files if "/" in name})
    entries = [*((name, 0o040755, b"") for name in folders), *entries, ("TRAILER!!!", 0, b"")]
    parts = []
    for inode, (name, mode, content) in enumerate(entries, 1):
        fields = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + "".join(f"{field:08x}" for field in fields).encode() + name.encode() + b"\0"
        parts += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]
    return b"".join(parts)
