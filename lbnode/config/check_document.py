"""checks/NAME, or the check within a service: which fields there are, and for which type of check. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from lbnode.config.fields import NAME, Document, Port, Seconds, invalid

SCRIPTS = "/etc/lbnode/checks"  # the programs that checks of type script may run, on each gateway


def _regular_expression(text: str) -> str:
    try:
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise invalid(f"{text!r} is not a regular expression: {error}") from None
    return text


def _one_line(text: str) -> str:
    """Goes into an HTTP request line or header (RFC 9112 section 2.2: no CR or LF), so only visible ASCII."""
    if not re.fullmatch(r"[\x21-\x7e]*", text):
        raise invalid(f"{text!r} has a space, a control character or a character outside ASCII", "percent-encode it")
    return text


def _domain_name(text: str) -> str:
    """RFC 1035 section 2.3.4."""
    labels = text.removesuffix(".").split(".") if text != "." else []
    if not text.isascii() or any(not 0 < len(label) < 64 for label in labels) or len(text) > 254:
        raise invalid(f"{text!r} is not a domain name", "labels of 1 to 63 ASCII characters, 253 together")
    return text


def _hexadecimal(text: str) -> str:
    if not re.fullmatch("([0-9a-fA-F]{2})*", text):
        raise invalid(f"{text!r} is not bytes in hexadecimal", 'example: "c0ffee00"')
    return text


def _hexadecimal_pattern(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-FxX]*", text):
        raise invalid(f"{text!r} has other characters than hexadecimal digits and x", 'example: "c0xx"')
    return text


MAX_DIGITS = 2 * 1400  # a datagram that crosses any network in one piece
Payload = Annotated[str, AfterValidator(_hexadecimal), Field(max_length=MAX_DIGITS)]
Pattern = Annotated[str, AfterValidator(_hexadecimal_pattern), Field(max_length=MAX_DIGITS)]
DomainName = Annotated[str, AfterValidator(_domain_name)]
RegularExpression = Annotated[str, AfterValidator(_regular_expression)]
HeaderText = Annotated[str, AfterValidator(_one_line)]


# Fields that only some types of check have.
_CHECK_TYPES_OF: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("method", "path", "host", "expected_statuses", "body_match"), ("http", "https")),
    **dict.fromkeys(("tls_verify", "tls_ca_file", "tls_server_name"), ("https",)),
    **dict.fromkeys(("dns_name", "dns_type"), ("dns",)),
    **dict.fromkeys(("script", "arguments"), ("script",)),
    **dict.fromkeys(("payload", "reply"), ("udp",)),
    "helo": ("smtp",),
    "port": ("tcp", "http", "https", "dns", "udp", "smtp", "script"),
}


class CheckDocument(Document):
    """checks/NAME, or inline in a service."""

    type: Literal["tcp", "http", "https", "dns", "ping", "udp", "smtp", "script"] = "tcp"
    interval: Annotated[Seconds, Field(ge=0.05)] = 2.0
    timeout: Annotated[Seconds, Field(ge=0.01)] = 1.0
    rise: Annotated[int, Field(ge=1, le=1000)] = 2
    fall: Annotated[int, Field(ge=1, le=1000)] = 3
    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    port: Port = 0
    method: Annotated[str, Field(pattern="^[A-Z]+$")] = "GET"
    path: Annotated[HeaderText, Field(pattern="^[/*]")] = "/"
    host: HeaderText = ""
    expected_statuses: Annotated[tuple[int | str, ...], Field(min_length=1, strict=False)] = (200,)
    body_match: RegularExpression = ""
    tls_verify: bool = True
    tls_ca_file: str = ""
    tls_server_name: HeaderText = ""
    dns_name: DomainName = "."
    dns_type: Literal["A", "NS", "CNAME", "SOA", "PTR", "MX", "TXT", "AAAA", "SRV", "RRSIG", "DNSKEY"] = "SOA"
    payload: Payload = ""
    reply: Pattern | None = None
    helo: HeaderText = ""
    script: str = ""
    arguments: Annotated[tuple[str, ...], Field(strict=False)] = ()

    @field_validator("expected_statuses", mode="before")
    @classmethod
    def _statuses_are_a_list(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            raise invalid(f"{value!r} is not a list", 'write a list: [200, "300-399"]')
        for item in value:
            status_range(item)
        return tuple(value)

    @field_validator("script")
    @classmethod
    def _script_is_a_name(cls, value: str) -> str:
        if value and not NAME.fullmatch(value):
            # Whoever may change the configuration may run what the administrator put there, and nothing else.
            raise invalid(f"{value!r} is not the name of a file", f"a program in {SCRIPTS} on every gateway, no path")
        return value

    @field_validator("arguments", mode="before")
    @classmethod
    def _arguments_are_words(cls, value: Any) -> Any:
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(item, str) and "\0" not in item for item in value
        ):
            raise invalid(f"{value!r} is not a list of words", 'example: ["--port", "3306"]')
        return tuple(value)

    @model_validator(mode="after")
    def _fields_fit_the_type(self) -> CheckDocument:
        if self.type == "script" and not self.script:
            raise invalid("script: missing", f"the name of a program in {SCRIPTS}")
        for name in sorted(self.model_fields_set):
            types = _CHECK_TYPES_OF.get(name, (self.type,))
            if self.type not in types:
                hint = f'set "type" to {" or ".join(types)}'
                raise invalid(f"{name}: not for a check of type {self.type}", hint)
        return self


def status_range(item: object) -> range:
    """200 -> 200..200, "200-299" -> 200..299."""
    match = re.fullmatch(r"(\d{3})(?:-(\d{3}))?", str(item)) if isinstance(item, (int, str)) else None
    if match is None or isinstance(item, bool):
        raise invalid(f"{item!r} is not an HTTP status or a range of them", 'examples: 200, "200-299"')
    low, high = int(match[1]), int(match[2] or match[1])
    if not 100 <= low <= high <= 599:
        raise invalid(f"{item!r} is not within 100 to 599, low-high")
    return range(low, high + 1)
