"""Checkers of a real_server -> the check of a service: keepalived.conf(5), healthcheckers. Pure.

keepalived has any number of checkers for each server and all must succeed; lbnode has one check for each service.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Protocol

from lbnode.config.check_document import SCRIPTS, status_range
from lbnode.config.fields import MAX_SECONDS
from lbnode.config.keepalived.arguments import address, number, only, seconds, switch, text, tidy
from lbnode.config.keepalived.ledger import Ledger, NoEqual, Readers
from lbnode.config.keepalived.tree import Directive
from lbnode.config.keys import Key
from lbnode.config.value import validate
from lbnode.model import Address

MOST_RETRIES = 999  # a check's fall is at most 1000

# Checkers without equal, and what to do instead.
UNKNOWN_HERE: Mapping[str, str] = {
    "BFD_CHECK": "check a port of the server: type tcp",
    "FILE_CHECK": "set weights with `lbctl weight`, also from scripts",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Given for a virtual_server, its real_server or the checker: the innermost counts. None: not given. Seconds."""

    delay_loop: float | None = None
    connect_timeout: float | None = None
    retry: int | None = None
    delay_before_retry: float | None = None

    def over(self, outer: Timing) -> Timing:
        given = {name: value for name in Timing.__slots__ if (value := getattr(self, name)) is not None}
        return replace(outer, **given)


NOT_GIVEN = Timing()


class _Timed(Protocol):
    timing: Timing


def _timing(name: str, read: Callable[[Directive], Any]) -> Callable[[_Timed, Directive], None]:
    def reader(target: _Timed, directive: Directive) -> None:
        target.timing = replace(target.timing, **{name: read(directive)})

    return reader


