"""keepalived.conf of one gateway or of several -> one document. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbnode.config.imported import Imported, settled
from lbnode.config.keepalived.draft import Draft
from lbnode.config.keepalived.globals import Globals
from lbnode.config.keepalived.ledger import Readers
from lbnode.config.keepalived.lines import Include, Reader
from lbnode.config.keepalived.services import Services
from lbnode.config.keepalived.statics import COMMANDS, read_static
from lbnode.config.keepalived.tree import Directive, parse
from lbnode.config.keepalived.vrrp import Instances
from lbnode.config.vip_group_document import vip_address
from lbnode.model import Problem, ServiceId, Severity


@dataclass(frozen=True, slots=True)
class Source:
    """keepalived.conf of one gateway. `node` is its name in lbnode, and keepalived's config-id."""

    node: str
    name: str  # of the file, for messages
    text: str


def import_keepalived(sources: Sequence[Source], include: Include) -> Imported:
    """One document for the cluster; the result passes lbnode's own validation, whatever comes in."""
    problems: list[Problem] = []
    entries: dict[str, dict[str, Any]] = {}
    origins: dict[str, str] = {}
    drafts: list[Draft] = []
    taken = 0
    for source in sources:
        draft, found, count = _read(source, include)
        taken += count
        problems += found
        problems += _merge(entries, origins, draft)
        drafts.append(draft)
    problems += _only_somewhere(entries, origins, drafts)
    _refer_to_groups(entries)
    document, invalid = settled(entries, origins)
    return Imported(document, tuple(sorted({*problems, *invalid}, key=_order)), taken)


def _order(problem: Problem) -> tuple[str, int, int, str]:
    """By file, line and column."""
    match = re.fullmatch(r"(.*?)(?::(\d+))?(?::(\d+))?", problem.where, re.DOTALL)
    assert match is not None
    return match[1], int(match[2] or 0), int(match[3] or 0), problem.field


def _read(source: Source, include: Include) -> tuple[Draft, list[Problem], int]:
    reader = Reader(source.node, include)
    tree = parse(reader.lines(source.name, source.text))
    draft = Draft(source.node)
    instances = Instances(draft)
    definitions, services = Globals(draft, instances), Services(draft)
    # What others refer to comes first, wherever it stands.
    phases: Sequence[Mapping[str, Callable[[None, Directive], None]]] = (
        {"global_defs": lambda _, directive: definitions.read(directive)},
        {name: lambda _, directive: read_static(directive, draft.ledger) for name in COMMANDS},
        {"virtual_server_group": lambda _, directive: services.read_group(directive)},
        {"virtual_server": lambda _, directive: services.read_service(directive)},
        {"vrrp_instance": lambda _, directive: instances.read_instance(directive)},
        {"vrrp_sync_group": lambda _, directive: instances.read_sync_group(directive)},
    )
    known = {name for phase in phases for name in phase}
    for phase in phases:
        draft.ledger.read([item for item in tree.top if item.name in phase], phase, None, "the file")
    nothing: Readers[None] = {}
    draft.ledger.read([item for item in tree.top if item.name not in known], nothing, None, "the file")
    services.finish()
    instances.finish()
    definitions.finish()
    for directive in draft.ledger.forgotten(tree.top):
        draft.ledger.lacks(directive, "not looked at", "please report this")
    problems = [*reader.problems, *tree.problems, *draft.ledger.problems]
    return draft, problems, draft.ledger.taken_of(tree.top)


def _merge(entries: dict[str, dict[str, Any]], origins: dict[str, str], draft: Draft) -> list[Problem]:
    """Put a further gateway's documents to those of the first, which counts where they differ.

    Priorities and peers are each gateway's own view of one list.
    """
    problems = []
    for key, value in draft.entries.items():
        place = draft.origins[key]
        if key not in entries:
            entries[key], origins[key] = value, place
            continue
        there = entries[key]
        differing = sorted(
            name
            for name in (there.keys() | value.keys()) - {"priorities", "unicast_peers"}
            if there.get(name) != value.get(name)
        )
        if key.startswith("vip-groups/"):
            there["priorities"] |= value["priorities"]
            if peers := {*there.get("unicast_peers", ()), *value.get("unicast_peers", ())}:
                there["unicast_peers"] = sorted(peers)
        if differing:
            message = f"differs from {origins[key]} in {', '.join(differing)}"
            problems.append(Problem(place, key, message, "all gateways have one configuration: the first one counts"))
    return problems


def _only_somewhere(
    entries: Mapping[str, Any], origins: Mapping[str, str], drafts: Sequence[Draft]
) -> Iterator[Problem]:
    """What not every gateway has, but every one will have."""
    for key in entries:
        nodes = [draft.node for draft in drafts if key in draft.entries]
        if len(nodes) < len(drafts):
            message = f"only on {', '.join(nodes)} so far"
            yield Problem(origins[key], key, message, "all gateways have one configuration", Severity.WARNING)


def _refer_to_groups(entries: dict[str, dict[str, Any]]) -> None:
    """Services name the VIP group that holds their address."""
    holders = {
        vip_address(text).address: key.removeprefix("vip-groups/")
        for key, value in entries.items()
        if key.startswith("vip-groups/")
        for text in value["addresses"]
    }
    for key, value in entries.items():
        if key.startswith("services/") and "/servers/" not in key:
            address = ServiceId.parse(key.removeprefix("services/")).address
            if address in holders:
                value["vip_group"] = holders[address]
