"""What the commands share in drawing: where messages go, progress that fits the terminal, Ctrl-C."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

stdout = Console(soft_wrap=True, highlight=False, emoji=False)
"""Results."""
stderr = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
"""Progress, warnings and logs."""


def say(message: str) -> None:
    """A line about what is going on."""
    stderr.print(message, markup=False)


def warn(message: str) -> None:
    """A line that a person should not overlook."""
    stderr.print(f"[yellow]warning:[/yellow] {_plain(message)}")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


class Ticker:
    """Says when the next plain line is due where there is no terminal to draw on."""

    def __init__(self, seconds: float = 30.0) -> None:
        self._seconds = seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether `seconds` have gone by since it last said yes."""
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


class StopRequest:
    """Set by the first Ctrl-C (or SIGTERM); the second ends the program at once."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self) -> bool:
        return self.asked


@contextmanager
def stopping_politely(message: str) -> Iterator[StopRequest]:
    """Let a loop finish its step after Ctrl-C; the second Ctrl-C interrupts as usual."""
    request = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if request.asked:
            raise KeyboardInterrupt
        request.asked = True
        say(message)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def duration(seconds: float) -> str:
    """Write a duration for a person.

    Examples
    --------
    >>> duration(8.41), duration(75), duration(4000)
    ('8.4 s', '1 min 15 s', '1 h 6 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds + 0.5)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
