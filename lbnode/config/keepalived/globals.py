"""global_defs -> settings: keepalived.conf(5), Global definitions. Pure."""

from __future__ import annotations

from typing import Any

from lbnode.config.fields import MAX_SECONDS
from lbnode.config.keepalived.arguments import address, number, only, whole
from lbnode.config.keepalived.draft import Draft
from lbnode.config.keepalived.ledger import NoEqual, Readers
from lbnode.config.keepalived.tree import Directive
from lbnode.config.keepalived.vrrp import Instances

_DAEMON_OPTIONS = {  # name in the document, lowest, highest value
    "id": ("syncid", 0, 255),
    "maxlen": ("maxlen", 1, 65507),
    "port": ("port", 1, 65535),
    "ttl": ("ttl", 1, 255),
}


class Globals:
    """Read before the instances; `finish` after them: the synchronisation daemon may follow one's state.

    In lbnode it follows the states of all VIP groups.
    """

    def __init__(self, draft: Draft, instances: Instances) -> None:
        self._draft = draft
        self._instances = instances
        self._daemon: tuple[Directive, dict[str, Any], str | None] | None = None

    def read(self, directive: Directive) -> None:
        only(directive, 0)
        readers: Readers[Globals] = {
            "lvs_timeouts": Globals._timeouts,
            "lvs_flush": Globals._flush,
            "lvs_sync_daemon": Globals._sync_daemon,
            "vrrp_version": Globals._version,
        }
        self._draft.ledger.read(directive.items, readers, self, "global_defs")

    def finish(self) -> None:
        for instance in self._instances.by_name.values():
            if instance.sync_interface is not None and self._daemon is None:
                self._daemon = instance.directive, {"interface": instance.sync_interface}, instance.name
        if self._daemon is None:
            return
        directive, daemon, name = self._daemon
        if name is not None:
            named = self._instances.by_name.get(name)
            if named is None:
                self._draft.ledger.lacks(directive, f"there is no vrrp_instance {name}, or it has no equal")
                return
            daemon.setdefault("syncid", named.vrid)  # keepalived.conf(5), lvs_sync_daemon
        daemons: dict[str, Any] = {"master": daemon, "backup": dict(daemon)}
        if name is not None:
            daemons["by_role"] = True
        self._draft.setting("sync_daemons", daemons, directive)

    def _timeouts(self, directive: Directive) -> None:
        """lvs_timeouts [tcp SECS] [tcpfin SECS] [udp SECS]"""
        names = {"tcp": "tcp", "tcpfin": "tcp_fin", "udp": "udp"}
        found: dict[str, int] = {}
        words = list(only(directive, 2, 6))
        while words:
            name = words.pop(0)
            if name not in names or not words:
                raise NoEqual(f"{name!r} is none of tcp SECONDS, tcpfin SECONDS, udp SECONDS")
            found[names[name]] = whole(words.pop(0), 1, MAX_SECONDS)
        self._draft.setting("timeouts", found, directive)

    def _flush(self, directive: Directive) -> None:
        only(directive, 0)
        self._draft.setting("foreign_services", "remove", directive)

    def _version(self, directive: Directive) -> None:
        self._instances.default_version = number(directive, 2, 3)

    def _sync_daemon(self, directive: Directive) -> None:
        """lvs_sync_daemon INTERFACE [[inst] VRRP_INSTANCE] [id N] [maxlen N] [port N] [ttl N] [group ADDRESS]"""
        if self._daemon is not None:
            raise NoEqual("stands twice", "the first one counts")
        interface, *words = only(directive, 1, 13)
        daemon: dict[str, Any] = {"interface": interface}
        instance = None
        while words:
            match words:
                case ["inst", name, *rest]:
                    instance = name
                case [("id" | "maxlen" | "port" | "ttl") as option, value, *rest]:
                    name, low, high = _DAEMON_OPTIONS[option]
                    daemon[name] = whole(value, low, high)
                case ["group", value, *rest]:
                    daemon["group"] = str(address(value))
                case [name, *rest] if instance is None:
                    instance = name
                case _:
                    raise NoEqual(f"{words[0]!r} is no option of lvs_sync_daemon")
            words = rest
        self._daemon = directive, daemon, instance
