"""What lbadm --direct sends to ip_vs and reads from it, without a kernel."""

from __future__ import annotations

import errno
import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbnode.cli.ipvsadm import listing
from lbnode.cli.ipvsadm.grammar import Command, parse
from lbnode.cli.ipvsadm.kernel import explain, request, service_row
from lbnode.cli.ipvsadm.restore import script
from lbnode.cli.ipvsadm.values import GrammarError
from lbnode.dataplane.ipvs import codec
from tests.reference.generate import Walk
from tests.reference.host import ReferenceHost


def saved(command: Command) -> str:
    """The line of `-S --full` for what the kernel would have after the command."""
    _, body = request(command)
    assert command.service is not None
    if command.name == "add-service":
        row = service_row(codec.decode_service(body), [])
        return next(listing.saved([row], listing.numeric, full=True))
    holder = codec.Service(command.service, "rr", codec.Flags(0), 0, 0xFFFFFFFF)
    row = service_row(holder, [codec.decode_destination(body, command.service.family)])
    return list(listing.saved([row], listing.numeric, full=True))[1]


@given(st.integers(0, 2**32))
def test_what_was_sent_is_saved_as_a_command_that_sends_the_same(seed: int) -> None:
    for step in Walk(seed | 1).steps(6):
        try:
            command = parse(shlex.split(step["cmd"])[1:], ReferenceHost())
        except GrammarError:
            continue
        if " " in (command.scheduler or ""):
            continue  # no kernel has such a scheduler, and -S no quotes
        if command.name in ("add-service", "add-server"):
            if not command.persistent_s:
                command = replace(command, netmask=None)  # -S shows that of persistent services
            assert request(parse(shlex.split(saved(command)), ReferenceHost())) == request(command)


def test_the_flag_without_a_name_is_saved_in_full() -> None:
    command = parse(["-A", "-t", "192.0.2.1:80", "-s", "sh", "-b", "flag-3,sh-port"], ReferenceHost())
    assert saved(command) == "-A -t 192.0.2.1:80 -s sh -b sh-port,flag-3"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("add-service", errno.EEXIST, "Service already exists"),
        ("edit-service", errno.ENOENT, "Scheduler or persistence engine not found"),
        ("delete-server", errno.ENOENT, "No such destination"),
        ("add-server", errno.ESRCH, "Service not defined"),
        ("add-server", errno.ERANGE, "Numerical result out of range"),
        ("start-daemon", errno.ENODEV, "No such device"),
        ("", errno.ENOENT, "Protocol not available"),
        ("", errno.EPERM, "Permission denied (you must be root)"),
    ],
)
def test_words_for_the_kernels_errors(command: str, code: int, words: str) -> None:
    assert explain(command, code) == words


def test_the_words_of_a_script() -> None:
    """Blank lines stay, for their numbers; CR is a blank, `ipvsadm` is skipped everywhere, nothing is a comment."""
    lines = b"ipvsadm -A -t 192.0.2.1:80\r\n\n \t\n-a\t-t ipvsadm x\ry # no\n-C"
    assert list(script(lines.split(b"\n"))) == [
        ["-A", "-t", "192.0.2.1:80"], [], [], ["-a", "-t", "x", "y", "#", "no"], ["-C"],
    ]  # fmt: skip
