"""The few kinds of error, each naming who is to blame and who acts on it.

Anything else that is raised is a bug: it ends the daemon's task group, the supervisor restarts it, and the
pinned data plane goes on forwarding meanwhile.
"""

from __future__ import annotations


class LbError(Exception):
    """Base of all errors that lbnode raises on purpose; `str(error)` is fit for an operator's eyes."""


class ConfigError(LbError):
    """The operator's input is wrong. The message names file:line:col or key and field, and what to do."""


class StoreUnavailable(LbError):
    """No endpoint of the configuration store answers. The last good configuration stays in force."""


class StoreRefused(StoreUnavailable, ConfigError):
    """The store answers, but refuses: wrong password, no permission, too large, out of space. The operator must act."""


class StoreConflict(LbError):
    """A guarded transaction found another revision than it expected. Read again, decide again."""


class PeerError(LbError):
    """A peer sent something invalid. Count it, drop it, change no state."""


class DataPlaneError(LbError):
    """The kernel refused an operation on one object. Reported per object and retried with back-off."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class Unsupported(DataPlaneError):
    """This data plane cannot do what was asked, ever; retrying is pointless until the configuration changes."""
