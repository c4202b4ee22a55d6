"""Ctrl-C and SIGTERM: a command ends within two seconds, also while modules load, and says how to go on.

The first signal raises `Stopped` in the main thread, or asks a training to stop after its step. A thread waits beside
it: where Python does not come back from a long operation in time, it ends the process, which loses nothing, because
what is on disk can be continued at any moment.
"""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 1.6
"""Seconds for an orderly end."""


class Stopped(BaseException):
    """A person or a cluster asked the command to end; not a KeyboardInterrupt, which typer would catch."""


class _Command:
    """What is known of the running command: whether it was asked to stop, and how to go on after it."""

    def __init__(self) -> None:
        self.asked = False
        self.how_to_continue: Callable[[], str] = lambda: "give the same command again"

    @property
    def sentence(self) -> str:
        return f"mitoda: stopped; {self.how_to_continue()}"


_command = _Command()


def say_how_to_continue(how: Callable[[], str]) -> None:
    """Set what a person is told if the running command is stopped, e.g. "continue with --resume"."""
    _command.how_to_continue = how


@contextmanager
def ending_in_time() -> Iterator[None]:
    """Make the block end at Ctrl-C and SIGTERM, with one line on standard error and exit status 1."""
    global _command
    if threading.current_thread() is not threading.main_thread():  # only the main thread gets signals
        yield
        return
    _command = _Command()
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    earlier = {number: signal.signal(number, _stop) for number in _heeded()}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    ended = threading.Event()
    threading.Thread(target=_watch, args=(reader, ended, _command), daemon=True).start()
    try:
        yield
    except Stopped:
        sys.exit(_command.sentence)
    except (ImportError, SystemError):
        if _command.asked:  # what an interrupted import becomes
            sys.exit(_command.sentence)
        raise
    finally:
        ended.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in earlier.items():
            signal.signal(number, handler)
        writer.close()


def _heeded() -> list[signal.Signals]:
    """Signals that are not ignored: a shell lets its background jobs ignore Ctrl-C."""
    return [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


def _stop(number: int, frame: FrameType | None) -> None:
    if _command.asked:
        _end_now(_command)
    _command.asked = True
    raise Stopped


def _watch(reader: socket.socket, ended: threading.Event, command: _Command) -> None:
    """Wait for a signal, which arrives here at once, and end the process if the main thread does not in time."""
    with reader:
        while received := reader.recv(64):
            if set(received) & set(SIGNALS) and not ended.wait(GRACE):
                _end_now(command)


def _end_now(command: _Command) -> None:
    """End the process without unwinding; what is on disk stays as it is."""
    show_cursor = "\r\x1b[K\x1b[?25h" if os.isatty(2) else ""
    os.write(2, f"{show_cursor}{command.sentence}\n".encode(errors="replace"))
    os._exit(1)


class StopRequest:
    """Set by the first signal; asked by a loop before each step."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked


@contextmanager
def stopping_after_step(announce: Callable[[], None]) -> Iterator[StopRequest]:
    """Let a loop finish its step and save after the first signal; `announce` is called then.

    The second signal ends the process at once, and so does a step that takes too long.
    """
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked:
            _end_now(_command)
        request.asked = _command.asked = True
        announce()

    earlier = {number: signal.signal(number, ask) for number in _heeded()}
    try:
        yield request
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
