"""Leave one data set out: what is left out in turn, the stages of each, and how each stage is trained."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mitoda.benchmark.tasks import LODO
from mitoda.datasets import is_dataset_spec
from mitoda.errors import InputError, check_numbers
from mitoda.evaluation.scoring import check_shapes
from mitoda.models.weights import find_weights
from mitoda.training.domains import open_domain, split_spec
from mitoda.training.run_folder import RunFolder
from mitoda.training.settings import LABELLED_MINUTES, Plan, TrainingSettings
from mitoda.volumes import Volume, write_sections

GENERAL, ADAPT, PAINTED = STAGES = ("general", "adapt", "painted")
GENERAL_STEPS = 1500
ADAPT_MINUTES = 10.0
PIXEL_NM, SPACING_NM = 5.0, 50.0
"""Of the pretrained `general`; fixed, so that the size of the voxels that are left out decides nothing."""


@dataclass(frozen=True)
class LeftOut:
    """A data set that is left out: its labels serve for scoring, and as a source where another one is left out."""

    name: str
    volumes: tuple[str, ...]
    """With labels: fetched data sets, or IMAGES:LABELS. All are scored; the first is the one adapted to, and the source
    where another data set is left out."""

    @property
    def target(self) -> str:
        """The images adapted to, without labels."""
        return unlabelled(self.volumes[0])


LEFT_OUT: dict[str, LeftOut] = {
    "vnc3": LeftOut("vnc3", ("vnc3",)),
    "lucchi": LeftOut("lucchi", ("lucchi:training",)),
    "cdeep3m": LeftOut("cdeep3m", ("cdeep3m:training", "cdeep3m:validation")),
}


def unlabelled(spec: str) -> str:
    """Return the images of a labelled volume's spec."""
    return spec if is_dataset_spec(spec) else split_spec(spec)[0]


@dataclass(frozen=True)
class LodoSettings:
    """Which data sets are left out, and for how long to train."""

    only: tuple[str, ...] = ()
    """Names in `LEFT_OUT`; empty is all."""
    stages: tuple[str, ...] = STAGES
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    """Of `general`: steps, or minutes; `GENERAL_STEPS` if neither is given."""
    minutes: float | None = None
    adapt_steps: int | None = None
    """Instead of `ADAPT_MINUTES`."""
    painted_steps: int | None = None
    """Instead of `LABELLED_MINUTES`."""
    more_sources: tuple[str, ...] = ()
    """Sources of `general` beside the data sets that are not left out."""
    starts: dict[str, str] = field(default_factory=dict)
    """Weights of `general` by what is left out, instead of training them; `{seed}` in them is replaced."""
    patch: int = TrainingSettings.patch
    dest: str | None = None

    def __post_init__(self) -> None:
        for kind, names, known in (
            ("data set to leave out", (*self.only, *self.starts), tuple(LEFT_OUT)),
            ("stage", self.stages, STAGES),
        ):
            for name in names:
                if name not in known:
                    raise InputError(f"there is no {kind} '{name}'; choose from {', '.join(known)}")
        if not self.stages:
            raise InputError(f"no stage is given; choose from {', '.join(STAGES)}")
        lengths = (1, 10**9)
        check_numbers(self, steps=lengths, adapt_steps=lengths, painted_steps=lengths)
        if self.steps is not None and self.minutes is not None:
            raise InputError("give the length of 'general' either as steps or as minutes, not both")

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """What is left out in turn."""
        return tuple(LEFT_OUT[name] for name in self.only or LEFT_OUT)

    def sources(self, left_out: LeftOut) -> tuple[str, ...]:
        """Labelled volumes that `general` learns from."""
        others = (one.volumes[0] for one in LEFT_OUT.values() if one != left_out)
        return (*others, *self.more_sources)


@dataclass(frozen=True)
class Stage:
    """One training and the volumes that its weights are scored on."""

    left_out: LeftOut
    kind: str
    """One of `STAGES`."""
    seed: int
    run: RunFolder
    plan: Plan
    weights: Path
    """Weights that are scored."""
    painted: int | None = None
    """Number of the painted section, of the first volume; it is not scored."""

    @property
    def name(self) -> str:
        """Name of its folder below that of the benchmark."""
        return f"{self.left_out.name}/{self.run.path.name}"

    @property
    def is_trained_here(self) -> bool:
        """Whether its weights are not given."""
        return self.weights == self.run.weights

    @property
    def start(self) -> Path | None:
        """Weights that existed before it: those it starts from, or the given ones; None from scratch."""
        if not self.is_trained_here:
            return self.weights
        return None if self.plan.start is None else Path(self.plan.start)

    @property
    def score_path(self) -> Path:
        """Its scores, written last."""
        return self.run.path / "score.json"

    @property
    def is_finished(self) -> bool:
        """Whether it is trained and scored."""
        return self.score_path.is_file()


