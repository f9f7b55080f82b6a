"""Store entries -> the Config in force, every problem, and the values that are good. Pure.

A value that is wrong (malformed, out of range, or at odds with other keys) never unloads what worked: the key's last
good value stays in force until the key is corrected or deleted. Deleting a key deletes the object, with one exception:
a check that services still refer to stays in force for them, since without it they could not stay as they are.

The unit of work is one service with its servers. `resolve` passes on the units, services and groups of the previous
Resolution that are untouched, so a change costs what it touches (plus one comparison of all keys by identity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain

from healthcheck.spec import CheckSpec
from lbnode.config import build
from lbnode.config.check_document import CheckDocument
from lbnode.config.good import last_good_of
from lbnode.config.keys import is_config_key, parse_key
from lbnode.config.schema import SettingsDocument
from lbnode.config.units import Surroundings, Unit, resolve_unit
from lbnode.config.vip_groups import Groups, resolve_groups
from lbnode.delta import changed_keys
from lbnode.model import Config, Problem, ServiceId, Settings, VirtualService
from lbnode.store.base import Entry

_NOTHING: Mapping[str, Entry] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Resolution:
    """What `resolve` found. `good` is what belongs into the disk cache, and is `last_good` of a later process."""

    config: Config = field(default_factory=Config)
    problems: tuple[Problem, ...] = ()  # sorted by key
    # What the next resolve starts from:
    entries: Mapping[str, Entry] = field(default_factory=dict, repr=False)
    units: Mapping[str, Unit] = field(default_factory=dict, repr=False)  # by the text of the service id
    groups: Groups = field(default_factory=Groups, repr=False)
    checks: Mapping[str, Check] = field(default_factory=dict, repr=False)
    settings: tuple[Entry | None, tuple[Problem, ...]] = field(default=(None, ()), repr=False)
    bad_keys: Mapping[str, Problem] = field(default_factory=dict, repr=False)

    @property
    def good(self) -> Mapping[str, Entry]:
        """The value in force of each key that has one. Built on each use."""
        good = dict(chain.from_iterable(unit.good.items() for unit in self.units.values()))
        good.update(self.groups.good)
        good.update({f"checks/{name}": check.entry for name, check in self.checks.items() if check.entry})
        if self.settings[0] is not None:
            good["settings"] = self.settings[0]
        return good


@dataclass(frozen=True, slots=True)
class Check:
    """checks/NAME. `entry` is the value in force; `deleted`: the key is gone, but services still refer to it."""

    entry: Entry | None
    spec: CheckSpec | None
    problems: tuple[Problem, ...] = ()
    deleted: bool = False


def resolve(
    entries: Mapping[str, Entry], last_good: Resolution | Mapping[str, Entry] = _NOTHING, revision: int | None = None
) -> Resolution:
    """Resolve all entries of a store view.

    entries: relative key -> value and revision; keys under nodes/ are ignored.
    last_good: the previous Resolution, or at start the `good` entries that the disk cache held.
    revision: of the view; default: the newest among the entries.
    """
    if isinstance(last_good, Resolution):
        previous, cached = last_good, _NOTHING
    else:
        previous, cached = Resolution(), last_good
    if revision is None:
        revision = max((entry.revision for entry in entries.values()), default=0)
    changed = {key for key in changed_keys(previous.entries, entries) if is_config_key(key)}
    work = _Work(entries, previous, cached)
    work.sort_keys(changed)
    groups = work.resolve_groups()
    checks, stale_checks = work.resolve_checks()
    units = work.resolve_units(checks, groups, stale_checks)
    checks = _drop_unused(checks, units)
    settings, settings_state = work.resolve_settings()
    config = Config(revision, work.services(units), groups.in_force, settings)
    problems = chain(
        work.bad_keys.values(),
        chain.from_iterable(unit.problems for unit in units.values()),
        groups.problems,
        chain.from_iterable(check.problems for check in checks.values()),
        settings_state[1],
    )
    ordered = tuple(sorted(problems, key=lambda problem: (problem.where, problem.field, problem.message)))
    return Resolution(config, ordered, entries, units, groups, checks, settings_state, work.bad_keys)


class _Work:
    """One run of resolve: the changed keys sorted by what they concern."""

    def __init__(self, entries: Mapping[str, Entry], previous: Resolution, cached: Mapping[str, Entry]) -> None:
        self.entries = entries
        self.previous = previous
        self.cached = cached
        self.bad_keys = dict(previous.bad_keys)
        self.changed: dict[str, set[str]] = {"vip-groups": set(), "checks": set(), "settings": set()}
        self.changed_units: dict[str, list[str]] = {}

    def sort_keys(self, changed: set[str]) -> None:
        for key in changed:
            self.bad_keys.pop(key, None)
            try:
                parsed = parse_key(key)
            except ValueError as error:
                if key in self.entries:
                    self.bad_keys[key] = Problem(key, "", f"invalid key: {error}")
                continue
            if parsed.service is not None:
                self.changed_units.setdefault(str(parsed.service), []).append(key)
            else:
                self.changed[parsed.kind].add(parsed.name)
        # At start the disk cache may hold checks that the store no longer has, but services of the cache refer to.
        for key in self.cached:
            if key.startswith("checks/"):
                self.changed["checks"].add(key.removeprefix("checks/"))

    def resolve_groups(self) -> Groups:
        if not self.changed["vip-groups"]:
            return self.previous.groups
        last_good = self.previous.groups.good or {k: e for k, e in self.cached.items() if k.startswith("vip-groups/")}
        current = {key: entry for key, entry in self.entries.items() if key.startswith("vip-groups/")}
        current = {key: entry for key, entry in current.items() if key not in self.bad_keys}
        return resolve_groups(current, last_good, self.previous.groups)

    def resolve_checks(self) -> tuple[Mapping[str, Check], set[str]]:
        """All checks, and the names of those whose users have to be resolved again."""
        if not self.changed["checks"]:
            return self.previous.checks, set()
        checks = dict(self.previous.checks)
        for name in self.changed["checks"]:
            key = f"checks/{name}"
            before = checks.pop(name, None)
            good = before.entry if before else self.cached.get(key)
            current = self.entries.get(key)
            entry, parsed, problems = last_good_of(key, current, good)
            if entry is None and current is None:
                continue
            spec = build.check_spec(parsed) if isinstance(parsed, CheckDocument) else None
            if before and before.spec == spec:
                spec = before.spec
            checks[name] = Check(entry, spec, problems, deleted=current is None)
        return checks, self.changed["checks"]

    def resolve_units(self, checks: Mapping[str, Check], groups: Groups, stale_checks: set[str]) -> dict[str, Unit]:
        units = dict(self.previous.units)
        around = Surroundings(
            {name: check.spec for name, check in checks.items() if not check.deleted},
            {name: check.spec for name, check in checks.items() if check.deleted},
            groups,
        )
        todo = dict(self.changed_units)
        if stale_checks or groups is not self.previous.groups:
            for text, unit in units.items():
                # With problems: what is in force may refer to other things than the value that was refused.
                if unit.problems or unit.check_name in stale_checks or unit.vip_group is not None:
                    todo.setdefault(text, [])
        for text, keys in todo.items():
            unit = resolve_unit(text, keys, self.entries, units.get(text), self.cached, around)
            if unit.entries:
                units[text] = unit
            else:
                units.pop(text, None)
        self.touched_units = todo
        return units

    def services(self, units: Mapping[str, Unit]) -> Mapping[ServiceId, VirtualService]:
        if not self.touched_units:
            return self.previous.config.services
        services = dict(self.previous.config.services)
        for text in self.touched_units:
            unit = units.get(text)
            service_id = ServiceId.parse(text)
            if unit is not None and unit.service is not None:
                services[service_id] = unit.service
            else:
                services.pop(service_id, None)
        return services

    def resolve_settings(self) -> tuple[Settings, tuple[Entry | None, tuple[Problem, ...]]]:
        if not self.changed["settings"]:
            return self.previous.config.settings, self.previous.settings
        good = self.previous.settings[0] or self.cached.get("settings")
        current = self.entries.get("settings")
        if current is None:
            return Settings(), (None, ())
        entry, document, problems = last_good_of("settings", current, good)
        settings = build.settings(document) if isinstance(document, SettingsDocument) else Settings()
        return settings, (entry, problems)


def _drop_unused(checks: Mapping[str, Check], units: Mapping[str, Unit]) -> Mapping[str, Check]:
    """Deleted checks go with their last user."""
    deleted = {name for name, check in checks.items() if check.deleted}
    if not deleted:
        return checks
    used = {unit.check_name for unit in units.values()}
    return {name: check for name, check in checks.items() if name not in deleted or name in used}
