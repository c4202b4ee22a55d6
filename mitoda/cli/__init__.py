"""The command line: the only package that knows the terminal. The core yields, this draws.

One function turns what a person can act on into one line on standard error and exit status 1; usage errors exit with 2.
"""

import ctypes
import io
import sys

from mitoda.cli.stopping import ending_in_time

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's `mallopt`; see its manual page."""
LARGE_BLOCK = 2**29
"""Bytes from which a block is handed back at once all the same: arrays of sections of 12,000 × 12,000 pixels, between
which 0.5 GB of unused memory remained. The layers of `codetection` on Lucchi have up to 0.4 GB; handed back too, they
take a tenth to a quarter longer."""


def main() -> None:
    """Run the command line; exit 0 done, 1 failed, 2 usage."""
    keep_freed_memory()
    replace_unprintable()
    try:
        with ending_in_time():
            from mitoda.cli.app import app  # takes a moment, in which Ctrl-C counts too

            app()
    except Exception as error:
        from mitoda.cli.display import explain

        message = explain(error)
        if message is None:  # a defect of ours: the traceback is what helps
            raise
        sys.exit(f"mitoda: {message}")


def replace_unprintable() -> None:
    """Print what the encoding of standard output lacks as a question mark, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


def keep_freed_memory() -> bool:
    """Let the process keep memory it has freed, for what it will allocate next; say whether that could be done.

    By default glibc hands large blocks back to the system at once. Every network layer then gets fresh pages, and the
    system clears each of them: 28,000 page faults in a training step of `mitoda`, 3,000 with this. The peak stays
    the same. Elsewhere than with glibc nothing is changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)) and bool(mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1))