def plan_stages(settings: LodoSettings, folder: Path) -> list[Stage]:
    """List all stages in the order in which they run; nothing is read but the shapes of what is left out.

    `general` is a stage also where it was not asked for, unless its weights are given: the others start from it.

    Raises
    ------
    FileError, InputError
        If a volume, or weights that are given, are missing.
    """
    return [
        stage
        for seed in settings.seeds
        for left_out in settings.left_out
        for stage in _stages(settings, left_out, seed, (folder / LODO / left_out.name).absolute())
    ]


def _stages(settings: LodoSettings, left_out: LeftOut, seed: int, folder: Path) -> Iterator[Stage]:
    run = RunFolder(folder / f"{GENERAL}-seed{seed}")
    weights = run.weights
    if left_out.name in settings.starts:
        given = find_weights(settings.starts[left_out.name].replace("{seed}", str(seed)))
        weights = given.absolute()
    source, *more = settings.sources(left_out)
    length = (
        (settings.steps, settings.minutes) if settings.minutes or settings.steps else (GENERAL_STEPS, None)
    )
    plan = Plan(
        target=unlabelled(source),  # required by Plan; this method does not read the target
        source=source,
        more_sources=tuple(more),
        training=replace(_training(settings, seed, *length), method="source-only", augmentation="wide"),
        start=None,
        pixel=PIXEL_NM,
        spacing=SPACING_NM,
        dest=settings.dest,
    )
    if GENERAL in settings.stages or weights == run.weights:
        yield Stage(left_out, GENERAL, seed, run, plan, weights)
    adapting = Plan(target=left_out.target, source_free=True, start=str(weights), dest=settings.dest)
    if ADAPT in settings.stages:
        run = RunFolder(folder / f"{ADAPT}-seed{seed}")
        training = _training(settings, seed, settings.adapt_steps, ADAPT_MINUTES)
        yield Stage(left_out, ADAPT, seed, run, replace(adapting, training=training), run.weights)
    if PAINTED in settings.stages:
        run = RunFolder(folder / f"{PAINTED}-seed{seed}")
        section = open_domain(left_out.target, labelled=False, dest=settings.dest).volume.shape[0] // 2
        plan = replace(
            adapting,
            training=_training(settings, seed, settings.painted_steps, LABELLED_MINUTES),
            labels=str(folder / f"painted-{section}.tif"),
            label_section=section,
        )
        yield Stage(left_out, PAINTED, seed, run, plan, run.weights, section)


def _training(
    settings: LodoSettings, seed: int, steps: int | None, minutes: float | None
) -> TrainingSettings:
    """Settings of a training; minutes count where no steps are given."""
    minutes = None if steps is not None else minutes
    return TrainingSettings(steps=steps, minutes=minutes, seed=seed, patch=settings.patch)


def open_scored(spec: str, dest: str | None) -> tuple[Volume, Volume]:
    """Open the images and labels of a volume that is left out.

    Raises
    ------
    FileError, InputError
        If one of them is missing, the shapes differ, or the voxel size is unknown.
    """
    domain = open_domain(spec, labelled=True, dest=dest)
    if domain.labels is None or domain.volume.voxel_size is None:
        raise InputError(
            f"{spec} has no labels or no voxel size in its metadata; both are needed to score it"
        )
    check_shapes(domain.volume, domain.labels)
    return domain.volume, domain.labels


def paint(stage: Stage) -> None:
    """Write the labels of the painted section as a person would paint all of it, unless they are there."""
    if stage.plan.labels is None or stage.painted is None or Path(stage.plan.labels).is_file():
        return
    path = Path(stage.plan.labels)
    volume, labels = open_scored(stage.left_out.volumes[0], stage.plan.dest)
    path.parent.mkdir(parents=True, exist_ok=True)
    classes = (1 + (labels.read(stage.painted) != 0)).astype(np.uint8)[None]
    write_sections(path, classes, classes.shape, classes.dtype, volume.voxel_size, overwrite=True)
