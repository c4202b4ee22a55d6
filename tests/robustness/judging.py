"""Run one command in this process and judge what it did: no traceback, no hang, no file touched that nobody named."""

import hashlib
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from typer.testing import CliRunner

from mitoda.cli.app import app
from mitoda.cli.display import explain

LONGEST = 20.0
"""Seconds after which a command hangs."""
MOST_MEMORY = 1 << 30
"""Bytes that one command may take."""


class Hang(BaseException):
    """A command took too long."""


@dataclass(frozen=True)
class Case:
    """A command line, and what must not change."""

    name: str
    arguments: Sequence[object]
    must_fail: bool = False
    """Whether to succeed would be a silent wrong result."""
    mentions: str = ""
    """What the message must name if the command fails."""
    verify: Callable[[], str] = lambda: ""
    """Says what is wrong with the result of a command that succeeded; an empty string if nothing is."""


@dataclass
class Verdict:
    """What was found over many cases."""

    inputs: int = 0
    found: list[tuple[str, str]] = field(default_factory=list)
    """Kind of fault (traceback, hang, memory, destroyed, silent, message), and which input made it."""

    def __str__(self) -> str:
        kinds = Counter(kind for kind, _ in self.found)
        head = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "no fault"
        lines = [f"{kind}: {text}" for kind, text in self.found[:40]]
        return "\n".join([f"{self.inputs} inputs: {head}", *lines])

    def add(self, other: "Verdict") -> None:
        """Join the findings of another verdict."""
        self.inputs += other.inputs
        self.found += other.found


def judge(cases: Iterator[Case], kept: Path) -> Verdict:
    """Run cases; `kept` is a folder in which no file may change.

    A case is made when its turn comes, so that it may prepare files.
    """
    verdict = Verdict()
    before = digest(kept)
    for case in cases:
        verdict.inputs += 1
        for kind, text in _faults(case):
            verdict.found.append((kind, f"{case.name}: {text}"))
        after = digest(kept)
        if after != before:
            changed = sorted(set(before.items()) ^ set(after.items()))
            verdict.found.append(("destroyed", f"{case.name}: {changed[0][0]}"))
            before = after
    return verdict


def digest(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _faults(case: Case) -> Iterator[tuple[str, str]]:
    began, memory = time.monotonic(), reset_peak()
    try:
        with limited(LONGEST), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = CliRunner().invoke(app, list(map(str, case.arguments)))
    except Hang:
        yield "hang", f"{time.monotonic() - began:.0f} s"
        return
    error = result.exception
    if isinstance(error, Hang):
        yield "hang", f"{time.monotonic() - began:.0f} s"
        return
    grown = peak() - memory
    if grown > MOST_MEMORY:
        yield "memory", f"{grown / 2**20:.0f} MiB"
    if error is None or (isinstance(error, SystemExit) and not error.code):
        if case.must_fail:
            yield "silent", "was accepted"
        elif wrong := case.verify():
            yield "silent", wrong
    elif isinstance(error, SystemExit):
        if result.exit_code not in (1, 2):
            yield "message", f"exit status {result.exit_code}"
    elif not isinstance(error, Exception) or (message := explain(error)) is None:
        yield "traceback", f"{type(error).__name__}: {str(error)[:160]}"
    elif case.mentions not in message:
        yield "message", f"does not name {case.mentions!r}: {message[:160]}"
    elif len(message) > 1500 or "\n" in message:
        yield "message", f"{len(message)} characters: {message[:160]!r}"


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `Hang` after so many seconds, where Python code runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reset_peak() -> int:
    """Make Linux measure the peak memory of this process anew; return what it has now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 1 << 62
    return peak()


def peak() -> int:
    """Peak memory of this process in bytes; 0 where it cannot be told."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
