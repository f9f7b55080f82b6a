"""The program: its arguments, and what an error of the node becomes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from lbnode.cli.client import EXIT_FAILED, ApiError, Client
from lbnode.cli.lbctl import capturing, changing, electing, kernel, showing
from lbnode.cli.lbctl.verbs import Verbs


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments, Client(arguments.socket)))
    except ApiError as error:
        print(f"lbctl: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lbctl",
        description="Look at an lbnode gateway and change its cluster's configuration.",
        epilog="Exit: 0 ok, 1 failed (diff: differences; import: something was left out), 2 usage, 3 not found, "
        "4 conflict, 5 node unreachable.",
    )
    parser.add_argument("--socket", help="the node's API socket (default: $LBNODE_SOCKET or /run/lbnode/api.sock)")
    verbs = Verbs(parser)
    for module in (showing, capturing, changing, electing, kernel):
        module.add_to(verbs)
    return parser
