"""Who may talk to this node. One token; browsers trade it for a session cookie, programs send it as Bearer.

A cookie travels with every request the browser makes, also those another site made it send: so SameSite=Strict, and
each change made with a cookie must carry the session's CSRF token in a header, which another site cannot read.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass

SESSION_IDLE_S = 12 * 3600.0  # a session ends this long after its last request
MAX_SESSIONS = 1000
MAX_FAILURES = 5  # wrong tokens per address ...
FAILURE_WINDOW_S = 60.0  # ... in this time
MAX_REMOTES = 10_000  # addresses whose failures are remembered
CSRF_HEADER = "X-CSRF-Token"


@dataclass(slots=True)
class BrowserSession:
    id: str
    csrf: str
    expires: float

    def has_csrf(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(errors="surrogateescape"), self.csrf.encode())


class Auth:
    """Sessions and failed attempts of one listener. No clock: `now` is monotonic seconds."""

    def __init__(self, token: str, node: str) -> None:
        self._token = token.encode()
        # Browsers share cookies between ports of one host; two nodes behind one address must not log each other out.
        self.cookie = "lbnode-" + re.sub(r"[^A-Za-z0-9_.-]", "_", node)
        self._sessions: OrderedDict[str, BrowserSession] = OrderedDict()
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def blocked_for(self, remote: str, now: float) -> float:
        """Seconds until this address may try again; 0 = now."""
        recent = [time for time in self._failures.get(remote, ()) if time > now - FAILURE_WINDOW_S]
        return recent[-MAX_FAILURES] + FAILURE_WINDOW_S - now if len(recent) >= MAX_FAILURES else 0.0

    def check_token(self, given: str, remote: str, now: float) -> bool:
        """Compare in constant time; a wrong token counts against the address."""
        if secrets.compare_digest(given.encode(errors="surrogateescape"), self._token):
            self._failures.pop(remote, None)
            return True
        times = self._failures.setdefault(remote, [])
        times.append(now)
        del times[:-MAX_FAILURES]
        self._failures.move_to_end(remote)
        while len(self._failures) > MAX_REMOTES:
            self._failures.popitem(last=False)
        return False

    def open_session(self, now: float) -> BrowserSession:
        session = BrowserSession(secrets.token_urlsafe(32), secrets.token_urlsafe(32), now + SESSION_IDLE_S)
        self._sessions[session.id] = session
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def find_session(self, session_id: str, now: float) -> BrowserSession | None:
        """The session, its life prolonged, or None."""
        session = self._sessions.get(session_id)
        if session is None:
            return None
        if session.expires <= now:
            del self._sessions[session_id]
            return None
        session.expires = now + SESSION_IDLE_S
        self._sessions.move_to_end(session_id)
        return session

    def close_session(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)
