"""The state machine as a picture, drawn from its own table. Pure."""

from __future__ import annotations

from lbnode.election.events import Input
from lbnode.election.machine import TRANSITIONS, Action, Machine
from lbnode.model import VrrpState

# Where each action leads; None: the state stays.
_LEADS_TO: dict[Action, VrrpState] = {
    Machine._begin: VrrpState.BACKUP,
    Machine._take_over: VrrpState.ACTIVE,
    Machine._yield_role: VrrpState.BACKUP,
    Machine._step_down: VrrpState.BACKUP,
    Machine._hand_over: VrrpState.BACKUP,
    Machine._give_up: VrrpState.BACKUP,
    Machine._release: VrrpState.INITIALIZE,
    Machine._leave: VrrpState.INITIALIZE,
}
_MEANS = {
    Input.START: "start",
    Input.RESUME: "resume",
    Input.TIMER: "timer fires",
    Input.RELEASE: "priority 0",
    Input.SUPERIOR: "better advertisement",
    Input.EQUAL: "same priority, lower address",
    Input.INFERIOR: "worse advertisement",
    Input.DARK: "did not run for 2.5 intervals",
    Input.HANDOVER: "failover requested",
    Input.FENCED: "may not hold",
    Input.STOP: "stop",
}


def dot() -> str:
    """For Graphviz: one edge for each row of TRANSITIONS; a sole member goes from start to active at once."""
    edges: dict[tuple[str, str], list[str]] = {}
    for (state, kind), action in TRANSITIONS.items():
        to = _LEADS_TO.get(action, state)
        edges.setdefault((state, to), []).append(f"{_MEANS[kind]} / {action.__name__.strip('_').replace('_', ' ')}")
    lines = []
    for (source, target), labels in edges.items():
        label = "\\n".join(labels)
        lines.append(f'  {source} -> {target} [label="{label}"];')
    return "\n".join(["digraph election {", "  node [shape=box];", *lines, "}", ""])
