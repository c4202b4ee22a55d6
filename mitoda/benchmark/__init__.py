"""The paper's table, like for like: each method trained, scored on held-out labels, beside the published number."""

from mitoda.benchmark.published import PAPER_ORDER, PUBLISHED
from mitoda.benchmark.runner import (
    BenchSettings,
    Event,
    Failed,
    Scored,
    ScoringSection,
    Skipped,
    Started,
    Stopped,
    Trained,
    choose_methods,
    run_bench,
)
from mitoda.benchmark.table import BenchTable, protocol, tabulate
from mitoda.benchmark.tasks import TASKS, Task, find_task, own_task

__all__ = [
    "PAPER_ORDER",
    "PUBLISHED",
    "TASKS",
    "BenchSettings",
    "BenchTable",
    "Event",
    "Failed",
    "Scored",
    "ScoringSection",
    "Skipped",
    "Started",
    "Stopped",
    "Task",
    "Trained",
    "choose_methods",
    "find_task",
    "own_task",
    "protocol",
    "run_bench",
    "tabulate",
]
