"""The serving process's side of a restart of lbnoded: it steps aside for the next daemon's, without an election.

It listens on a socket in the run directory. The next daemon connects before it starts a process of its own, says now
and then that it gets on, for its data plane may take long to open, and asks this one to abdicate when that one is
ready and the configuration is known. From then on this one says nothing more: it
names the groups that it holds and ends, and leaves addresses and leases to its heir, who advertises at once.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any

from lbnode.election.messages import ABDICATE, encode_line


class Succession:
    """`heard`: when `asked` looked last, the next daemon had connected or said something."""

    def __init__(self) -> None:
        self.heard = False
        self._listener: socket.socket | None = None
        self._heir: socket.socket | None = None
        self._said = b""

    def listen(self, path: str) -> None:
        """Be found at `path` from now on, in place of an earlier process. OSError: it cannot be made there."""
        if self._listener is not None:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)  # who may connect may take the addresses away
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            listener.listen(1)
        except OSError:
            listener.close()
            raise
        finally:
            os.umask(before)
        self._listener = listener

    @property
    def sockets(self) -> list[socket.socket]:
        """To wait for."""
        return [one for one in (self._listener, self._heir) if one is not None]

    def asked(self) -> bool:
        """Look what came. True: abdicate now. The latest daemon counts, if there are several."""
        self.heard = False
        if self._listener is not None:
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                connection.setblocking(False)  # a daemon that says nothing yet must not hold up an advertisement
                self._drop_heir()
                self._heir, self._said, self.heard = connection, b"", True
        if self._heir is None:
            return False
        try:
            data = self._heir.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._drop_heir()
            return False
        self.heard = True
        self._said = (self._said + data)[-4096:]
        return self._said.endswith(encode_line(ABDICATE))

    def answer(self, held: Mapping[str, Any]) -> None:
        """Hand over: the last that this process does."""
        if self._heir is not None:
            self._heir.settimeout(1.0)
            with contextlib.suppress(OSError):
                self._heir.sendall(encode_line({"held": held}))

    def _drop_heir(self) -> None:
        if self._heir is not None:
            self._heir.close()
            self._heir = None
