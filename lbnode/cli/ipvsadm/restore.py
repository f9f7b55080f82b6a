"""The script that `ipvsadm -R` reads. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


def script(lines: Iterable[bytes]) -> Iterator[list[str]]:
    """The words of each line: none for a blank one. The word ipvsadm is skipped, and nothing is a comment."""
    for line in lines:
        words = re.split("[ \t\n\r]+", line.decode(errors="surrogateescape"))
        yield [word for word in words if word not in ("", "ipvsadm")]
