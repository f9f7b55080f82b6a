"""lbnoded: read node.toml, build the Node, run it until SIGTERM or SIGINT. SIGHUP restarts it in place."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from lbnode import VERSION
from lbnode.config.bootstrap import NodeConfig, load_node_config
from lbnode.directories import claimed
from lbnode.errors import LbError
from lbnode.node import Node, make_store
from lbnode.planes import choose, make_plane, unload

DEFAULT_CONFIG = "/etc/lbnode/node.toml"

log = logging.getLogger("lbnode")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="lbnoded", description="The lbnode gateway daemon.")
    parser.add_argument("--config", default=DEFAULT_CONFIG, help=f"node.toml (default: {DEFAULT_CONFIG})")
    parser.add_argument("--dry-run", action="store_true", help="program nothing: keep the data plane in memory")
    parser.add_argument("--unload", action="store_true", help="take the data plane out of the kernel and end")
    parser.add_argument("--version", action="version", version=f"lbnoded {VERSION}")
    arguments = parser.parse_args(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        config = load_node_config(arguments.config)
        if arguments.dry_run:
            config = replace(config, dataplane=replace(config.dataplane, kind="fake"))
        restart = False
        with claimed(config):
            if arguments.unload:
                asyncio.run(unload(config))
            else:
                restart = asyncio.run(_run(config, arguments.config))
    except LbError as error:
        return _failed([error])
    except BaseExceptionGroup as group:
        expected, bugs = group.split(LbError)
        if bugs is not None or expected is None:
            raise
        return _failed(_leaves(expected))
    if restart:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited: another one must not end what is starting
        # The same process, so that whoever started it sees no end.
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606
    return 0


def _failed(errors: Iterable[BaseException]) -> int:
    for error in errors:
        print(f"lbnoded: {error}", file=sys.stderr)
    return 1


def _leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _raise_file_limit() -> None:
    """Probes hold a descriptor each; select(2)'s 1024, the usual soft limit, means nothing to epoll."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _run(config: NodeConfig, path: str) -> bool:
    """True: the whole program is to be started anew."""
    _raise_file_limit()
    store = make_store(config)
    choice = await choose(config, store)
    log.info("data plane: %s: %s", choice.kind, choice.why)
    node = Node(config, store, make_plane(config, choice.kind), choice.why)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    restart = asyncio.Event()

    def hang_up() -> None:
        """Also sent by a closed terminal, which must not stop a gateway: nor does a restart."""
        try:
            load_node_config(path)
        except LbError as error:
            log.warning("SIGHUP: not restarted: %s", error)
            return
        log.info("SIGHUP: restarting")
        node.restart()
        restart.set()
        stop.set()

    loop.add_signal_handler(signal.SIGHUP, hang_up)
    gc.freeze()  # modules and classes live as long as the process: no collection need walk through them
    await node.run(stop)
    return restart.is_set()


if __name__ == "__main__":
    sys.exit(main())
