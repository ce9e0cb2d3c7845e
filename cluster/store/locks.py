"""One holder at a time between processes and threads of a node, by a lock file.

The kernel's flock is used where the file system has it: it falls with its process. Elsewhere the existence of a file is
the lock, its holder touches it now and then, and one that was not touched for a while is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_UNSUPPORTED = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}


@contextlib.contextmanager
def file_lock(path: Path, *, timeout: float = 60.0, stale: float = 30.0) -> Iterator[None]:
    """Holds the lock at `path` for the body. Raises `TimeoutError` after `timeout` seconds of waiting, `OSError` when
    the file can't be made. `stale`: seconds without a sign of life after which a lock without flock is taken over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _flock(path, timeout)
    if descriptor is None:
        with _by_existence(path.with_name(path.name + ".held"), timeout, stale):
            yield
        return
    try:
        yield
    finally:
        os.close(descriptor)  # drops the flock


def _flock(path: Path, timeout: float) -> int | None:
    """The open, locked file, or None where flock does not work. Only the holder may remove the file."""
    for _ in _attempts(path, timeout):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no flock")
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            pass
        except OSError as error:
            os.close(descriptor)
            if error.errno in _UNSUPPORTED:
                return None
            raise
        os.close(descriptor)
    raise AssertionError("unreachable")


def _is_at(path: Path, descriptor: int) -> bool:
    """False when the last holder removed the file: newcomers lock another one then."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _attempts(path: Path, timeout: float) -> Iterator[None]:
    """Yields until `timeout`, with short growing pauses, then raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    pause = 0.002
    while True:
        yield
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{path} was held by others for {timeout:.0f} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


@contextlib.contextmanager
def _by_existence(path: Path, timeout: float, stale: float) -> Iterator[None]:
    token, looked = uuid.uuid4().hex, 0.0
    for _ in _attempts(path, timeout):
        if _create(path, token):
            break
        if time.monotonic() - looked > min(1.0, stale / 4):
            looked = time.monotonic()
            _take_over(path, stale)
            if _create(path, token):
                break
    released = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, released, stale / 4), daemon=True)
    heart.start()
    try:
        yield
    finally:
        released.set()
        heart.join()
        with contextlib.suppress(OSError):
            if path.read_text() == token:
                path.unlink()


def _create(path: Path, token: str) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    return True


def _take_over(path: Path, stale: float) -> None:
    """Moves an abandoned lock aside; of several who try, one succeeds."""
    with contextlib.suppress(OSError):
        now = _clock_beside(path)
        if now - path.stat().st_mtime > stale:
            aside = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
            path.rename(aside)
            if now - aside.stat().st_mtime <= stale:  # a live one slipped in between: give it back
                os.link(aside, path)
            aside.unlink()


def _clock_beside(path: Path) -> float:
    """The time as the file system tells it: a file server's clock may go otherwise than this machine's."""
    probe = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}")
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink()


def _beat(path: Path, released: threading.Event, every: float) -> None:
    while not released.wait(every):
        with contextlib.suppress(OSError):
            os.utime(path)
