"""`lbnode`: the lab and the demonstration.

lbnode demo [--once]
lbnode lab up|down|status|exec NODE CMD...|kill NODE|start NODE|stop NODE|logs NODE|pause|unpause|cut|heal NODE
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from lbnode.errors import LbError
from lbnode.lab.lab import RUN, Lab, remove
from lbnode.lab.namespaces import CHECKOUT, LabError

_NODE_VERBS: dict[str, tuple[Callable[[Lab, str], None], str]] = {
    "kill": (Lab.power_off, "cut its power: links and every process at once"),
    "start": (Lab.power_on, "switch it on again"),
    "stop": (Lab.stop, "stop it cleanly (SIGTERM, then its grace period)"),
    "pause": (Lab.pause, "stop all its processes; its kernel goes on"),
    "unpause": (Lab.unpause, "let its processes go on"),
    "cut": (Lab.cut, "pull its cables"),
    "heal": (Lab.heal, "plug its cables in again"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lbnode", description="The lab of docker-compose.yml in network namespaces.")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="a two-gateway cluster loses its active gateway under load")
    demo.add_argument("--once", action="store_true", help="exit afterwards; 0 only if every step did what it says")
    lab = commands.add_parser("lab", help="bring the lab up, work in it, take it down")
    lab.add_argument("-f", "--file", default=str(CHECKOUT / "docker-compose.yml"), help="compose file")
    lab.add_argument("-p", "--project", help="name of the lab (default: the name in the file)")
    verbs = lab.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="bring up what is not up")
    up.add_argument("--wait", action="store_true", help="stay until Ctrl-C, then take the lab down")
    verbs.add_parser("down", help="remove everything, also after a crash")
    verbs.add_parser("status", help="containers, addresses, health")
    run = verbs.add_parser("exec", help="run a command in a container")
    run.add_argument("node")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="CMD...")
    logs = verbs.add_parser("logs", help="what a container's command has printed")
    logs.add_argument("node")
    for verb, (_, text) in _NODE_VERBS.items():
        verbs.add_parser(verb, help=text).add_argument("node")
    return parser


def _lab(options: argparse.Namespace) -> Lab:
    """The running lab of that name as it was started, else the one that the file describes."""
    described = Lab(options.file, name=options.project)
    if (RUN / described.project.name / "lab.json").exists() and options.verb != "up":
        return Lab.attach(described.project.name)
    return described


def _up(lab: Lab, *, wait: bool) -> None:
    """With `wait`, or interrupted half-way, the lab goes down again."""
    stay = False
    try:
        lab.up(progress=print)
        for container in lab.project.containers.values():
            for port in container.ports:
                print(f"published: {container.name} port {port.container_port} at {port.host_address}:{port.host_port}")
        stay = not wait
        if wait:
            print("the lab is up; Ctrl-C takes it down")
            with suppress(KeyboardInterrupt):
                signal.pause()
    finally:
        if not stay:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # cleaning up must not be interrupted half-way
            lab.down()


def _print_status(lab: Lab) -> None:
    rows = [("NODE", "STATE", "HEALTH", "PID", "ADDRESSES")]
    rows += [
        (row.name, row.state, row.health or "-", str(row.pid or "-"), " ".join(row.addresses)) for row in lab.status()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _run(options: argparse.Namespace) -> int:
    if options.command == "demo":
        from lbnode.lab.demo import demo

        return demo(once=options.once)
    if options.verb == "down" and options.project:
        remove(options.project)  # needs no file: it may be gone by now
        return 0
    lab = _lab(options)
    match options.verb:
        case "up":
            _up(lab, wait=options.wait)
        case "down":
            lab.down()
        case "status":
            _print_status(lab)
        case "logs":
            sys.stdout.write(lab.logs(options.node))
        case "exec":
            if not options.argv:
                raise LabError("exec: which command? for example: lbnode lab exec client curl http://192.0.2.10/")
            return lab.popen(options.node, options.argv).wait()
        case verb:
            _NODE_VERBS[verb][0](lab, options.node)
    return 0


def main() -> int:
    """Entry point; SIGTERM and a closed terminal are treated like Ctrl-C, so that all leave nothing behind."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        return _run(_parser().parse_args())
    except (LbError, OSError, RuntimeError, subprocess.SubprocessError) as error:
        sys.stderr.write(f"lbnode: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
