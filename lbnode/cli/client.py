"""The HTTP API over the node's unix socket, with the standard library only: start-up time is part of the product."""

from __future__ import annotations

import getpass
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

DEFAULT_SOCKET = "/run/lbnode/api.sock"
TIMEOUT_S = 15.0
_BLOCK = 1 << 16

# Exit codes of lbctl; lbadm has ipvsadm's.
EXIT_FAILED, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_CONFLICT, EXIT_UNREACHABLE = 1, 2, 3, 4, 5
_EXIT_BY_STATUS = {404: EXIT_NOT_FOUND, 409: EXIT_CONFLICT, 400: EXIT_FAILED}


class ApiError(Exception):
    """What the node answered, fit for stderr; `exit_code` is lbctl's."""

    def __init__(self, message: str, exit_code: int, kind: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.kind = kind


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout or TIMEOUT_S)
        self._path = path
        self._unbounded = timeout is None

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(None if self._unbounded else self.timeout)
        self.sock.connect(self._path)


class Client:
    """`socket_path`: the node's api.sock; LBNODE_SOCKET names another."""

    def __init__(self, socket_path: str | None = None) -> None:
        self.socket_path = socket_path or os.environ.get("LBNODE_SOCKET") or DEFAULT_SOCKET

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The decoded JSON answer; ApiError for everything else."""
        with self._open(method, path, body, TIMEOUT_S) as response:
            return json.loads(response.read())

    def lines(self, path: str) -> Iterator[Any]:
        """Each line of a newline-delimited JSON answer."""
        with self._open("GET", path, None, TIMEOUT_S) as response:
            rest = b""
            while block := response.read1(_BLOCK):  # a chunked answer read by lines takes several times as long
                *whole, rest = (rest + block).split(b"\n")
                yield from map(json.loads, whole)
            if rest:
                yield json.loads(rest)

    def stream(self, path: str, body: Mapping[str, Any]) -> http.client.HTTPResponse:
        """The answer's bytes, to be read as they come. It may take as long as it likes."""
        return self._open("POST", path, body, None)

    def events(self, path: str = "/api/v1/stream") -> Iterator[tuple[str, Any]]:
        """(event name, data) of a server-sent event stream, until the node ends it."""
        name, data = "message", ""
        with self._open("GET", path, None, None) as response:
            for raw in response:
                line = raw.decode().rstrip("\n").rstrip("\r")
                if not line:
                    if data:
                        yield name, json.loads(data)
                    name, data = "message", ""
                elif line.startswith("event:"):
                    name = line[6:].strip()
                elif line.startswith("data:"):
                    data += line[5:].strip()

    def _open(
        self, method: str, path: str, body: Mapping[str, Any] | None, timeout: float | None
    ) -> http.client.HTTPResponse:
        connection = _UnixConnection(self.socket_path, timeout)
        headers = {"X-LB-Who": who()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ApiError(
                f"no lbnoded answers at {self.socket_path} ({error.strerror}): is it running? "
                "Another path goes into LBNODE_SOCKET (lbctl: or --socket).",
                EXIT_UNREACHABLE,
            ) from error
        except PermissionError as error:
            message = f"{self.socket_path}: {error.strerror}: run as root"
            raise ApiError(message, EXIT_UNREACHABLE, "permission") from error
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{self.socket_path}: {error!r}", EXIT_UNREACHABLE) from error
        if response.status >= 400:
            raise _error(response)
        return response


def who() -> str:
    """The person at the keyboard, for the journal; through sudo the one who called it."""
    try:
        return f"{os.environ.get('SUDO_USER') or getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def segment(text: str) -> str:
    """One path segment: ids hold colons and brackets."""
    return quote(text, safe="")


def _error(response: http.client.HTTPResponse) -> ApiError:
    text = response.read()
    try:
        error = json.loads(text)["error"]
        message, kind = str(error["message"]), str(error["kind"])
        lines = [_problem(problem) for problem in error.get("problems") or ()]
    except (ValueError, KeyError, TypeError):
        message, kind, lines = f"HTTP {response.status}: {text[:200]!r}", "", []
    # The message usually is the list of problems already.
    extra = [line for line in lines if line not in message]
    return ApiError("\n".join([message, *extra]), _EXIT_BY_STATUS.get(response.status, EXIT_FAILED), kind)


def _problem(problem: Mapping[str, Any]) -> str:
    field = f"{problem['field']}: " if problem.get("field") else ""
    hint = f" ({problem['hint']})" if problem.get("hint") else ""
    return f"{problem['where']}: {field}{problem['message']}{hint}"
