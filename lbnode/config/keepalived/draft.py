"""The document while it is being made. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lbnode.config.fields import NAME
from lbnode.config.keepalived.ledger import Ledger, NoEqual
from lbnode.config.keepalived.tree import Directive


def name_for(text: str, directive: Directive, ledger: Ledger) -> str:
    """keepalived takes any word as a name."""
    if NAME.fullmatch(text):
        return text
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in text)[:60]
    kept = kept if kept[:1].isalnum() else f"g{kept}"
    ledger.note(directive, f"is called {kept} in lbnode", "names have letters, digits, '.', '_', '-', at most 63")
    return kept


@dataclass(slots=True)
class Draft:
    """What all readers of one gateway's configuration write to."""

    node: str
    ledger: Ledger = field(default_factory=Ledger)
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)  # documents by key
    origins: dict[str, str] = field(default_factory=dict)  # file:line:col, by key

    def put(self, key: str, value: dict[str, Any], directive: Directive) -> None:
        if key in self.entries:
            raise NoEqual(f"{key} stands twice, first at {self.origins[key]}", "the first one counts")
        self.entries[key] = value
        self.origins[key] = directive.place

    def setting(self, name: str, value: Any, directive: Directive) -> None:
        """One field of settings; the first directive that sets one is where they come from."""
        self.origins.setdefault("settings", directive.place)
        self.entries.setdefault("settings", {})[name] = value
