"""The command line as a person sees it: exit status, standard output, standard error."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mitoda.cli import main

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Outcome:
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The last line on standard error."""
        return self.err.strip().splitlines()[-1]


class Commands:
    """Runs `mitoda …` in this process, through the same `main` as the installed command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Outcome:
        """Run one command."""
        self.monkeypatch.setattr(sys, "argv", ["mitoda", *map(str, arguments)])
        self.capsys.readouterr()
        status, message = 0, ""
        try:
            main()
        except SystemExit as end:
            # Python prints a text that is given as the status, and exits with 1
            status, message = (1, end.code) if isinstance(end.code, str) else (int(end.code or 0), "")
        captured = self.capsys.readouterr()
        return Outcome(status, captured.out, captured.err + message)

    def refused(self, *arguments: object, status: int = 1) -> str:
        """Run a command that must fail with one line, no traceback and nothing on standard output; return the line."""
        outcome = self(*arguments)
        assert outcome.status == status, outcome
        assert outcome.out == ""
        assert "Traceback" not in outcome.err
        assert outcome.message.startswith("mitoda: ")
        assert sum(line.startswith("mitoda: ") for line in outcome.err.splitlines()) == 1
        return outcome.message


def heed_signals() -> None:
    """Undo what a shell does to its background jobs, which ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments: object, **options: object) -> "subprocess.Popen[str]":
    """Start `mitoda …` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "mitoda", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=heed_signals,
        **options,  # type: ignore[call-overload]
    )


def finish(process: "subprocess.Popen[str]", seconds: float = 300) -> Outcome:
    """Wait for a process."""
    out, err = process.communicate(timeout=seconds)
    return Outcome(process.returncode, out, err)


def interrupt_when(process: "subprocess.Popen[str]", ready: "object", seconds: float = 300) -> Outcome:
    """Send Ctrl-C once `ready()` holds, and wait."""
    end = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never got so far"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    return finish(process)
