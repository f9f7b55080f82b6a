"""node.toml: what one node needs to know before it can read the shared configuration. Restart to change it."""

from __future__ import annotations

import re
import socket
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from lbnode.config.fields import NAME, Document, invalid
from lbnode.config.value import Path as FieldPath
from lbnode.config.value import dotted, fault_of
from lbnode.errors import ConfigError
from lbnode.model import parse_endpoint

DEFAULT_PATH = "/etc/lbnode/node.toml"


@dataclass(frozen=True, slots=True)
class StoreConfig:
    etcd: tuple[str, ...] = ()  # URLs; none: the embedded store in state_dir
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class WebConfig:
    listen: str = "127.0.0.1:8080"  # "" = off
    token: str | None = field(default=None, repr=False)  # None: the daemon makes one in state_dir/token


@dataclass(frozen=True, slots=True)
class SyncConfig:
    listen: str = ""  # "" = no connection synchronisation
    peers: Mapping[str, str] = field(default_factory=dict)  # node name -> HOST:PORT
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ElectionConfig:
    keys: Mapping[int, bytes] = field(
        default_factory=dict, repr=False
    )  # of VRRP's authentication trailer; the first signs


@dataclass(frozen=True, slots=True)
class DataPlaneConfig:
    kind: str = "auto"  # auto | xdp | ipvs | fake
    interfaces: tuple[str, ...] = ()  # none: all that carry traffic
    attach: Literal["auto", "xdp", "tcx", "tc"] = "auto"  # "tc": by clsact, as before Linux 6.6
    connections: int = 1 << 18  # size of the connection table


@dataclass(frozen=True, slots=True)
class NodeConfig:
    node: str = field(default_factory=socket.gethostname)
    cluster: str = "default"
    state_dir: Path = Path("/var/lib/lbnode")
    run_dir: Path = Path("/run/lbnode")
    store: StoreConfig = field(default_factory=StoreConfig)
    web: WebConfig = field(default_factory=WebConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    election: ElectionConfig = field(default_factory=ElectionConfig)
    dataplane: DataPlaneConfig = field(default_factory=DataPlaneConfig)


# --- the file's schema ---------------------------------------------------------------------------------------


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise invalid(f"{text!r} is not a name", "letters, digits, '.', '_', '-', at most 63")
    return text


def _listen(text: str) -> str:
    if text:
        try:
            parse_endpoint(text)
        except ValueError as error:
            raise invalid(str(error), 'examples: "127.0.0.1:8080", "[::]:8080"') from None
    return text


def _peer(text: str) -> str:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})", text)
    if match is None or not 0 < int(match[2]) < 65536:
        raise invalid(f"{text!r} is not HOST:PORT", 'example: "198.51.100.3:8848"')
    return text


def _url(text: str) -> str:
    if not re.fullmatch(r"https?://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+):\d{1,5}/?", text):
        raise invalid(f"{text!r} is not an etcd URL", 'example: "http://198.51.100.11:2379"')
    return text.rstrip("/")


Name = Annotated[str, AfterValidator(_name)]
Listen = Annotated[str, AfterValidator(_listen)]


class _Store(Document):
    etcd: Annotated[tuple[Annotated[str, AfterValidator(_url)], ...], Field(strict=False)] = ()
    user: str = ""
    password: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


class _Web(Document):
    listen: Listen = "127.0.0.1:8080"
    token: Annotated[str, Field(min_length=1)] | None = None
    token_file: str = ""


class _Sync(Document):
    listen: Listen = ""
    peers: dict[Name, Annotated[str, AfterValidator(_peer)]] = Field(default_factory=dict)
    key: str = ""
    key_file: str = ""


class _Election(Document):
    keys: str = ""
    keys_file: str = ""


class _DataPlane(Document):
    kind: Literal["auto", "xdp", "ipvs", "fake"] = "auto"
    interfaces: Annotated[tuple[str, ...], Field(strict=False)] = ()
    attach: Literal["auto", "xdp", "tcx", "tc"] = "auto"
    connections: Annotated[int, Field(ge=1 << 12, le=1 << 24)] = 1 << 18


class _Node(Document):
    node: Name | None = None
    cluster: Name = "default"
    state_dir: Annotated[str, Field(min_length=1)] = "/var/lib/lbnode"
    run_dir: Annotated[str, Field(min_length=1)] = "/run/lbnode"
    store: _Store = _Store()
    web: _Web = _Web()
    sync: _Sync = _Sync()
    election: _Election = _Election()
    dataplane: _DataPlane = _DataPlane()


_SECTIONS: Mapping[str, type[Document]] = {
    "store": _Store,
    "web": _Web,
    "sync": _Sync,
    "election": _Election,
    "dataplane": _DataPlane,
}


