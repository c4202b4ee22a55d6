"""The paper's table, like for like: each method trained, scored on held-out labels, beside the published number.

`run_lodo` leaves one data set out in turn instead.
"""

from mitoda.benchmark.left_out import LodoSettings
from mitoda.benchmark.lodo import run_lodo
from mitoda.benchmark.runner import run_bench
from mitoda.benchmark.table import BenchTable, tabulate
from mitoda.benchmark.tasks import (
    TASKS,
    BenchSettings,
    Task,
    choose_methods,
    choose_seeds,
    find_task,
    own_task,
)

__all__ = [
    "TASKS",
    "BenchSettings",
    "BenchTable",
    "LodoSettings",
    "Task",
    "choose_methods",
    "choose_seeds",
    "find_task",
    "own_task",
    "run_bench",
    "run_lodo",
    "tabulate",
]
