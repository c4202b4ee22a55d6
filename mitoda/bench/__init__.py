"""The paper's table, like for like: each method trained, scored on held-out labels, beside the published number."""

from mitoda.bench.published import PAPER_ORDER, PUBLISHED
from mitoda.bench.results import BenchTable, protocol, tabulate
from mitoda.bench.running import (
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
from mitoda.bench.task import TASKS, Task, find_task, own_task

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