def load_node_config(path: str | Path) -> NodeConfig:
    """Read node.toml and the secret files it names. ConfigError lists every problem, each with file and line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; write one (see the README), or name another with --config") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    return parse_node_config(text, str(path), lambda name: _read_secret(path.parent / name))


def _read_secret(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip()


def parse_node_config(text: str, name: str, read_secret: Callable[[str], str]) -> NodeConfig:
    """`name` is what messages call the file; `read_secret` gets *_file values and may raise OSError, UnicodeError."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = re.search(r"at line (\d+), column (\d+)", str(error))
        where = f"{name}:{match[1]}:{match[2]}" if match else f"{name}:{len(text.splitlines())}"
        message = re.sub(r" \(at .*\)$", "", str(error))
        raise ConfigError(f"{where}: not valid TOML: {message}") from None
    except RecursionError:
        raise ConfigError(f"{name}: not valid TOML: nested too deeply") from None
    lines = _lines(text)
    problems: list[str] = []

    def report(path: FieldPath, message: str, hint: str = "") -> None:
        line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
        where = f"{name}:{line}" if line else name
        problems.append(f"{where}: {dotted(path)}: {message}{f' ({hint})' if hint else ''}")

    try:
        node = _Node.model_validate(raw)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            fault = fault_of(detail, _known_fields)
            report(fault.path, fault.message, fault.hint)
        raise ConfigError("\n".join(sorted(problems, key=_line_order))) from None

    def secret(section: str, plain: str | None, file: str, field_name: str) -> str:
        if file and plain:
            report((section, f"{field_name}_file"), f"{field_name} and {field_name}_file are both set", "keep one")
        if not file:
            return plain or ""
        try:
            value = read_secret(file)
        except (OSError, UnicodeError) as error:
            report((section, f"{field_name}_file"), f"{file!r} cannot be read: {error}")
            return ""
        if not value:
            report((section, f"{field_name}_file"), f"{file!r} is empty")
        return value

    result = _node_config(node, secret, report)
    if problems:
        raise ConfigError("\n".join(sorted(problems, key=_line_order)))
    return result


def _node_config(
    node: _Node, secret: Callable[[str, str | None, str, str], str], report: Callable[..., None]
) -> NodeConfig:
    """The rules between fields."""
    store, web, sync, plane = node.store, node.web, node.sync, node.dataplane
    password = secret("store", store.password, store.password_file, "password")
    if bool(store.user) != bool(store.password or store.password_file):
        report(("store", "user"), "user and password belong together", "set both or neither")
    if bool(store.cert_file) != bool(store.key_file):
        report(("store", "cert_file"), "cert_file and key_file belong together", "set both or neither")
    if not store.etcd and (store.model_fields_set - {"etcd"}):
        report(("store",), "there is no etcd to use this for", 'set etcd = ["http://HOST:2379"], or remove it')
    token = secret("web", web.token, web.token_file, "token")
    key = secret("sync", sync.key, sync.key_file, "key")
    keys: dict[int, bytes] = {}
    try:
        keys = parse_keys(secret("election", node.election.keys, node.election.keys_file, "keys"))
    except ValueError as error:
        report(
            ("election", "keys"), str(error), 'one key a line, "ID HEX": ID 1 to 255, 32 to 64 bytes; the first signs'
        )
    if sync.listen and not (sync.key or sync.key_file):
        report(("sync", "listen"), "connection synchronisation needs a key that the peers share", "set key_file")
    if sync.peers and not sync.listen:
        report(("sync", "peers"), "peers without listen", 'set listen = "ADDRESS:8848" on the network of the peers')
    name = node.node or socket.gethostname()
    if name in sync.peers:
        report(("sync", "peers"), f"{name!r} is this node itself", "name the other gateways only")
    return NodeConfig(
        name,
        node.cluster,
        Path(node.state_dir),
        Path(node.run_dir),
        StoreConfig(store.etcd, store.user, password, store.ca_file, store.cert_file, store.key_file),
        WebConfig(web.listen, token or None),
        SyncConfig(sync.listen, dict(sync.peers), key),
        ElectionConfig(keys),
        DataPlaneConfig(plane.kind, plane.interfaces, plane.attach, plane.connections),
    )


def parse_keys(text: str) -> dict[int, bytes]:
    """Lines "ID HEX". ValueError for anything else; it never quotes a key."""
    keys: dict[int, bytes] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not words[0].isdecimal() or not 1 <= int(words[0]) <= 255:
            raise ValueError(f"key {number}: not an ID from 1 to 255 and a key")
        if int(words[0]) in keys:
            raise ValueError(f"key {number}: the ID {words[0]} twice")
        if re.fullmatch(r"(?:[0-9a-fA-F]{2}){32,64}", words[1]) is None:
            raise ValueError(f"key {number}: not 32 to 64 bytes in hexadecimal")
        keys[int(words[0])] = bytes.fromhex(words[1])
    return keys


def _known_fields(path: FieldPath) -> tuple[str, ...]:
    schema = _SECTIONS.get(str(path[0]), _Node) if len(path) > 1 else _Node
    return tuple(schema.model_fields)


def _lines(text: str) -> dict[FieldPath, int]:
    """Where keys stand: ("store", "etcd") -> line. Good enough for messages; tomllib tells no positions."""
    lines: dict[FieldPath, int] = {}
    section: FieldPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([\w.\"'-]+)\s*\]", line):
            section = tuple(header[1].replace('"', "").replace("'", "").split("."))
            lines.setdefault(section, number)
        elif key := re.match(r"\s*([\w.\"'-]+)\s*=", line):
            path = tuple(key[1].replace('"', "").replace("'", "").split("."))
            lines.setdefault((*section, *path), number)
    return lines


def _line_order(problem: str) -> tuple[int, str]:
    match = re.search(r":(\d+): ", problem)
    return (int(match[1]) if match else 0, problem)