_RETRY = _timing("retry", lambda directive: number(directive, 0, MOST_RETRIES))
TIMING_READERS: Readers[Any] = {
    "delay_loop": _timing("delay_loop", lambda directive: seconds(directive, 0.05, MAX_SECONDS)),
    "connect_timeout": _timing("connect_timeout", lambda directive: seconds(directive, 0.01, MAX_SECONDS)),
    "retry": _RETRY,
    "nb_get_retry": _RETRY,  # its name before keepalived 2.0
    "delay_before_retry": _timing("delay_before_retry", lambda directive: seconds(directive, 0, MAX_SECONDS)),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A checker as a check document. `rank`: of several, the one that asks the server most is taken."""

    check: Mapping[str, Any]
    directive: Directive
    rank: int
    note: str = ""  # what differs


@dataclass(slots=True)
class _Url:
    path: str = "/"
    statuses: tuple[int | str, ...] = ("200-299",)
    virtualhost: str = ""
    regex: str = ""
    options: str = ""  # letters of Python's (?...)


@dataclass(frozen=True, slots=True)
class _Kind:
    """A checker with an equal. Defaults are those of keepalived.conf(5); None: delay_loop. `rank` as above."""

    type: str
    retry: int = 1
    delay_before_retry_s: float | None = 1.0
    rank: int = 2


_KINDS: Mapping[str, _Kind] = {
    "TCP_CHECK": _Kind("tcp", rank=1),
    "HTTP_GET": _Kind("http", delay_before_retry_s=3.0),
    "SSL_GET": _Kind("https", delay_before_retry_s=3.0),
    "DNS_CHECK": _Kind("dns", retry=3, delay_before_retry_s=None),
    "PING_CHECK": _Kind("ping", rank=0),
    "UDP_CHECK": _Kind("udp"),
    "SMTP_CHECK": _Kind("smtp"),
    "MISC_CHECK": _Kind("script", retry=0, rank=3),
}
CHECKERS = (*_KINDS, *UNKNOWN_HERE)


@dataclass(slots=True)
class _Checker:
    ledger: Ledger
    address: Address
    timing: Timing = NOT_GIVEN
    port: int = 0  # 0: the server's
    virtualhost: str = ""
    server_name: str = ""
    urls: list[_Url] = field(default_factory=list)
    has_host: bool = False  # of SMTP_CHECK
    fields: dict[str, Any] = field(default_factory=dict)  # of the document, for the types without room above


def candidate(
    directive: Directive, ledger: Ledger, server: Address, port: int, same: bool, timing: Timing, virtualhost: str
) -> Candidate:
    """`port`: what keepalived checks unless told; `same`: lbnode would do the same. `timing`, `virtualhost`: given
    around the checker. NoEqual."""
    if directive.name in UNKNOWN_HERE:
        raise NoEqual("no equal yet", UNKNOWN_HERE[directive.name])
    kind = _KINDS[directive.name]
    checker = _Checker(ledger, server, virtualhost=virtualhost)
    ledger.read(directive.items, _READERS_OF.get(kind.type, _READERS), checker, "a checker")
    check: dict[str, Any] = {"type": kind.type}
    if kind.type not in ("ping", "script"):
        checked = checker.port or port
        if not checked:
            raise NoEqual("no port to check: neither the server nor the checker has one", "set connect_port")
        if not (same and checked == port):
            check["port"] = checked
    note = _set_timing(check, checker.timing.over(timing), kind)
    if kind.type in ("http", "https"):
        _set_request(check, checker, kind.type == "https")
    check |= checker.fields
    faults = validate(Key("checks", name="x"), check).faults
    if wrong := [fault for fault in faults if fault.severity == "error"]:
        raise NoEqual(wrong[0].message, wrong[0].hint)
    return Candidate(check, directive, kind.rank, note)


def _set_timing(check: dict[str, Any], timing: Timing, kind: _Kind) -> str:
    """Returns what differs."""
    interval = 60.0 if timing.delay_loop is None else timing.delay_loop
    timeout = 5.0 if timing.connect_timeout is None else timing.connect_timeout
    retry = kind.retry if timing.retry is None else timing.retry
    default = interval if kind.delay_before_retry_s is None else kind.delay_before_retry_s
    delay = default if timing.delay_before_retry is None else timing.delay_before_retry
    if kind.type == "script":
        timeout = interval  # unless misc_timeout says otherwise
    check |= {"interval": tidy(interval), "timeout": tidy(timeout), "rise": 1, "fall": retry + 1}
    if not retry or delay == interval:
        return ""
    return f"keepalived asks again {delay:g} s after a failure, lbnode every {interval:g} s"


def _set_request(check: dict[str, Any], checker: _Checker, tls: bool) -> None:
    url = checker.urls[0] if checker.urls else _Url()
    check |= {"path": url.path, "expected_statuses": list(url.statuses)}
    if host := url.virtualhost or checker.virtualhost:
        check["host"] = host
    if url.regex:
        check["body_match"] = f"(?{url.options}){url.regex}" if url.options else url.regex
    if tls:
        check["tls_verify"] = False  # keepalived takes any certificate
        if checker.server_name:
            check["tls_server_name"] = checker.server_name


def choose(
    servers: Sequence[tuple[Directive, Sequence[Candidate]]], service: Directive, ledger: Ledger
) -> Mapping[str, Any] | None:
    """The check of a service, of all that its servers have; what it leaves out is listed."""
    best: list[tuple[Directive, Candidate | None]] = []
    for server, candidates in servers:
        chosen = max(candidates, key=lambda item: item.rank, default=None)
        best.append((server, chosen))
        for other in candidates:
            if other is not chosen:
                ledger.lacks(other.directive, "a second check of one server", "lbnode has one check for each service")
    found = [chosen for _, chosen in best if chosen is not None]
    if not found:
        return None
    checks = [item.check for item in found]
    common = max(found, key=lambda item: checks.count(item.check))
    if common.note:
        ledger.note(common.directive, common.note, f"choose the interval for {service}")
    for server, chosen in best:
        if chosen is None:
            message = "has no such check of its own, but is checked as the other servers"
            ledger.lacks(server, message, "lbnode has one check for each service")
        elif chosen.check != common.check:
            message = "differs from the check of the other servers, which it gets"
            ledger.lacks(chosen.directive, message, "lbnode has one check for each service")
    return common.check


# --- readers -------------------------------------------------------------------------------------------------


def _connect_ip(checker: _Checker, directive: Directive) -> None:
    if address(text(directive)) != checker.address:
        raise NoEqual("no equal yet", "lbnode checks the server's own address")


def _connect_port(checker: _Checker, directive: Directive) -> None:
    checker.port = number(directive, 1, 65535)


def _virtualhost(target: _Checker | _Url, directive: Directive) -> None:
    target.virtualhost = text(directive)


def _http_protocol(checker: _Checker, directive: Directive) -> None:
    if text(directive) != "1.1":
        checker.ledger.note(directive, "lbnode asks by HTTP/1.1")


def _sni_name(checker: _Checker, directive: Directive) -> None:
    checker.server_name = text(directive)


def _enable_sni(_: _Checker, directive: Directive) -> None:
    if not switch(directive):
        raise NoEqual("no equal yet", "lbnode always names the host in the TLS handshake")


def _url(checker: _Checker, directive: Directive) -> None:
    if checker.urls:
        raise NoEqual("a second URL", "lbnode asks for one URL in each check")
    url = _Url()
    checker.ledger.read(directive.items, _URL_READERS, url, "url")
    checker.urls.append(url)


def _path(url: _Url, directive: Directive) -> None:
    path = text(directive)
    if not re.fullmatch(r"[/*][\x21-\x7e]*", path):
        raise NoEqual(f"{path!r} does not begin with a slash, or has a blank in it")
    url.path = path


def _status_code(url: _Url, directive: Directive) -> None:
    statuses: list[int | str] = []
    for word in only(directive, 1, 1000):
        try:
            found = status_range(word)
        except ValueError as error:
            raise NoEqual(str(error)) from None
        statuses.append(found[0] if len(found) == 1 else word)
    url.statuses = tuple(statuses)


def _regex(url: _Url, directive: Directive) -> None:
    try:
        re.compile(text(directive))
    except (re.error, RecursionError, OverflowError) as error:
        raise NoEqual(f"Python's regular expressions differ from PCRE: {error}", "write body_match anew") from None
    url.regex = text(directive)


def _regex_options(url: _Url, directive: Directive) -> None:
    letters = {"caseless": "i", "multiline": "m", "dotall": "s", "extended": "x", "utf": ""}
    words = only(directive, 1, 30)
    if unknown := [word for word in words if word not in letters]:
        raise NoEqual(f"{', '.join(unknown)}: no equal in Python's regular expressions", "write body_match anew")
    url.options = "".join(sorted({letters[word] for word in words}))


def _dns_name(checker: _Checker, directive: Directive) -> None:
    checker.fields["dns_name"] = text(directive)


def _dns_type(checker: _Checker, directive: Directive) -> None:
    checker.fields["dns_type"] = text(directive).upper()


def _payload(checker: _Checker, directive: Directive) -> None:
    checker.fields["payload"] = _digits(directive, "")


def _require_reply(checker: _Checker, directive: Directive) -> None:
    checker.fields["reply"] = _digits(directive, "x")


def _digits(directive: Directive, more: str) -> str:
    """HEX_STR: groups of digits, a single one at the end of a group is a byte of its own: `Ab12f 3` is AB 12 0F 03."""
    words = " ".join(directive.arguments).lower().split()
    if not all(re.fullmatch(f"[0-9a-f{more}]+", word) for word in words):
        raise NoEqual(f"{' '.join(words)!r} is not bytes in hexadecimal")
    return "".join(f"{word[:-1]}0{word[-1]}" if len(word) % 2 else word for word in words)


def _helo_name(checker: _Checker, directive: Directive) -> None:
    checker.fields["helo"] = text(directive)


def _host(checker: _Checker, directive: Directive) -> None:
    """Another way to name address and port of an SMTP server; there may be several."""
    if checker.has_host:
        raise NoEqual("a second host", "lbnode checks the server's own address")
    checker.has_host = True
    checker.ledger.read(directive.items, _READERS, checker, "a checker")


def _misc_path(checker: _Checker, directive: Directive) -> None:
    """A command line in one word, where single quotes keep blanks within an argument; or a word for each argument."""
    words = only(directive, 1, 1000)
    try:
        path, *arguments = words if len(words) > 1 else shlex.split(words[0])
    except ValueError as error:
        raise NoEqual(f"not a command line: {error}") from None
    name = PurePosixPath(path).name
    checker.fields |= {"script": name, "arguments": arguments} if arguments else {"script": name}
    message = f"install {path} as {SCRIPTS}/{name} on every gateway"
    checker.ledger.note(directive, message, "lbnode runs no other programs")


def _misc_timeout(checker: _Checker, directive: Directive) -> None:
    checker.fields["timeout"] = tidy(seconds(directive, 0.01, MAX_SECONDS))


_READERS: Readers[_Checker] = {**TIMING_READERS, "connect_ip": _connect_ip, "connect_port": _connect_port}
_HTTP_READERS: Readers[_Checker] = {
    **_READERS, "url": _url, "virtualhost": _virtualhost, "http_protocol": _http_protocol, "sni_name": _sni_name,
    "enable_sni": _enable_sni,
}  # fmt: skip
_READERS_OF: Mapping[str, Readers[_Checker]] = {
    "http": _HTTP_READERS,
    "https": _HTTP_READERS,
    "dns": {**_READERS, "name": _dns_name, "type": _dns_type},
    "udp": {**_READERS, "payload": _payload, "require_reply": _require_reply},
    "smtp": {**_READERS, "helo_name": _helo_name, "host": _host},
    "script": {**TIMING_READERS, "misc_path": _misc_path, "misc_timeout": _misc_timeout},
    "ping": {name: reader for name, reader in _READERS.items() if name != "connect_port"},
}
_URL_READERS: Readers[_Url] = {
    "path": _path, "status_code": _status_code, "virtualhost": _virtualhost, "regex": _regex,
    "regex_options": _regex_options,
}  # fmt: skip
