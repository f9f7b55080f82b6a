"""The election process's end of the socket to the daemon. Never blocks: a daemon that hangs delays no advertisement."""

from __future__ import annotations

import json
import socket
from typing import Any

from lbnode.election.messages import encode_line

OUTBOX_LIMIT = 1 << 16  # bytes kept for a daemon that does not read


class Parent:
    """`gone` becomes True when the daemon has closed its end or died. `lost`: it missed messages (see `tell`)."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._inbox = b""
        self._outbox = bytearray()
        self.gone = False
        self.lost = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def unsent(self) -> bool:
        return bool(self._outbox)

    def read(self) -> list[dict[str, Any]]:
        """The messages that came; to be called when readable."""
        try:
            data = self._socket.recv(1 << 16)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            self.gone = True
            return []
        *lines, self._inbox = (self._inbox + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def tell(self, message: dict[str, Any]) -> None:
        """Queue a message; dropped (then `lost` is set) while too much is unsent."""
        if len(self._outbox) > OUTBOX_LIMIT:
            self.lost = True
        else:
            self._outbox += encode_line(message)

    def flush(self) -> None:
        """Send what the socket takes."""
        while self._outbox:
            try:
                sent = self._socket.send(self._outbox)
            except BlockingIOError:
                return
            except OSError:
                self.gone = True
                self._outbox.clear()
                return
            del self._outbox[:sent]
