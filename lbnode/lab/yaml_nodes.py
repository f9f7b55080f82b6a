"""Values out of YAML, each error with file:line; variables, durations and merges as Compose has them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from lbnode.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"


def duration(text: str) -> float:
    """Seconds of a Compose duration: `2s`, `1m30s`, `250ms`. ValueError if it is none."""
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
    if not re.fullmatch(r"(\d+(\.\d+)?(us|ms|s|m|h))+", text):
        raise ValueError(f"{text!r} is not a duration such as 2s, 1m30s or 250ms")
    return sum(float(number) * units[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(us|ms|s|m|h)", text))


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """`$VAR`, `${VAR}`, `${VAR:-default}`, `${VAR-default}`, `${VAR:?message}` and `$$`, as Compose replaces them."""

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "$"
        name = match["plain"] or match["braced"]
        if name is None:
            raise ValueError(f"{match[0]!r} is not a variable Compose knows; write $$ for a dollar sign")
        found, operator, operand = environment.get(name), match["operator"] or "", match["operand"] or ""
        missing = found is None or (found == "" and operator.startswith(":"))
        if not missing:
            return str(found)
        if operator.endswith("?"):
            raise ValueError(f"variable {name} is required: {operand}")
        return operand

    pattern = (
        r"\$(?:(?P<escaped>\$)|(?P<plain>[A-Za-z_]\w*)"
        r"|\{(?P<braced>[A-Za-z_]\w*)(?:(?P<operator>:?[-?])(?P<operand>[^}]*))?\}|(?P<bad>.?))"
    )
    return re.sub(pattern, value, text)


@dataclass(frozen=True, slots=True)
class NodeReader:
    """Walks PyYAML's node graph, because nodes know their line and plain Python values do not."""

    filename: str
    environment: Mapping[str, str]

    def fail(self, node: yaml.Node, message: str) -> ConfigError:
        return ConfigError(f"{self.filename}:{node.start_mark.line + 1}: {message}")

    def scalar(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self.fail(node, "expected one value here, not a list or mapping")
        try:
            return interpolate(node.value, self.environment)
        except ValueError as error:
            raise self.fail(node, str(error)) from error

    def boolean(self, node: yaml.Node) -> bool:
        text = self.scalar(node)
        if text not in ("true", "false"):
            raise self.fail(node, f"expected true or false, not {text!r}")
        return text == "true"

    def seconds(self, node: yaml.Node) -> float:
        try:
            return duration(self.scalar(node))
        except ValueError as error:
            raise self.fail(node, str(error)) from error

    def integer(self, node: yaml.Node, low: int, high: int) -> int:
        text = self.scalar(node)
        if not text.isdecimal() or not low <= int(text) <= high:
            raise self.fail(node, f"expected a number from {low} to {high}, not {text!r}")
        return int(text)

    def sequence(self, node: yaml.Node) -> list[yaml.Node]:
        if not isinstance(node, yaml.SequenceNode):
            raise self.fail(node, "expected a list here")
        return list(node.value)

    def mapping(self, node: yaml.Node) -> dict[str, yaml.Node]:
        """Keys and value nodes, with `<<` merged in; a key written here wins over a merged one (YAML merge type)."""
        if not isinstance(node, yaml.MappingNode):
            raise self.fail(node, "expected a mapping here")
        own: dict[str, yaml.Node] = {}
        merged: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    merged = self.mapping(source) | merged
            elif key.value in own:
                raise self.fail(key, f"{key.value!r} is written twice in one mapping")
            else:
                own[str(key.value)] = value
        return merged | own

    def pairs(self, node: yaml.Node, separator: str = "=") -> dict[str, str]:
        """`{KEY: value}` or `["KEY=value"]`: Compose allows both."""
        if isinstance(node, yaml.MappingNode):
            return {key: self.scalar(value) for key, value in self.mapping(node).items()}
        result = {}
        for item in self.sequence(node):
            key, found, value = self.scalar(item).partition(separator)
            if not found:
                raise self.fail(item, f"expected KEY{separator}VALUE, not {key!r}")
            result[key] = value
        return result

    def known(self, node: yaml.Node, what: str, *keys: str) -> dict[str, yaml.Node]:
        """A mapping that may hold only these keys and x- extensions."""
        found = {key: value for key, value in self.mapping(node).items() if not key.startswith("x-")}
        for key, value in found.items():
            if key not in keys:
                raise self.fail(value, f"{what}: the lab does not support {key!r} (it knows: {', '.join(keys)})")
        return found
