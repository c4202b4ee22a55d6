"""One method with one seed: its run folder, what is in it, and what it scored.

OUT/<task>/<method>-seed<k>/   a run folder of `mitoda adapt`, and
    score-<step>.json          of each checkpoint kept
    score.json                 of the last weights; written last, and with it the entry is finished
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mitoda.benchmark.tasks import Task
from mitoda.errors import FileError, InputError
from mitoda.evaluation.scoring import METRICS, Scores, VolumeScore
from mitoda.training.domains import AdaptationPlan, load_plan
from mitoda.training.run_folder import RunFolder

SCORE = "score.json"
INCIDENTAL = ("version", "dest", "workers", "checkpoint_minutes")
"""What may differ between two calls of `bench` without making another entry."""

Selection = dict[str, float | None]


@dataclass(frozen=True)
class Entry:
    """A method with a seed, and where it lies."""

    method: str
    seed: int
    folder: Path
    plan: AdaptationPlan

    @property
    def name(self) -> str:
        """As its folder is called."""
        return self.folder.name

    @property
    def run(self) -> RunFolder:
        """Its training."""
        return RunFolder(self.folder)

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and scored."""
        return (self.folder / SCORE).is_file()

    @property
    def is_begun(self) -> bool:
        """Whether a training can be gone on with."""
        return self.run.can_resume

    def check(self) -> None:
        """Refuse a folder that holds this entry made in another way.

        Raises
        ------
        InputError
            If a setting differs; the message names it.
        """
        if not self.run.plan.is_file():
            return
        found, wanted = _flat(load_plan(self.run)), _flat(self.plan)
        for name in [name for name in wanted if found.get(name) != wanted[name]]:
            raise InputError(
                f"{self.folder} was made with {name} {found.get(name)}, now it is {wanted[name]}; give the same "
                "settings again, or another folder with --out"
            )

    def begin(self) -> None:
        """Make an empty run folder of it; nothing of an earlier attempt stays."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in (self.score_path(None), *self.folder.glob("score-*.json")):
            path.unlink(missing_ok=True)
        self.run.remove_run()
        self.plan.save(self.run)

    def kept(self) -> dict[int, Path]:
        """Checkpoints by step, without those of an attempt that was gone back behind."""
        files = self.run.kept_weights()
        logged = self.logged_selection()
        return {step: files[step] for step in files if step in logged or not logged}

    def logged_selection(self) -> dict[int, Selection]:
        """Label-free scores that the training wrote into its log, by step."""
        return {
            record["step"]: record["selection"] for record in self.run.read_log() if "selection" in record
        }

    def score_path(self, step: int | None) -> Path:
        """Where the score of a checkpoint goes; None is the last weights."""
        return self.folder / (SCORE if step is None else f"score-{step}.json")


def _flat(plan: AdaptationPlan) -> dict[str, object]:
    """A plan's settings by name, without what is incidental."""
    values = asdict(plan)
    values |= values.pop("training")
    return {name: value for name, value in values.items() if name not in INCIDENTAL}


@dataclass(frozen=True)
class Checkpoint:
    """Weights at a step: the score with labels, and those without."""

    step: int
    mean: Scores
    """Over the sections with labelled foreground, the paper's protocol."""
    pooled: Scores
    """Of all pixels together."""
    selection: Selection


@dataclass(frozen=True)
class Result:
    """What an entry scored."""

    method: str
    seed: int
    seconds: float
    """Of training."""
    last: Checkpoint
    kept: tuple[Checkpoint, ...] = field(default=())

    @property
    def best(self) -> Checkpoint:
        """Of all kept and the last, the one with the highest F1 on the test labels: chosen by labels."""
        return max((*self.kept, self.last), key=lambda checkpoint: _or_least(checkpoint.mean.f1))


def _or_least(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def write_score(
    entry: Entry,
    task: Task,
    step: int | None,
    score: VolumeScore,
    selection: Selection,
    info: dict[str, Any],
) -> None:
    """Write a score, complete or not at all."""
    path = entry.score_path(step)
    content = {
        "task": task.name,
        "test": [task.test, task.labels],
        "method": entry.method,
        "seed": entry.seed,
        **info,
        "selection": selection,
        "score": score.to_dict(),
    }
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(path)


def read_result(entry: Entry, task: Task) -> Result:
    """Read what a finished entry scored.

    Raises
    ------
    FileError, InputError
        If a file is broken, or was scored on another volume.
    """
    last, seconds = _read_score(entry.score_path(None), task)
    kept = [_read_score(entry.score_path(step), task)[0] for step in entry.kept()]
    return Result(entry.method, entry.seed, seconds, last, tuple(kept))


def _read_score(path: Path, task: Task) -> tuple[Checkpoint, float]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        mean, pooled = (_scores(content["score"][name]) for name in ("mean", "pooled"))
        checkpoint = Checkpoint(content["step"], mean, pooled, content["selection"])
        test, seconds = content["test"], float(content["seconds"])
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path} cannot be read ({error}); delete it to have it scored again") from error
    if test != [task.test, task.labels]:
        raise InputError(
            f"{path} is a score on {test[0]}, labels {test[1]}; now {task.test}, labels {task.labels}, are asked "
            "for; give another folder with --out"
        )
    return checkpoint, seconds


def _scores(row: dict[str, float | None]) -> Scores:
    values = (row[name] for name in METRICS)
    return Scores(*(math.nan if value is None else value for value in values))
