"""A lock on an output, so that two processes do not mix what they write."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mitoda.errors import FileError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on an output while it is made; it ends with the process, however that ends.

    The lock is on a hidden file beside `path`. Where a file system has no locks, nothing is locked.

    Raises
    ------
    FileError
        If another process holds the lock, or the folder cannot be written to.
    """
    lock = path.with_name(f".{path.name}.mitoda-lock")
    try:
        file = _open_locked(lock)
    except BlockingIOError:
        raise FileError(
            f"{path} is being written by another mitoda ({_holder(lock)}); wait until it has ended, or give another "
            "name"
        ) from None
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        try:
            with suppress(OSError):
                lock.unlink(
                    missing_ok=True
                )  # before it is released, so that nobody locks a file without a name
        finally:
            os.close(file)


def _open_locked(lock: Path) -> int:
    """Open and lock a file, and note there who holds it; BlockingIOError if somebody else does."""
    while True:
        file = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            _lock(file)
            with suppress(FileNotFoundError):  # the holder before removed it meanwhile
                if os.path.samestat(os.fstat(file), lock.stat()):
                    os.truncate(file, 0)
                    os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int) -> None:
    """Lock an open file without waiting."""
    try:
        import fcntl
    except ImportError:  # Windows, where an open file can be neither removed nor replaced
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def _holder(lock: Path) -> str:
    try:
        return lock.read_text(encoding="utf-8")[:200] or "unknown process"
    except (OSError, ValueError):
        return "unknown process"
