"""static_ipaddress, static_routes, static_rules: addresses of the machine itself, which lbnode leaves alone. Pure.

They have no equal, but ip(8) takes nearly the same words: each line is listed with its command.
"""

from __future__ import annotations

from collections.abc import Mapping

from lbnode.config.keepalived.arguments import only
from lbnode.config.keepalived.ledger import Ledger
from lbnode.config.keepalived.tree import Directive

COMMANDS: Mapping[str, str] = {"static_ipaddress": "address", "static_routes": "route", "static_rules": "rule"}
_WORDS = {"gw": "via"}  # keepalived's -> ip's


def read_static(directive: Directive, ledger: Ledger) -> None:
    only(directive, 0)
    for line in directive.items:
        family = " -6" if any(":" in word for word in line.words) else ""
        command = f"ip{family} {COMMANDS[directive.name]} add {_as_ip_has_it(line)}"
        ledger.lacks(line, "no equal yet", f"have the machine do: {command}")


def _as_ip_has_it(line: Directive) -> str:
    """Without what only keepalived knows: track_group NAME, no_track."""
    words = list(line.words)
    if "track_group" in words:
        at = words.index("track_group")
        del words[at : at + 2]
    return " ".join(_WORDS.get(word, word) for word in words if word != "no_track")
