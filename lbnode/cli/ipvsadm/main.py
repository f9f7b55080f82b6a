"""lbadm: ipvsadm's commands and output.

They act on the cluster's configuration and show the local data plane, or, with `--direct` or LBADM_DIRECT=1, act on
this kernel's own ip_vs. What ipvsadm 1.31 does otherwise, and why, is listed in the README (lbadm and ipvsadm).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence

from lbnode.cli.ipvsadm.help import NO_IP_VS, NOT_ROOT
from lbnode.cli.ipvsadm.host import SystemHost
from lbnode.cli.ipvsadm.values import GrammarError, Refused

REFUSED = 255  # ipvsadm's exit code when the kernel says no
NO_NODE = 2  # ... when there is no ip_vs
PROGRAMS = ("ipvsadm", "ipvsadm-save", "ipvsadm-restore")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["--install-as-ipvsadm"]:
        return _install(arguments[1:])
    return _reporting(lambda: _run(arguments))


def save() -> int:
    """ipvsadm-save(8)."""
    direct, arguments = _split(sys.argv[1:])
    if any(word.startswith("-") and word != "-n" for word in arguments):
        print("ipvsadm-save: Script to save the IPVS table to stdout.", file=sys.stderr)
        print("   With the -n option, prints out the table in numeric format.", file=sys.stderr)
        return 1
    return main([*direct, "-S", *(["-n"] if "-n" in arguments else [])])


def restore() -> int:
    """ipvsadm-restore(8): the table becomes what standard input says; lines that begin with # are comments."""
    direct, _ = _split(sys.argv[1:])
    lines = [b"-C\n", *(b"\n" if line.startswith(b"#") else line for line in sys.stdin.buffer)]
    return _reporting(lambda: _run([*direct, "-R"], lines, first=0))


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    return (arguments[:1], arguments[1:]) if arguments[:1] == ["--direct"] else ([], arguments)


def _run(argv: list[str], script: Iterable[bytes] | None = None, first: int = 1) -> int:
    """One ipvsadm call. `script`: what -R reads instead of standard input; `first`: the number of its first line."""
    asked, argv = _split(argv)
    lines = sys.stdin.buffer if script is None else script
    # What the other way needs is not imported: start-up time is part of the product.
    if asked or os.environ.get("LBADM_DIRECT", "0") not in ("", "0"):
        from lbnode.cli.ipvsadm import direct

        return direct.run(argv, SystemHost(), lines)
    from lbnode.cli.client import EXIT_UNREACHABLE, ApiError, Client
    from lbnode.cli.ipvsadm import cluster

    try:
        return cluster.run(argv, Client(), SystemHost(), lines, first)
    except ApiError as error:
        if error.kind == "permission":
            raise GrammarError(NO_IP_VS.format(NOT_ROOT)) from None
        print(f"lbadm: {error}", file=sys.stderr)
        return NO_NODE if error.exit_code == EXIT_UNREACHABLE else 1


def _reporting(act: Callable[[], int]) -> int:
    """Complaints go to stderr."""
    try:
        return act()
    except GrammarError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Refused as error:
        print(error, file=sys.stderr)
        return REFUSED
    except BrokenPipeError:
        return 1


def _install(arguments: list[str]) -> int:
    """`--install-as-ipvsadm DIRECTORY`: links under ipvsadm's names, so that scripts for ipvsadm run unchanged."""
    if len(arguments) != 1:
        print("lbadm: --install-as-ipvsadm takes one directory, such as /usr/local/sbin", file=sys.stderr)
        return 2
    here = os.path.dirname(os.path.abspath(sys.argv[0]))
    for program in PROGRAMS:
        link, target = os.path.join(arguments[0], program), os.path.join(here, program.replace("ipvsadm", "lbadm"))
        try:
            if os.path.islink(link):
                os.unlink(link)
            os.symlink(target, link)
        except OSError as error:
            print(f"lbadm: {link}: {error.strerror}; nothing was overwritten", file=sys.stderr)
            return 1
        print(f"{link} -> {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
