"""Reading and writing sysctls of the network namespace that this process runs in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lbnode.errors import DataPlaneError
from lbnode.tuning.profile import NEW_PREFIX, Setting

ROOT = Path("/proc/sys")


@dataclass(frozen=True, slots=True)
class SysctlFinding:
    key: str  # present name, e.g. net.netfilter.nf_conntrack_tcp_timeout_established
    wanted: str
    actual: str | None  # None: this kernel has no such key here
    note: str = ""  # where the name comes from, or why there is no value

    @property
    def ok(self) -> bool:
        return self.actual is None or self.actual == self.wanted


def interfaces(root: Path = ROOT) -> tuple[str, ...]:
    """Names of this namespace's network interfaces, without the loopback."""
    try:
        names = sorted(path.name for path in (root / "net/ipv4/conf").iterdir())
    except FileNotFoundError:
        return ()
    return tuple(name for name in names if name not in ("all", "default", "lo"))


def check(settings: Iterable[Setting], root: Path = ROOT) -> tuple[SysctlFinding, ...]:
    """Compare; a key that this kernel does not have is reported with the likely reason, never an error."""
    return tuple(_check(setting, root) for setting in settings)


def apply(settings: Iterable[Setting], root: Path = ROOT) -> tuple[SysctlFinding, ...]:
    """Write what differs and return what was found before. DataPlaneError names the key that was refused."""
    before = check(settings, root)
    for finding in before:
        if not finding.ok:
            try:
                _path(finding.key, root).write_text(finding.wanted + "\n")
            except OSError as error:
                raise DataPlaneError(
                    f"{finding.key} = {finding.wanted}: {error.strerror}; is /proc/sys writable for this process?",
                    error.errno,
                ) from error
    return before


def _check(setting: Setting, root: Path) -> SysctlFinding:
    was = f"was {setting.old_name}" if setting.old_name else ""
    try:
        actual = " ".join(_path(setting.key, root).read_text().split())
    except FileNotFoundError:
        return SysctlFinding(setting.key, setting.value, None, "; ".join(filter(None, (was, _absent(setting.key)))))
    except OSError as error:
        return SysctlFinding(setting.key, setting.value, None, f"not readable: {error.strerror}")
    return SysctlFinding(setting.key, setting.value, actual, was)


def _absent(key: str) -> str:
    if key.startswith(NEW_PREFIX):
        return "connection tracking is not loaded here (nf_conntrack); nothing to tune"
    return "not in this network namespace (a setting of the whole machine), or not in this kernel"


def _path(key: str, root: Path) -> Path:
    """sysctl(8): dots separate, and a slash stands for a dot in an interface's name."""
    return root / key.translate({ord("."): "/", ord("/"): "."})
