"""What the benchmarks share: repeated timings, peak memory of a process, one table."""

import argparse
import os
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mitoda.models.device import cpu_has_bfloat16, describe_device

REAL_DATA = Path(os.environ.get("MITODA_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    seconds: float
    """Median."""
    baseline: float | None = None
    """Median seconds of what it is compared with, taken in the same run."""
    memory: int | None = None
    """Peak bytes of the whole process."""
    limit: str = ""
    """What was asked for."""


def parser(description: str) -> argparse.ArgumentParser:
    """Options that all benchmarks have."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--data", type=Path, default=REAL_DATA, help="folder of the real volumes")
    options.add_argument("--repeats", type=int, default=3, help="timings of which the median is shown")
    options.add_argument("--device", default="cpu")
    return options


def median_seconds(work: Callable[[], object], repeats: int, device: str = "cpu") -> float:
    """Median time of several calls, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


def run_process(command: Sequence[str]) -> tuple[float, int | None]:
    """Run a command; return its seconds from start to end, and the peak of its memory in bytes (on Linux).

    The peak that `wait4` tells would be at least the memory of the process that started it.
    """
    began = time.perf_counter()
    peak = None
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=complaints)
        while process.poll() is None:
            peak = peak_of(process.pid) or peak
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        if process.returncode:
            complaints.seek(0)
            raise RuntimeError(f"{' '.join(command)} failed:\n{complaints.read().decode()}")
    return seconds, peak


def peak_of(process: int) -> int | None:
    """Highest resident memory of a running process so far, in bytes; None where the system does not tell."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    return int(found[1]) * 1024 if found else None


def describe_machine(device: str) -> str:
    """The machine in a line."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if "model name" in line
        ]
        name = names[0] if names else name
    kind = "bfloat16" if cpu_has_bfloat16() else "no bfloat16"
    return f"{name}, {os.cpu_count()} cores, {kind}; torch {torch.__version__}; {describe_device(torch.device(device))}"


def show(title: str, rows: Sequence[Row], device: str = "cpu", notes: Sequence[str] = ()) -> None:
    """Print the table."""
    print(f"\n{title}\n{describe_machine(device)}\n")
    print(f"{'':64}  {'seconds':>9}  {'baseline':>9}  {'ratio':>6}  {'memory':>8}  limit")
    for row in rows:
        baseline = f"{row.baseline:9.3f}" if row.baseline is not None else " " * 9
        ratio = f"{row.baseline / row.seconds:5.1f}×" if row.baseline is not None else " " * 6
        memory = f"{row.memory / 2**20:5.0f} MB" if row.memory is not None else " " * 8
        print(f"{row.what:64}  {row.seconds:9.3f}  {baseline}  {ratio}  {memory}  {row.limit}".rstrip())
    for note in notes:
        print(f"- {note}")
