"""The paper's table, like for like: each method trained, scored on held-out labels, beside the published number."""

from mitoda.benchmark.runner import run_bench
from mitoda.benchmark.table import BenchTable, tabulate
from mitoda.benchmark.tasks import TASKS, BenchSettings, Task, choose_methods, find_task, own_task

__all__ = [
    "TASKS",
    "BenchSettings",
    "BenchTable",
    "Task",
    "choose_methods",
    "find_task",
    "own_task",
    "run_bench",
    "tabulate",
]
