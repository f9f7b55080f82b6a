"""The directories of the daemon: made if missing, held by one lbnoded at a time, before anything there is touched."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lbnode.config.bootstrap import NodeConfig
from lbnode.errors import ConfigError


@contextmanager
def claimed(config: NodeConfig) -> Iterator[None]:
    """Hold run_dir: a second daemon, or --unload beside a running one, would work on the same pinned maps.

    The lock of flock(2) ends with the process, however it ends. ConfigError names the directory and the reason.
    """
    _make("state_dir", config.state_dir)
    _make("run_dir", config.run_dir)
    path = config.run_dir / "lock"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _refused("run_dir", path, error) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"node.toml: run_dir: an lbnoded is running in {config.run_dir}: stop it first, "
                "or give this one a run_dir of its own"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _make(name: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _refused(name, path, error) from None


def _refused(name: str, path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"node.toml: {name}: cannot use {path}: {error.strerror}; lbnoded must be able to write there")
