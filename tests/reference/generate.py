"""Command lines for ipvsadm, right and wrong ones: a seeded walk through its grammar. Pure.

Most commands are about few services and servers, so that they meet each other; about one in six has something wrong:
an option too many, one missing, one twice, a value out of range, a word that is none.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

SERVICES = (
    ("t", "192.0.2.1:80"), ("t", "192.0.2.1:80"), ("t", "192.0.2.1:443"), ("t", "192.0.2.1"), ("t", "192.0.2.1:0"),
    ("t", "vip.example:http"), ("t", "vip.example"), ("u", "192.0.2.1:53"), ("u", "192.0.2.1:80"),
    ("u", "vip.example:domain"), ("u", "a-very-long-virtual-host-name.example:tftp"),
    ("t", "a-very-long-virtual-host-name.example:8080"), ("sctp-service", "192.0.2.1:80"), ("t", "[2001:db8::80]:80"),
    ("t", "2001:db8::80"), ("u", "[2001:db8::53]:domain"), ("f", "1"), ("f", "1"), ("f", "7"), ("f", "4294967295"),
    ("f", "3000000000"),
)  # fmt: skip
ODD_ADDRESSES = (
    "", "80", ":80", "192.0.2.1:", "192.0.2.1:99999", "192.0.2.1:-1", "192.0.2.1:+80", "192.0.2.1: 80",
    "192.0.2.1:080", "192.0.2.1:nosuch", "192.0.2", "3221225985:80", "0xc0.0.2.1:80", "0300.0.2.1:80",
    "192.0.2.256:80", "nosuch.example:80", "[2001:db8::80]", "[2001:db8::80", "[2001:db8::80]80", "[192.0.2.1]:80",
    "[vip.example]:80", "[2001:db8::80]:http", "2001:db8::80:80", "[::]:80", "[fe80::1]:80", "[ff02::1]:80",
    "[::ffff:192.0.2.1]:80", "0.0.0.0:80", "224.0.0.1:80", "255.255.255.255:80", "127.0.0.1:80", "240.0.0.1:80",
    "192.0.2.1:80:80", "192.0.2.1 :80", "192.0.2.1:ssh", "1.2.3.4.5:80", "192.0.2.1:0x50", "[2001:DB8::80]:80",
    "[2001:db8::80%lo]:80", "[]:80", "[:]:80", ":", "-", "vip.example:80:", "0:80", "[2001:db8::192.0.2.1]:80",
    "10.0.0.1:80", "localhost:80",
)  # fmt: skip
SERVERS = (
    "198.51.100.1", "198.51.100.1", "198.51.100.1:80", "198.51.100.2", "198.51.100.2:8080", "web1.example",
    "web2.example:http", "a-very-long-real-server-name.example:https", "[2001:db8::1]:80", "2001:db8::1",
    "2001:db8::2", "198.51.100.3:0",
)  # fmt: skip
SCHEDULERS = (
    "rr", "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sh", "mh", "mh", "sed", "nq", "fo", "ovf",
)  # fmt: skip
ODD_SCHEDULERS = ("", "nosuch", "RR", "a-name-of-more-than-fifteen", "rr ", "../rr")
FLAGS = ("sh-fallback", "sh-port", "mh-fallback", "mh-port", "flag-1", "flag-2", "flag-3")
ODD_FLAGS = ("nosuch", "", "flag-4", "sh-port,nosuch", "flag-1,,flag-2", "SH-PORT", " flag-1")
NUMBERS = ("0", "1", "2", "5", "100", "255")
ODD_NUMBERS = (
    "", "-1", "+3", "010", "0x10", "1.5", " 7", "7 ", "x", "256", "65535", "65536", "2147483647", "2147483648",
    "2678400", "2678401", "4294967295", "4294967296", "9223372036854775808", "99999999999999999999", "\t9", "65507",
    "65508", "1e3", "-0",
)  # fmt: skip
MASKS = ("255.255.255.0", "255.255.255.255", "255.0.0.0", "255.0.255.0", "0.0.0.0", "64", "128", "1")
ODD_MASKS = (
    "",
    "x",
    "0",
    "129",
    "-1",
    "255.255",
    "24",
    "vip.example",
    "64x",
    " 64",
    "0xffffff00",
    "256.0.0.0",
    "2001:db8::1",
)
GROUPS = ("224.0.0.81", "224.0.0.18", "ff02::81", "239.255.255.255")
ODD_GROUPS = ("10.0.0.1", "fe80::1", "", "x", "224.0.0", "ff02::81%lo", "224.0.0.1:80", "240.0.0.1")
INTERFACES = ("dummy0", "lo", "dummy0")
ODD_INTERFACES = ("", "nosuch", "a-name-of-more-than-fifteen", "eth0")
TUNNELS = ("ipip", "gue", "gre")
ODD_TUNNELS = ("", "GUE", "vxlan")
ENGINES = ("sip", "nosuch", "", "a-name-of-16-byte", "fifteen-letters", "sixteen--letters", "seventeen-letters")
WORDS = (
    "-q", "--nosuch", "--num", "--", "-", "foo", "-n=", "--numeric=1", "-t", "--weight", "-A", "-L", "--list", "-6",
    "-nn", "-5", "--sort", "-X", "--exact", "-c", "--stats=", "-h", "-v", "--help", "--tcp", "-p", "-pX", "-m-", "",
)  # fmt: skip

# Options that stand for themselves, by letter or long name.
LONG = {
    "A": "add-service", "E": "edit-service", "D": "delete-service", "C": "clear", "L": "list", "l": "list", "Z": "zero",
    "a": "add-server", "e": "edit-server", "d": "delete-server", "R": "restore", "S": "save", "t": "tcp-service",
    "u": "udp-service", "f": "fwmark-service", "s": "scheduler", "p": "persistent", "M": "netmask", "r": "real-server",
    "m": "masquerading", "i": "ipip", "g": "gatewaying", "w": "weight", "x": "u-threshold", "y": "l-threshold",
    "n": "numeric", "c": "connection", "X": "exact", "6": "ipv6", "o": "ops", "b": "sched-flags",
}  # fmt: skip
VIEWS = ("stats", "rate", "thresholds", "persistent-conn", "tun-info", "nosort", "sort", "X", "n", "n", "n")


class Walk:
    """One seed, one sequence of commands; odd seeds make no scripts for -R, which lbadm on a node does otherwise."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._scripts = seed % 2 == 0
        self._known: list[list[Option]] = []  # services that were added, probably

    def steps(self, count: int) -> Iterator[dict[str, Any]]:
        """Step = cmd and stdin, as a case has them. Every third or so looks at what the others did."""
        for _ in range(count):
            if self._scripts and self._chance(0.12):
                yield {"cmd": shlex.join(["ipvsadm", *self._spelled([("R", None)])]), "stdin": self.script()}
            elif self._scripts and self._chance(0.06):
                yield {"cmd": "ipvsadm-restore", "stdin": self.script()}
            else:
                yield {"cmd": shlex.join(["ipvsadm", *self.command()]), "stdin": None}
            if self._chance(0.3):
                looking = self._pick(("ipvsadm -Ln", "ipvsadm -Sn", "ipvsadm -S", "ipvsadm -L", "ipvsadm-save -n"))
                yield {"cmd": looking, "stdin": None}

    def script(self) -> str:
        """Lines for -R: also blank ones, comments, CR LF, no newline at the end."""
        lines = []
        for _ in range(self._random.randint(0, 6)):
            words = self.command(spaces=False)
            if any("stop-daemon" in word for word in words):
                continue  # ipvsadm waits for ever after stopping one that it has just started
            if self._chance(0.2):
                words.insert(0, "ipvsadm")
            lines.append(self._pick((" ", " ", "  ", "\t")).join(words))
            if self._chance(0.1):
                lines.append(self._pick(("", "   ", "# a comment", "\t", "ipvsadm")))
        end = self._pick(("\n", "\n", "\n", "\r\n"))
        return end.join(lines) + ("" if self._chance(0.15) else end)

    def command(self, *, spaces: bool = True) -> list[str]:
        """`spaces`: whether a word may have some, or be empty."""
        kinds = (
            *(self._add_service,) * 8, *(self._edit_service,) * 3, *(self._add_server,) * 10, *(self._edit_server,) * 4,
            *(self._delete,) * 2, *(self._list,) * 6, *(self._daemon,) * 3, self._set, self._zero, self._plain,
        )  # fmt: skip
        options = self._pick(kinds)()
        command, rest = options[:1], list(options[1:])
        if self._chance(0.4):
            self._random.shuffle(rest)
        if self._chance(0.08):
            rest.insert(self._random.randint(0, len(rest)), self._any_option())
        if rest and self._chance(0.03):
            rest.insert(self._random.randint(0, len(rest)), self._pick(rest))
        if rest and self._chance(0.03):
            del rest[self._random.randrange(len(rest))]
        words = self._spelled([*command, *rest])
        if self._chance(0.04):
            words.insert(self._random.randint(0, len(words)), self._pick(WORDS))
        return words if spaces else [word for word in words if word and not any(c in word for c in " \t\n\r")]

    # --- commands: lists of (option, value or None) ---------------------------------------------------------------

    def _add_service(self) -> list[Option]:
        service = self._service(known=False)
        self._known.append(service)
        return [("A", None), *service, *self._service_options()]

    def _edit_service(self) -> list[Option]:
        return [("E", None), *self._service(), *self._service_options()]

    def _add_server(self) -> list[Option]:
        return self._with_server("a")

    def _edit_server(self) -> list[Option]:
        return self._with_server("e")

    def _with_server(self, command: str) -> list[Option]:
        service, options = self._service(), self._server_options()
        inet6 = any(option == "6" or ":" in (value or "").partition(":")[2] for option, value in service)
        either = ("i", None) in options
        fitting = [server for server in SERVERS if either or inet6 == (server.count(":") > 1)]
        server = self._value(fitting if self._chance(0.95) else SERVERS, ODD_ADDRESSES, 0.06)
        return [(command, None), *service, ("r", server), *options]

    def _delete(self) -> list[Option]:
        if self._chance(0.4):
            return [("D", None), *self._service()]
        return [("d", None), *self._service(), *self._server()]

    def _list(self) -> list[Option]:
        options: list[Option] = [(self._pick("Ll"), None)]
        if self._chance(0.25):
            options += self._service()
        if self._chance(0.15):
            options.append((self._pick(("c", "timeout", "daemon")), None))
        return [*options, *((view, None) for view in self._random.sample(VIEWS, self._random.randint(0, 3)))]

    def _daemon(self) -> list[Option]:
        state = self._value(("master", "backup"), ("", "Master", "both"))
        if self._chance(0.35):
            return [("stop-daemon", state), *self._some(0.2, "syncid", NUMBERS, ODD_NUMBERS)]
        return [
            ("start-daemon", state),
            *self._some(0.85, "mcast-interface", INTERFACES, ODD_INTERFACES),
            *self._some(0.4, "syncid", NUMBERS, ODD_NUMBERS),
            *self._some(0.3, "sync-maxlen", ("1", "500", "1024", "1472", "9000", "65507"), ODD_NUMBERS),
            *self._some(0.3, "mcast-group", GROUPS, ODD_GROUPS),
            *self._some(0.2, "mcast-port", ("1", "8848", "65535"), ODD_NUMBERS),
            *self._some(0.2, "mcast-ttl", ("1", "255"), ODD_NUMBERS),
        ]

    def _set(self) -> list[Option]:
        values = [self._value(("0", "5", "900", "2678400"), ODD_NUMBERS) for _ in range(self._pick((3, 3, 3, 2, 4)))]
        return [("set", None), *(("", value) for value in values)]

    def _zero(self) -> list[Option]:
        return [("Z", None), *(self._service() if self._chance(0.5) else ())]

    def _plain(self) -> list[Option]:
        return [(self._pick("CSS"), None), *((("n", None),) if self._chance(0.4) else ())]

    # --- options --------------------------------------------------------------------------------------------------

    def _service(self, *, known: bool = True) -> list[Option]:
        if known and self._known and self._chance(0.85):
            return list(self._pick(self._known))
        option, value = self._pick(SERVICES)
        if option == "f":
            mark: Option = ("f", self._value((value,), ODD_NUMBERS, 0.06))
            return [mark, ("6", None)] if self._chance(0.3) else [mark]
        return [(option, self._value((value,), ODD_ADDRESSES, 0.06))]

    def _server(self) -> list[Option]:
        return [("r", self._value(SERVERS, ODD_ADDRESSES, 0.06))]

    def _service_options(self) -> list[Option]:
        options = self._some(0.8, "s", SCHEDULERS, ODD_SCHEDULERS)
        if self._chance(0.35):
            times = ("1", "60", "360", "2678400")
            options.append(("p", None if self._chance(0.4) else self._value(times, ODD_NUMBERS)))
        options += self._some(0.2, "M", MASKS, ODD_MASKS)
        options += self._some(0.04, "pe", ENGINES, ())
        options += [("o", None)] if self._chance(0.1) else []
        if self._chance(0.2):
            flags = self._random.sample(FLAGS, self._random.randint(1, 3))
            scheduler = dict(options).get("s")
            if scheduler in ("sh", "mh") and self._chance(0.8):
                flags = [f"{scheduler}-fallback", f"{scheduler}-port"][: self._random.randint(1, 2)]
            options.append(("b", self._value((",".join(flags),), ODD_FLAGS)))
        return options

    def _server_options(self) -> list[Option]:
        options: list[Option] = []
        method = self._pick(("m", "m", "g", "i", "i", None))
        if method:
            options.append((method, None))
        options += self._some(0.4, "w", NUMBERS, ODD_NUMBERS)
        options += self._some(0.15, "x", ("0", "50", "100"), ODD_NUMBERS)
        options += self._some(0.12, "y", ("0", "50"), ODD_NUMBERS)
        if self._chance(0.5 if method == "i" else 0.03):
            kind = self._value(TUNNELS, ODD_TUNNELS)
            options.append(("tun-type", kind))
            options += self._some(0.9 if kind == "gue" else 0.1, "tun-port", ("1", "6080", "65535"), ODD_NUMBERS)
        for checksum in ("tun-nocsum", "tun-csum", "tun-remcsum"):
            options += [(checksum, None)] if self._chance(0.12 if method == "i" else 0.01) else []
        return options

    def _any_option(self) -> Option:
        wrong = (
            ("n", None), ("c", None), ("s", "rr"), ("p", "5"), ("M", "255.0.0.0"), ("r", "198.51.100.1"), ("m", None),
            ("g", None), ("w", "1"), ("x", "1"), ("y", "1"), ("mcast-interface", "lo"), ("timeout", None),
            ("daemon", None), ("stats", None), ("rate", None), ("thresholds", None), ("persistent-conn", None),
            ("nosort", None), ("syncid", "1"), ("X", None), ("o", None), ("pe", "sip"), ("b", "flag-1"),
            ("mcast-group", "224.0.0.1"), ("mcast-port", "1"), ("mcast-ttl", "1"), ("sync-maxlen", "1"),
            ("tun-info", None), ("tun-type", "gue"), ("tun-port", "1"), ("tun-nocsum", None), ("tun-csum", None),
            ("tun-remcsum", None), ("sort", None), ("6", None), ("t", "192.0.2.1:80"), ("f", "1"), ("L", None),
            ("A", None), ("set", None), ("start-daemon", "master"),
        )  # fmt: skip
        return self._pick(wrong)

    # --- spelling -------------------------------------------------------------------------------------------------

    def _spelled(self, options: Sequence[Option]) -> list[str]:
        """By letter or long, glued, with =, and neighbours without a value in one word."""
        words: list[str] = []
        bundle = ""  # the word before, if letters can be added to it
        for option, value in options:
            if option == "":
                words.append(value or "")
                bundle = ""
                continue
            letter = len(option) == 1 and self._chance(0.8)
            name = option if letter else LONG.get(option, option)
            if not letter:
                glued = value is not None and option != "p" and self._chance(0.4)
                words += [f"--{name}={value}"] if glued else [f"--{name}"] if value is None else [f"--{name}", value]
                bundle = ""
                continue
            if bundle and self._chance(0.35):
                words[-1] += name
            else:
                words.append(f"-{name}")
            bundle = words[-1]
            if value is not None:
                bundle = ""
                if value and self._chance(0.25):
                    words[-1] += self._pick(("", "", "=")) + value
                else:
                    words.append(value)
        return words

    # --- chance ---------------------------------------------------------------------------------------------------

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _pick(self, choices: Sequence[Any]) -> Any:
        return self._random.choice(choices)

    def _value(self, right: Sequence[str], wrong: Sequence[str], odds: float = 0.08) -> str:
        return str(self._pick(wrong if wrong and self._chance(odds) else right))

    def _some(self, odds: float, option: str, right: Sequence[str], wrong: Sequence[str]) -> list[Option]:
        return [(option, self._value(right, wrong))] if self._chance(odds) else []


Option = tuple[str, str | None]


def cases(seed: int, count: int, steps: int = 12) -> dict[str, Any]:
    """name -> case without answers. The name holds the seed: the same again from `cases(that seed, 1, steps)`."""
    return {f"walk-{seed + n}": {"note": "", "steps": list(Walk(seed + n).steps(steps))} for n in range(count)}
