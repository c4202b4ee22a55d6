"""Ctrl-C and SIGTERM end a command in time, and say how to go on."""

import signal
import subprocess
import sys

import pytest

from tests.commands import ROOT, heed_signals

PROGRAM = """
import ctypes, sys, threading, time
from mitoda.cli.stopping import ending_in_time, say_how_to_continue, stopping_after_step

def begin():
    print("begun", flush=True)

def never_return():
    "Lock a mutex twice in C: no signal interrupts that."
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)

with ending_in_time():
    say_how_to_continue(lambda: "continue with --resume")
    BODY
"""
WAITS = "begin(); time.sleep(60)"
"""The signal interrupts Python."""
IN_C = "begin(); never_return()"
"""A call that does not come back to Python."""
IMPORTING = """
    try:
        begin(); time.sleep(60)
    except BaseException:
        raise ImportError("a module could not be initialised")
"""
SWALLOWED = """
    begin()
    while True:
        try: time.sleep(60)
        except BaseException: pass
"""
LONG_STEP = """
    with stopping_after_step(lambda: print("saving", file=sys.stderr)) as stop:
        begin(); never_return()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="signals and mutexes of Linux")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "body",
    [WAITS, IN_C, IMPORTING, SWALLOWED, LONG_STEP],
    ids=["python", "c", "import", "swallowed", "step"],
)
def test_a_signal_ends_the_command_and_says_how_to_go_on(number, body):
    """Long before the operation it was in would have ended; status 1, one line, no traceback."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("BODY", body.strip())],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=40)
    assert process.returncode == 1, err
    assert err.splitlines()[-1] == "mitoda: stopped; continue with --resume"
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_finished_step_ends_in_order_and_a_second_signal_at_once():
    """The loop sees the request and saves; a second Ctrl-C does not wait for it."""
    body = """
    import mitoda.cli.stopping
    mitoda.cli.stopping.GRACE = 30  # however busy the machine is
    with stopping_after_step(lambda: print("saving", file=sys.stderr, flush=True)) as stop:
        begin()
        while not stop():
            time.sleep(0.01)
        print("saved", flush=True)
        if len(sys.argv) > 1:
            time.sleep(1)
            print("again", flush=True)
"""
    for arguments, expected in (([], 0), (["second"], 1)):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM.replace("BODY", body.strip()), *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed_signals,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "saved\n"
            if arguments:
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=40)
        assert (process.returncode, out) == (expected, "")
        assert err.startswith("saving\n")
