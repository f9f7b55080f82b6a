"""lbctl import: another program's configuration -> a document on stdout, and what is not in it on stderr."""

from __future__ import annotations

import glob
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from lbnode.cli.client import EXIT_FAILED, EXIT_USAGE, ApiError
from lbnode.cli.ipvsadm.host import SystemHost
from lbnode.cli.ipvsadm.importer import import_ipvsadm
from lbnode.config.fields import NAME
from lbnode.config.imported import Imported
from lbnode.config.keepalived.importer import Source, import_keepalived
from lbnode.model import Severity

STDIN = "-"


def run(sources: Sequence[str]) -> int:
    """`ipvsadm [FILE]`, else [NODE=]FILE of keepalived. 1 if something is not in the document that should be."""
    import yaml

    imported = _ipvsadm(sources[1:]) if sources[0] == "ipvsadm" else _keepalived(sources)
    sys.stdout.write(yaml.safe_dump(dict(imported.document), sort_keys=False, allow_unicode=True))
    lost = sum(problem.severity is Severity.ERROR for problem in imported.problems)
    for problem in imported.problems:
        print(f"{problem.where}: {problem.severity}: {_rest(str(problem), problem.where)}", file=sys.stderr)
    counts = (imported.taken, "line"), (lost, "error"), (len(imported.problems) - lost, "warning")
    lines, errors, warnings = (f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts)
    print(f"lbctl: {lines} taken over, {errors}, {warnings}", file=sys.stderr)
    return EXIT_FAILED if lost else 0


def _rest(text: str, where: str) -> str:
    return text.removeprefix(f"{where}: ")


def _ipvsadm(files: Sequence[str]) -> Imported:
    if len(files) > 1:
        raise ApiError("import ipvsadm takes one file", EXIT_USAGE)
    name, text = _read(files[0] if files else STDIN)
    return import_ipvsadm(text, name, SystemHost())


def _keepalived(sources: Sequence[str]) -> Imported:
    found = []
    for source in sources:
        node, named, path = source.partition("=")
        if not named or not NAME.fullmatch(node):
            node, path = socket.gethostname().partition(".")[0], source  # keepalived's own config-id
        found.append(Source(node, *_read(path)))
    names = [source.node for source in found]
    if len(set(names)) < len(names):
        raise ApiError("name the node of each file: lbctl import gw1=FILE gw2=FILE", EXIT_USAGE)
    return import_keepalived(found, included)


def _read(path: str) -> tuple[str, str]:
    name = "standard input" if path == STDIN else path
    try:
        return name, sys.stdin.read() if path == STDIN else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ApiError(f"{name}: {error}", EXIT_USAGE) from error


def included(pattern: str, file: str) -> list[tuple[str, str]]:
    """The files that `include PATTERN` in `file` means: relative to that file, with wildcards."""
    paths = sorted(glob.glob(str(Path(file).parent / pattern)))
    return [(path, Path(path).read_text(encoding="utf-8")) for path in paths]
